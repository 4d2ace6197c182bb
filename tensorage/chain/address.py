"""SS58 addresses: a 32-byte public key as people write it.

    address = base58(prefix || key || first two bytes of BLAKE2b-512("SS58PRE" || prefix || key))

The prefix is Bittensor's, 42, in one byte. One key has exactly one address here: another network's prefix, a
wrong checksum or a redundant spelling is refused, so an address may be used as the name of its key. The SDK
decodes the same format, but takes most of a second to import, and every record of a neuron needs this.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from ..encoding import KEY_SIZE, fixed

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGIT = {letter: value for value, letter in enumerate(_ALPHABET)}
_PREFIX = b"\x2a"
_LENGTH = 48  # of base58 text for 1 + 32 + 2 bytes that begin with the prefix


def _checksum(payload: bytes) -> bytes:
    return blake2b(b"SS58PRE" + payload).digest()[:2]


@lru_cache(maxsize=8192)
def ss58(key: bytes) -> str:
    """The address of a 32-byte public key.

    Raises:
        ValueError: the key has another length.
    """
    payload = _PREFIX + fixed(key, KEY_SIZE, "public key")
    number = int.from_bytes(payload + _checksum(payload), "big")
    letters = []
    while number:
        number, digit = divmod(number, 58)
        letters.append(_ALPHABET[digit])
    return "".join(reversed(letters))


@lru_cache(maxsize=8192)
def public_key(address: str) -> bytes:
    """The 32-byte public key of an address.

    Raises:
        ValueError: it is no address of this network, or a letter of it is wrong.
    """
    if len(address) != _LENGTH or any(letter not in _DIGIT for letter in address):
        raise ValueError(f"{address[:64]!r} is no SS58 address of {_LENGTH} letters")
    number = 0
    for letter in address:
        number = number * 58 + _DIGIT[letter]
    raw = number.to_bytes(36, "big")
    payload = raw[1:-2]
    if raw[0] or payload[:1] != _PREFIX or raw[-2:] != _checksum(payload):
        raise ValueError(f"{address!r} is no address of this network, or a letter of it is wrong")
    return payload[1:]
