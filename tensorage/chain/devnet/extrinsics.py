"""Signed extrinsics: a call, who signs it, its nonce and its era, and a real signature over all of it.

    payload = call || {era, nonce, tip, spec version} || genesis hash || hash of the era's first block

A payload of more than 256 bytes is signed by its BLAKE2b-256 digest, as on every Substrate chain. A mortal
extrinsic of period P that was signed at block b may be included until block b + P - 1; an immortal one
(`era` None) names the genesis block as its first.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from bittensor import sp_core

from .calls import SPEC_VERSION, Call, decode, encode

PREFIX = b"devnet/1\n"
_FIELDS = {"call", "signer", "signature", "crypto", "era", "nonce", "spec", "tip"}
_SIGNATURE = re.compile("0x[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class Era:
    """A mortal extrinsic's life: `period` blocks from block `birth` on."""

    period: int
    birth: int

    def alive(self, block: int) -> bool:
        return self.birth <= block < self.birth + self.period


@dataclass(frozen=True, slots=True)
class Unsigned:
    """An extrinsic before its signature. Hashes are 0x-hex; `birth_hash` is the era's first block's."""

    call: Call
    signer: str
    nonce: int
    era: Era | None
    genesis_hash: str
    birth_hash: str
    tip: int = 0

    @property
    def included(self) -> bytes:
        """What the extrinsic carries besides the call."""
        era = None if self.era is None else [self.era.period, self.era.birth]
        return encode({"era": era, "nonce": self.nonce, "spec": SPEC_VERSION, "tip": self.tip})

    @property
    def implied(self) -> bytes:
        """What the signature covers besides, without being carried."""
        return bytes.fromhex(self.genesis_hash[2:]) + bytes.fromhex(self.birth_hash[2:])

    @property
    def payload(self) -> bytes:
        """The bytes to sign."""
        payload = self.call.data + self.included + self.implied
        return payload if len(payload) <= 256 else blake2b(payload, digest_size=32).digest()

    def sign(self, signature: bytes, crypto_type: int) -> bytes:
        """The extrinsic's bytes, with the signature attached."""
        body = {
            "call": self.call.to_value(),
            "signer": self.signer,
            "signature": f"0x{signature.hex()}",
            "crypto": crypto_type,
            **json.loads(self.included),
        }
        return PREFIX + encode(body)


@dataclass(frozen=True, slots=True)
class Extrinsic:
    """A decoded, not yet verified extrinsic."""

    call: Call
    signer: str
    nonce: int
    era: Era | None
    tip: int
    signature: bytes
    crypto_type: int

    def verify(self, genesis_hash: str, birth_hash: str) -> bool:
        """Whether the signature is the signer's."""
        unsigned = Unsigned(self.call, self.signer, self.nonce, self.era, genesis_hash, birth_hash, self.tip)
        try:
            return bool(sp_core.verify(unsigned.payload, self.signature, self.signer, self.crypto_type))
        except ValueError:
            return False

    def to_decoded(self) -> dict[str, Any]:
        """The extrinsic in the shape in which the SDK shows a block's."""
        return {
            "address": self.signer,
            "call": self.call.to_decoded(),
            "era": "00" if self.era is None else {"period": self.era.period, "current": self.era.birth},
            "nonce": self.nonce,
            "tip": self.tip,
            "signature": f"0x{self.signature.hex()}",
        }


def extrinsic_hash(data: bytes) -> str:
    """0x-hex BLAKE2b-256 of an extrinsic's bytes."""
    return f"0x{blake2b(data, digest_size=32).hexdigest()}"


def decode_extrinsic(data: bytes) -> Extrinsic:
    """Parse an extrinsic's bytes.

    Raises:
        ValueError: they are none.
    """
    if not data.startswith(PREFIX):
        raise ValueError("no extrinsic of a devnet")
    try:
        body = json.loads(data[len(PREFIX) :])
        if set(body) != _FIELDS or not _SIGNATURE.fullmatch(body["signature"]):
            raise ValueError("an extrinsic with other fields")
        era = body["era"]
        extrinsic = Extrinsic(
            call=decode(body["call"]),
            signer=str(body["signer"]),
            nonce=int(body["nonce"]),
            era=None if era is None else Era(int(era[0]), int(era[1])),
            tip=int(body["tip"]),
            signature=bytes.fromhex(body["signature"][2:]),
            crypto_type=int(body["crypto"]),
        )
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(f"no extrinsic of a devnet: {error!r}") from error
    if extrinsic.nonce < 0 or extrinsic.tip < 0 or body["spec"] != SPEC_VERSION:
        raise ValueError("an extrinsic of another runtime")
    if encode(body) != data[len(PREFIX) :]:
        raise ValueError("an extrinsic that is not in its canonical form")  # or one signature had many hashes
    return extrinsic
