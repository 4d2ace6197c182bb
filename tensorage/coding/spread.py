"""The outer layer: each shard encrypted for its own place, so that no two in the subnet are alike.

    key        HKDF-SHA256(spread key, info = tag("tensorage/spread/v1") || file_id || u32 stripe
                 || u8 number || miner), 32 bytes (RFC 5869)
    keystream  AES-256-CTR under it, counter from 0 (NIST SP 800-38A, section 6.5)

Without it the shards with number < K would be the ciphertext itself, and a shard that is rebuilt for a second
miner would be the first one's again: two miners could share one copy, and answer for it twice. A shard is
put and taken off its layer by the same XOR. A key serves one shard of one file, on one miner, so that its
keystream meets no second text: what stands at a place of a file never changes.

Confidentiality does not rest on it, integrity neither: that is what `stream` is for.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from ..encoding import KEY_SIZE, fixed, tag, u8, u32
from .keys import FILE_ID_SIZE, derive

BLOCK_SIZE = 16


def _cipher(
    spread: bytes, file_id: bytes, stripe: int, number: int, miner: bytes, offset: int
) -> CipherContext:
    if offset < 0 or offset % BLOCK_SIZE:
        raise ValueError(f"a keystream from byte {offset} on; it must be a multiple of {BLOCK_SIZE}")
    info = (
        tag("tensorage/spread/v1")
        + fixed(file_id, FILE_ID_SIZE, "file id")
        + u32(stripe)
        + u8(number)
        + fixed(miner, KEY_SIZE, "miner's key")
    )
    key = derive(fixed(spread, KEY_SIZE, "spread key"), info)
    counter = (offset // BLOCK_SIZE).to_bytes(BLOCK_SIZE, "big")
    return Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor()


def apply(
    spread: bytes,
    file_id: bytes,
    stripe: int,
    number: int,
    miner: bytes,
    data: bytes | bytearray | memoryview,
    offset: int = 0,
) -> bytes:
    """`data`, the bytes of a shard from `offset` on, with the layer put on or taken off.

    Args:
        spread: the file's 32-byte spread key.
        number: of the shard in its stripe, 0 to 255.
        miner: public key of the miner that keeps the shard.
        offset: bytes, a multiple of 16.

    Raises:
        ValueError: the offset is none, or a key or id has another size.
        OverflowError: no stripe or shard has that number.
    """
    return _cipher(spread, file_id, stripe, number, miner, offset).update(data)


def apply_into(
    spread: bytes,
    file_id: bytes,
    stripe: int,
    number: int,
    miner: bytes,
    data: bytes | bytearray | memoryview,
    out: bytearray | memoryview,
    offset: int = 0,
) -> None:
    """As `apply`, into `out`, which has the size of `data` and may be `data` itself."""
    if len(out) != len(data):
        raise ValueError(f"room for {len(out)} bytes, not {len(data)}")
    _cipher(spread, file_id, stripe, number, miner, offset).update_into(data, out)
