"""keyauth/1: requests signed with an Ed25519 key, by those who have no hotkey.

    x-tensorage-key        public key, 64 hex digits
    x-tensorage-nonce      nanoseconds since 1970, decimal
    x-tensorage-signature  128 hex digits, over
        H(tag("tensorage/request/v1") || u16 length || method || u16 length || path || receiver
          || u64 nonce_ns || H(body))

The path is the request target as it is sent, query and all. A request is bound to its receiver's public key
and to a time; whoever verifies accepts each (key, nonce) once, and none that is older than `MAX_AGE`. Nothing
secret is sent: an API key is a seed that stays with its owner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .encoding import KEY_SIZE, SIGNATURE_SIZE, fixed, from_hex, sha256, tag, u16, u64
from .errors import RequestError

KEY_HEADER = "x-tensorage-key"
NONCE_HEADER = "x-tensorage-nonce"
SIGNATURE_HEADER = "x-tensorage-signature"
SEED_SIZE = 32
#: Seconds that a request may be old, and that its clock may be ahead.
MAX_AGE = 10.0
ALLOWED_SKEW = 2.0


class SigningKey:
    """An Ed25519 key from its 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        self.seed = fixed(seed, SEED_SIZE, "seed of a key")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key: bytes = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of `message` (RFC 8032)."""
        return self._key.sign(message)

    def sign_request(
        self, *, method: str, path: str, body: bytes, receiver: bytes, nonce_ns: int
    ) -> dict[str, str]:
        """The headers that sign a request.

        Args:
            path: the request target exactly as it is sent.
            receiver: public key of the hotkey that serves.
            nonce_ns: nanoseconds since 1970; a nonce serves once.
        """
        signature = self.sign(request_hash(method, path, receiver, nonce_ns, body))
        return {
            KEY_HEADER: self.public_key.hex(),
            NONCE_HEADER: str(nonce_ns),
            SIGNATURE_HEADER: signature.hex(),
        }


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is the key's Ed25519 signature of `message`; False for malformed bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def request_hash(method: str, path: str, receiver: bytes, nonce_ns: int, body: bytes) -> bytes:
    """The 32 bytes that sign a request."""
    verb, target = method.encode("ascii"), path.encode("ascii")
    return sha256(
        tag("tensorage/request/v1")
        + u16(len(verb))
        + verb
        + u16(len(target))
        + target
        + fixed(receiver, KEY_SIZE, "receiver's key")
        + u64(nonce_ns)
        + sha256(body)
    )


@dataclass(frozen=True)
class Signed:
    """A request whose signature is good: the key that signed it, its nonce, and the signature."""

    key: bytes
    nonce_ns: int
    signature: bytes


def verify_request(
    headers: Mapping[str, str], body: bytes, *, method: str, path: str, receiver: bytes, now_ns: int
) -> Signed:
    """Check the signature and the age of a request. That its nonce is new is for the caller to see to.

    Args:
        headers: by lower-case name.
        path: the request target as received, not decoded.
        now_ns: nanoseconds since 1970.

    Raises:
        RequestError: "unauthenticated"; unsigned, malformed, stale or forged.
    """
    try:
        key = from_hex(headers.get(KEY_HEADER, ""), KEY_SIZE, KEY_HEADER)
        signature = from_hex(headers.get(SIGNATURE_HEADER, ""), SIGNATURE_SIZE, SIGNATURE_HEADER)
    except ValueError as error:
        raise RequestError("unauthenticated", str(error)) from error
    stated = headers.get(NONCE_HEADER, "")
    if not (stated.isascii() and stated.isdigit() and len(stated) <= 19):
        raise RequestError("unauthenticated", f"{NONCE_HEADER} must be nanoseconds since 1970")
    nonce_ns = int(stated)
    age = (now_ns - nonce_ns) / 1e9
    if not -ALLOWED_SKEW <= age <= MAX_AGE:
        raise RequestError(
            "unauthenticated",
            f"the request is {age:.1f} s old, at most {MAX_AGE:g} are taken; check your clock",
        )
    if not verify(key, request_hash(method, path, receiver, nonce_ns, body), signature):
        raise RequestError("unauthenticated", "the signature is not the key's of this request")
    return Signed(key, nonce_ns, signature)
