"""The MEV shield: the block author's key, and how it opens a shielded extrinsic.

Ciphertexts are the SDK's: key hash (16) || u16 length of the KEM ciphertext || KEM ciphertext || nonce (24)
|| AEAD ciphertext, with ML-KEM-768 (FIPS 203) and XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03). The real
chain rotates its key each block and keeps it with the author; a devnet has one key for its life, in its own
file.
"""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

_KEY_HASH = 16
_NONCE = 24
_WORD = 0xFFFFFFFF


def _rotate(word: int, bits: int) -> int:
    return ((word << bits) | (word >> (32 - bits))) & _WORD


def _quarter(state: list[int], a: int, b: int, c: int, d: int) -> None:
    """The ChaCha quarter round (RFC 8439, section 2.1)."""
    for one, two, three, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[one] = (state[one] + state[two]) & _WORD
        state[three] = _rotate(state[three] ^ state[one], bits)


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """The 32-byte subkey of a 32-byte key and a 16-byte nonce."""
    state = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce))
    for _ in range(10):
        for column in range(4):
            _quarter(state, column, column + 4, column + 8, column + 12)
        for a, b, c, d in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            _quarter(state, a, b, c, d)
    return struct.pack("<8I", *state[:4], *state[12:])


class ShieldKey:
    """The author's key pair, from its 64-byte seed."""

    def __init__(self, seed: bytes) -> None:
        self._private = MLKEM768PrivateKey.from_seed_bytes(seed)

    @property
    def public(self) -> bytes:
        """1184 bytes, as `NextKey` publishes them."""
        return self._private.public_key().public_bytes_raw()

    def open(self, ciphertext: bytes) -> bytes:
        """The extrinsic inside.

        Raises:
            ValueError: it was not made for this key, or is damaged.
        """
        start = _KEY_HASH + 2
        size = int.from_bytes(ciphertext[_KEY_HASH:start], "little")
        kem, nonce, sealed = (
            ciphertext[start : start + size],
            ciphertext[start + size : start + size + _NONCE],
            ciphertext[start + size + _NONCE :],
        )
        if len(nonce) != _NONCE or len(sealed) < 16:
            raise ValueError("a shielded extrinsic is cut short")
        key = hchacha20(self._private.decapsulate(kem), nonce[:16])
        try:
            return ChaCha20Poly1305(key).decrypt(bytes(4) + nonce[16:], sealed, None)
        except InvalidTag as error:
            raise ValueError("a shielded extrinsic does not open") from error
