"""The memory matrix of Argon2d, one lane, version 0x13 (RFC 9106), at native speed.

A block is 1 KiB: 128 words of 64 bits, little-endian. Block i of a pass is

    G(block i - 1, a block chosen by the first word of block i - 1)   XOR its own value of the pass before

so blocks come one after the other, and no thread but one can work on a matrix. What can be wide is G: it
works on rows and columns of eight independent permutations. `_compress` writes it in LLVM's vectors of
eight words, which become whatever the processor has (AVX-512, AVX2, SSE, NEON), and numba compiles the
loop around it without the GIL.

The matrix is the product here, not the tag: `finish` exists so that the tests can compare the tag with
that of another implementation of the RFC.
"""

from __future__ import annotations

import struct
import sys
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

BLOCK_SIZE = 1024
WORDS = 128
SLICES = 4
MIN_BLOCKS = 8
VERSION = 0x13
TYPE_D = 0

Matrix = npt.NDArray[np.uint64]

if sys.byteorder != "little":
    raise ImportError("the sealing kernel needs a little-endian processor")


def start(matrix: Matrix, password: bytes, salt: bytes, passes: int, tag_size: int = 32) -> None:
    """Write the first two blocks: H' of the parameters' hash H0 (RFC 9106 sections 3.2 and 3.3).

    `matrix` has shape (blocks, 128); blocks is at least 8 and a multiple of 4.
    """
    blocks = len(matrix)
    if blocks < MIN_BLOCKS or blocks % SLICES or matrix.shape != (blocks, WORDS) or passes < 1:
        raise ValueError(f"no Argon2 matrix: shape {matrix.shape}, {passes} passes")
    seed = blake2b(
        struct.pack("<6I", 1, tag_size, blocks, passes, VERSION, TYPE_D)
        + struct.pack("<I", len(password))
        + password
        + struct.pack("<I", len(salt))
        + salt
        + struct.pack("<2I", 0, 0)  # no secret, no associated data
    ).digest()
    for block in range(2):
        first = _variable_hash(seed + struct.pack("<2I", block, 0), BLOCK_SIZE)
        matrix[block] = np.frombuffer(first, dtype="<u8")


def fill(matrix: Matrix, pass_number: int, first: int, stop: int) -> None:
    """Compute blocks `first` to `stop` - 1 of one pass, in place; the ones before must be there.

    The two blocks that `start` wrote are left alone in pass 0. Releases the GIL.
    """
    _fill(matrix, pass_number, max(first, 2) if pass_number == 0 else first, stop)


def finish(matrix: Matrix, tag_size: int = 32) -> bytes:
    """The tag of a full matrix (RFC 9106 section 3.2, steps 7 and 8)."""
    return _variable_hash(matrix[-1].tobytes(), tag_size)


def _variable_hash(data: bytes, size: int) -> bytes:
    """H' of RFC 9106 section 3.3: a hash of `size` bytes."""
    data = struct.pack("<I", size) + data
    if size <= 64:
        return blake2b(data, digest_size=size).digest()
    out = b""
    block = blake2b(data).digest()
    while size - len(out) > 64:
        out += block[:32]
        rest = size - len(out)
        block = blake2b(block, digest_size=min(rest, 64)).digest()
    return out + block


@njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")
def _fill(matrix: Any, pass_number: int, first: int, stop: int) -> None:
    blocks = matrix.shape[0]
    base = np.uint64(matrix.ctypes.data)
    size = np.uint64(1024)
    segment = blocks // 4
    keep = np.uint64(0) if pass_number == 0 else ~np.uint64(0)
    word = matrix[first - 1, 0] if first else matrix[blocks - 1, 0]
    for i in range(first, stop):
        previous = i - 1 if i else blocks - 1
        # Section 3.4: which blocks may be referred to, and which of them the word chooses.
        if pass_number == 0:
            area, origin = i - 1, 0
        else:
            area = blocks - segment + i % segment - 1
            origin = (i // segment + 1) * segment
        low = word & np.uint64(0xFFFFFFFF)
        back = (np.uint64(area) * ((low * low) >> np.uint64(32))) >> np.uint64(32)
        reference = (origin + area - 1 - np.int64(back)) % blocks
        word = _compress(  # type: ignore[call-arg]  # numba supplies the typing context
            base + np.uint64(previous) * size,
            base + np.uint64(reference) * size,
            base + np.uint64(i) * size,
            keep,
        )


_I64, _I32 = ir.IntType(64), ir.IntType(32)
_VECTOR = ir.VectorType(_I64, 8)

# Which of the sixteen words of two vectors make up a third: the low halves, the high halves, and
# (odd word of the first, even word of the second) for each of four pairs.
_LOW, _HIGH = [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]
_ODD_EVEN = [1, 8, 3, 10, 5, 12, 7, 14]


def _splat(value: int) -> Any:
    return ir.Constant(_VECTOR, [value] * 8)


def _shuffle(b: Any, x: Any, y: Any, words: list[int]) -> Any:
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(_I32, 8), words))


def _turn(b: Any, x: Any, places: int) -> Any:
    """Each half of four words turned left by `places`."""
    return _shuffle(b, x, x, [(i + places) % 4 + (i & 4) for i in range(8)])


def _multiply_add(b: Any, x: Any, y: Any) -> Any:
    """x + y + 2 * low32(x) * low32(y), the step that Argon2 puts in the place of BLAKE2b's addition."""
    low = _splat(0xFFFFFFFF)
    product = b.mul(b.and_(x, low), b.and_(y, low))
    return b.add(b.add(x, y), b.shl(product, _splat(1)))


def _rotate(b: Any, x: Any, bits: int) -> Any:
    return b.or_(b.lshr(x, _splat(bits)), b.shl(x, _splat(64 - bits)))


def _quarter(b: Any, x: list[Any], i: int, j: int, k: int, m: int) -> None:
    """GB of RFC 9106 section 3.6 on eight words each of x[i], x[j], x[k], x[m], in place."""
    for rotations in ((32, 24), (16, 63)):
        x[i] = _multiply_add(b, x[i], x[j])
        x[m] = _rotate(b, b.xor(x[m], x[i]), rotations[0])
        x[k] = _multiply_add(b, x[k], x[m])
        x[j] = _rotate(b, b.xor(x[j], x[k]), rotations[1])


def _permute_two_rows(b: Any, z: list[Any], row: int) -> None:
    """P on rows `row` and `row` + 1; z[2 r] and z[2 r + 1] hold the sixteen words of row r."""
    near, far = slice(2 * row, 2 * row + 3, 2), slice(2 * row + 1, 2 * row + 4, 2)
    x = [_shuffle(b, one, two, words) for one, two in (z[near], z[far]) for words in (_LOW, _HIGH)]
    _quarter(b, x, 0, 1, 2, 3)
    x = [x[0], _turn(b, x[1], 1), _turn(b, x[2], 2), _turn(b, x[3], 3)]
    _quarter(b, x, 0, 1, 2, 3)
    x = [x[0], _turn(b, x[1], 3), _turn(b, x[2], 2), _turn(b, x[3], 1)]
    z[near] = [_shuffle(b, x[0], x[1], words) for words in (_LOW, _HIGH)]
    z[far] = [_shuffle(b, x[2], x[3], words) for words in (_LOW, _HIGH)]


def _permute_four_columns(b: Any, z: list[Any], half: int) -> None:
    """P on columns 4 `half` to 4 `half` + 3; vector j of x holds words 2j and 2j + 1 of each of them."""
    x = z[half::2]
    _quarter(b, x, 0, 2, 4, 6)
    _quarter(b, x, 1, 3, 5, 7)
    x[2], x[3] = _shuffle(b, x[2], x[3], _ODD_EVEN), _shuffle(b, x[3], x[2], _ODD_EVEN)
    x[6], x[7] = _shuffle(b, x[7], x[6], _ODD_EVEN), _shuffle(b, x[6], x[7], _ODD_EVEN)
    _quarter(b, x, 0, 2, 5, 6)
    _quarter(b, x, 1, 3, 4, 7)
    x[2], x[3] = _shuffle(b, x[3], x[2], _ODD_EVEN), _shuffle(b, x[2], x[3], _ODD_EVEN)
    x[6], x[7] = _shuffle(b, x[6], x[7], _ODD_EVEN), _shuffle(b, x[7], x[6], _ODD_EVEN)
    z[half::2] = x


@intrinsic
def _compress(typing_context: Any, previous: Any, reference: Any, out: Any, keep: Any) -> Any:
    """out = G(previous, reference) XOR (out AND keep), by address; returns the first word of out.

    `keep` is all ones, or zero in pass 0, where there is no former value.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        previous, reference, out, keep = arguments

        def place(address: Any, vector: int) -> Any:
            return b.inttoptr(b.add(address, ir.Constant(_I64, 64 * vector)), _VECTOR.as_pointer())

        def load(address: Any, vector: int) -> Any:
            return b.load(place(address, vector), align=8)

        def mixed(vector: int) -> Any:
            return b.xor(load(previous, vector), load(reference, vector))

        z = [mixed(vector) for vector in range(16)]
        for row in range(0, 8, 2):
            _permute_two_rows(b, z, row)
        for half in range(2):
            _permute_four_columns(b, z, half)

        kept = b.insert_element(ir.Constant(_VECTOR, ir.Undefined), keep, ir.Constant(_I32, 0))
        kept = _shuffle(b, kept, kept, [0] * 8)
        new = [
            b.xor(b.xor(mixed(vector), z[vector]), b.and_(load(out, vector), kept)) for vector in range(16)
        ]
        for vector in range(16):
            b.store(new[vector], place(out, vector), align=8)
        return b.extract_element(new[0], ir.Constant(_I32, 0))

    return types.uint64(types.uint64, types.uint64, types.uint64, types.uint64), generate
