"""What ties a payment to an offer and to who may claim it.

    reference  = H(tag("tensorage/dataset/payment/v1") || offer hash || claim key)
    claim hash = H(tag("tensorage/dataset/claim/v1") || reference || place)
    payment id = H(tag("tensorage/dataset/paid/v1") || u8 length || network || place)

The reference goes onto the chain with the money: in a remark with TAO, as the nonce with EIP-3009. It binds
the payment to one offer, so to one version, price, payee and network, and to an Ed25519 key that the buyer
made for it alone. The place is where the payment stands on its chain: 32 bytes of block hash and u32 index of
the extrinsic with TAO; asset, payer (20 bytes each) and nonce with EIP-3009. Whoever claims signs the claim
hash with the claim key, whose secret half never leaves the buyer: to see a payment is not to own it. The
payment id is of the place alone, so that one transfer buys once, whatever references stand beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ... import keyauth
from ...encoding import HASH_SIZE, KEY_SIZE, SIGNATURE_SIZE, fixed, from_hex, sha256, tag, u8
from .errors import PaymentRefused

_REFERENCE = tag("tensorage/dataset/payment/v1")
_CLAIM = tag("tensorage/dataset/claim/v1")
_PAID = tag("tensorage/dataset/paid/v1")


def reference(offer_hash: bytes, claim_key: bytes) -> bytes:
    """The 32 bytes that a payment carries on chain."""
    return sha256(
        _REFERENCE + fixed(offer_hash, HASH_SIZE, "offer hash") + fixed(claim_key, KEY_SIZE, "claim key")
    )


def claim_hash(reference: bytes, place: bytes) -> bytes:
    """The 32 bytes that the claim key signs."""
    return sha256(_CLAIM + fixed(reference, HASH_SIZE, "reference") + place)


def payment_id(network: str, place: bytes) -> bytes:
    """The 32 bytes by which a seller knows a payment."""
    name = network.encode("ascii")
    return sha256(_PAID + u8(len(name)) + name + place)


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim key and its signature, as they stand in a payment."""

    key: bytes
    signature: bytes

    @classmethod
    def read(cls, key: object, signature: object) -> Claim:
        """The claim in two texts of lower-case hex.

        Raises:
            PaymentRefused: bad_claim.
        """
        if not isinstance(key, str) or not isinstance(signature, str):
            raise PaymentRefused("bad_claim", "the payment carries no claimKey and signature")
        try:
            return cls(
                from_hex(key, KEY_SIZE, "claimKey"),
                from_hex(signature, SIGNATURE_SIZE, "the claim's signature"),
            )
        except ValueError as error:
            raise PaymentRefused("bad_claim", str(error)) from error

    def check(self, offer_hash: bytes, place: bytes) -> bytes:
        """The reference of the payment, if the claim key has signed for this place.

        Raises:
            PaymentRefused: bad_claim.
        """
        made = reference(offer_hash, self.key)
        if not keyauth.verify(self.key, claim_hash(made, place), self.signature):
            raise PaymentRefused(
                "bad_claim", "the claim is not signed by its key for this payment and this offer"
            )
        return made

    def json(self) -> dict[str, str]:
        return {"claimKey": self.key.hex(), "signature": self.signature.hex()}


def sign_claim(key: keyauth.SigningKey, offer_hash: bytes, place: bytes) -> Claim:
    """The claim of a payment that stands at `place`."""
    return Claim(key.public_key, key.sign(claim_hash(reference(offer_hash, key.public_key), place)))
