"""Bytes as the protocol writes them: big-endian unsigned integers and 32-byte ASCII tags.

Every hash preimage of the protocol is a concatenation of fields made here, each of a fixed width or with
its length in front, so no two different records have the same bytes.
"""

from __future__ import annotations

from hashlib import sha256 as _sha256

HASH_SIZE = 32
KEY_SIZE = 32
SIGNATURE_SIZE = 64
ZERO_HASH = bytes(HASH_SIZE)


def sha256(data: bytes) -> bytes:
    """H of the protocol: the 32-byte SHA-256 digest (FIPS 180-4)."""
    return _sha256(data).digest()


def tag(name: str) -> bytes:
    """The domain tag `name`: its ASCII bytes padded with zero bytes to 32.

    Raises:
        ValueError: the name is longer than 32 bytes or is not ASCII.
    """
    raw = name.encode("ascii")
    if len(raw) > 32:
        raise ValueError(f"tag {name!r} has {len(raw)} bytes, at most 32 fit")
    return raw.ljust(32, b"\0")


def u8(value: int) -> bytes:
    """`value` as 1 byte; OverflowError when it is out of range."""
    return value.to_bytes(1, "big")


def u16(value: int) -> bytes:
    """`value` as 2 big-endian bytes; OverflowError when it is out of range."""
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    """`value` as 4 big-endian bytes; OverflowError when it is out of range."""
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    """`value` as 8 big-endian bytes; OverflowError when it is out of range."""
    return value.to_bytes(8, "big")


def fixed(value: bytes, size: int, what: str) -> bytes:
    """`value`, if it has exactly `size` bytes.

    Raises:
        ValueError: it has not; `what` names it in the message.
    """
    if len(value) != size:
        raise ValueError(f"{what} has {len(value)} bytes, not {size}")
    return value


def from_hex(text: str, size: int, what: str) -> bytes:
    """The `size` bytes that lower-case hex `text` without prefix stands for, and nothing else.

    Raises:
        ValueError: another length, upper case, a prefix, or a character that is no hex digit.
    """
    if len(text) != 2 * size or any(c not in "0123456789abcdef" for c in text):
        raise ValueError(f"{what} must be {2 * size} lower-case hex digits without prefix, not {text[:80]!r}")
    return bytes.fromhex(text)
