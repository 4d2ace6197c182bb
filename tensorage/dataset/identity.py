"""Who an owner is, and whether it signed: Bittensor hotkeys (sr25519) and secp256k1 keys.

An owner id is an SS58 address of Bittensor's network or an Ethereum address, `0x` and 40 lower-case hex
digits. Each key has exactly one spelling, so ids are compared as text. secp256k1 signatures are 65 bytes r
|| s || v over the 32-byte digest itself: deterministic (RFC 6979) and with a low S when made here, and
refused otherwise.
"""

from __future__ import annotations

import re
from typing import Literal, Protocol

from eth_keys.backends.coincurve import CoinCurveECCBackend
from eth_keys.exceptions import BadSignature
from eth_keys.main import KeyAPI
from eth_utils.exceptions import ValidationError

from ..chain import auth
from ..chain.address import public_key
from ..chain.wallet import Hotkey
from ..encoding import HASH_SIZE, KEY_SIZE, fixed
from .entry import check_form
from .errors import LogError

Kind = Literal["sr25519", "secp256k1"]

_ETH = re.compile(r"0x[0-9a-f]{40}", re.ASCII)
_keys = KeyAPI(CoinCurveECCBackend)


class Signer(Protocol):
    """A key that signs for an owner."""

    @property
    def owner(self) -> str:
        """The owner id of the key."""

    def sign(self, digest: bytes) -> bytes:
        """The signature of a 32-byte digest, in the form that `verify` takes."""


class HotkeySigner:
    """Signs with a Bittensor hotkey. Signatures are randomised: two of one digest differ."""

    def __init__(self, hotkey: Hotkey) -> None:
        self.owner: str = hotkey.ss58
        self._hotkey = hotkey

    def sign(self, digest: bytes) -> bytes:
        """The 64-byte sr25519 signature of a 32-byte digest."""
        return self._hotkey.sign(fixed(digest, HASH_SIZE, "digest"))

    def __repr__(self) -> str:
        return f"HotkeySigner({self.owner})"


class EthSigner:
    """Signs with a secp256k1 key.

    Raises:
        ValueError: `secret` is not 32 bytes, or no number that is a key.
    """

    def __init__(self, secret: bytes) -> None:
        try:
            self._key = _keys.PrivateKey(fixed(secret, KEY_SIZE, "secp256k1 key"))
            self.owner: str = self._key.public_key.to_address()
        except (ValidationError, ValueError):
            raise ValueError(f"this is no secp256k1 key: {KEY_SIZE} bytes, not 0, below the order") from None

    def sign(self, digest: bytes) -> bytes:
        """The 65-byte signature r || s || v of a 32-byte digest; the same each time, low S, v 0 or 1."""
        signature: bytes = self._key.sign_msg_hash(fixed(digest, HASH_SIZE, "digest")).to_bytes()
        return signature

    def __repr__(self) -> str:
        return f"EthSigner({self.owner})"


def kind_of(owner: str) -> Kind:
    """The kind of key that an owner id names.

    Raises:
        ValueError: it is no id, or not the one spelling of one. So is the key of 32 zero bytes, for which
            anybody can sign.
    """
    if _ETH.fullmatch(owner):
        return "secp256k1"
    if owner[:2].lower() == "0x":
        raise ValueError(f"{owner[:64]!r} is no owner id: write 0x and 40 lower-case hex digits")
    if not any(public_key(owner)):
        raise ValueError(f"{owner!r} is nobody's key: anybody can sign for it")
    return "sr25519"


def verify(owner: str, digest: bytes, signature: bytes) -> bool:
    """Whether `signature` is the owner's, of this digest, in its one form; False for anything malformed."""
    try:
        kind = kind_of(owner)
        check_form(owner, signature, "signature")
    except (ValueError, LogError):
        return False
    if len(digest) != HASH_SIZE:
        return False
    if kind == "sr25519":
        return auth.verify(public_key(owner), digest, signature)
    return recover(digest, signature) == owner


def recover(digest: bytes, signature: bytes) -> str | None:
    """The address whose secp256k1 key made a 65-byte signature; None when it is no signature.

    Nearly every 65 bytes are somebody's signature of anything: compare the address with one that you know.
    """
    try:
        made = _keys.Signature(signature)
        address: str = made.recover_public_key_from_msg_hash(digest).to_address()
    except (BadSignature, ValidationError, ValueError):
        return None
    return address
