"""The content of a file under AES-256-GCM in segments: the STREAM construction.

    V. T. Hoang, R. Reyhanitabar, P. Rogaway, D. Vizar, "Online Authenticated-Encryption and its
    Nonce-Reuse Misuse-Resistance", CRYPTO 2015, section 7; GCM as in NIST SP 800-38D

    segment  262,144 bytes of the file (the last: 0 to 262,144), encrypted, then the 16-byte tag
    nonce    7 zero bytes || u32 number of the segment || u8 1 for the last, else 0

1. A segment opens only at its own number, and as the last only if it is: cut, swapped, repeated, dropped and
   appended segments show.
2. There is always a last segment: an empty file has one, of 16 bytes; a file whose size is a multiple of a
   segment ends with a full one.
3. The prefix is zero because a content key encrypts one content, once. Whoever goes on with a file that was
   begun earlier must know that its bytes are still the same, or draw a new key: two contents under one key
   and number give each other away.

Segments stand one behind the other, so the place of each follows from its number, and any range of the file
can be opened by itself. Both directions release the GIL and work on views, so that threads may share the
work; an `Encryptor` has no state but its key.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..encoding import KEY_SIZE, fixed, u8, u32
from ..errors import ProofError

#: Bytes of the file in a segment, of the tag behind them, and of both.
SEGMENT_SIZE = 256 << 10
TAG_SIZE = 16
SEALED_SIZE = SEGMENT_SIZE + TAG_SIZE
#: Bytes that a file may have: what 2^32 segments hold, a pebibyte.
MOST_BYTES = SEGMENT_SIZE << 32

_PREFIX = bytes(7)


class StreamError(ProofError):
    """A segment that is not the file's at its place."""


def nonce(index: int, last: bool) -> bytes:
    """The 12 bytes that a segment is encrypted under."""
    return _PREFIX + u32(index) + u8(last)


# Sizes and places


def segment_count(size: int) -> int:
    """How many segments a file of `size` bytes has; at least one.

    Raises:
        ValueError: no file has that size.
    """
    if not 0 <= size <= MOST_BYTES:
        raise ValueError(f"a file of {size} bytes; it may have 0 to {MOST_BYTES}")
    return max(1, -(-size // SEGMENT_SIZE))


def ciphertext_size(size: int) -> int:
    """Bytes of the segments of a file of `size` bytes; ValueError as in `segment_count`."""
    return size + segment_count(size) * TAG_SIZE


def plaintext_size(ciphertext: int) -> int:
    """Bytes of the file whose segments have `ciphertext` bytes.

    Raises:
        ValueError: no file's have.
    """
    size = ciphertext - -(-ciphertext // SEALED_SIZE) * TAG_SIZE
    if size < 0 or ciphertext_size(size) != ciphertext:
        raise ValueError(f"{ciphertext} bytes are no whole stream of segments")
    return size


@dataclass(frozen=True)
class Run:
    """Segments that stand side by side, and what a reader wants of them.

    Attributes:
        first, count: the segments.
        offset, length: bytes of the ciphertext that they take.
        skip: bytes in front of what is wanted, once they are opened.
        want: bytes that are wanted from there on.
    """

    first: int
    count: int
    offset: int
    length: int
    skip: int
    want: int


def run(size: int, offset: int, length: int) -> Run:
    """The segments that hold `length` bytes from `offset` on of a file of `size` bytes.

    A range of no bytes still names one segment, so that it is proven that the file ends where it is said to.

    Raises:
        ValueError: the range is not within the file.
    """
    if offset < 0 or length < 0 or offset + length > size:
        raise ValueError(f"bytes {offset} to {offset + length} of a file of {size}")
    segments = segment_count(size)
    first = min(offset // SEGMENT_SIZE, segments - 1)
    behind = max(first + 1, -(-(offset + length) // SEGMENT_SIZE))
    start, end = first * SEALED_SIZE, min(behind * SEALED_SIZE, ciphertext_size(size))
    return Run(first, behind - first, start, end - start, offset - first * SEGMENT_SIZE, length)


# Encryption


def _check_plaintext(size: int, last: bool) -> None:
    if size > SEGMENT_SIZE or (size < SEGMENT_SIZE and not last):
        raise ValueError(f"a segment of {size} bytes; only the last may have less than {SEGMENT_SIZE}")


class Encryptor:
    """Encrypts the segments of one file under its 32-byte content key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(fixed(key, KEY_SIZE, "content key"))

    def segment(self, index: int, plaintext: bytes | bytearray | memoryview, last: bool) -> bytes:
        """A segment of the ciphertext: 16 bytes more than `plaintext` has.

        Raises:
            ValueError: more than a segment, or less and not the last.
            OverflowError: more than 2^32 segments.
        """
        _check_plaintext(len(plaintext), last)
        return self._cipher.encrypt(nonce(index, last), plaintext, None)

    def segment_into(
        self,
        index: int,
        plaintext: bytes | bytearray | memoryview,
        last: bool,
        out: bytearray | memoryview,
    ) -> None:
        """As `segment`, into `out`, which has exactly the size of the segment and does not overlap."""
        _check_plaintext(len(plaintext), last)
        self._cipher.encrypt_into(nonce(index, last), plaintext, None, out)


class Decryptor:
    """Opens the segments of one file."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(fixed(key, KEY_SIZE, "content key"))

    def segment(self, index: int, ciphertext: bytes | bytearray | memoryview, last: bool) -> bytes:
        """The bytes of the file in a segment.

        Raises:
            StreamError: it is not the file's segment of that number, or not (or against `last`) its last.
        """
        self._check(index, len(ciphertext), last)
        try:
            return self._cipher.decrypt(nonce(index, last), ciphertext, None)
        except InvalidTag as error:
            raise _refusal(index) from error

    def segment_into(
        self,
        index: int,
        ciphertext: bytes | bytearray | memoryview,
        last: bool,
        out: bytearray | memoryview,
    ) -> None:
        """As `segment`, into `out`, which has exactly the size of the plaintext and does not overlap."""
        self._check(index, len(ciphertext), last)
        try:
            self._cipher.decrypt_into(nonce(index, last), ciphertext, None, out)
        except InvalidTag as error:
            raise _refusal(index) from error

    @staticmethod
    def _check(index: int, size: int, last: bool) -> None:
        if size > SEALED_SIZE or size < TAG_SIZE or (size < SEALED_SIZE and not last):
            raise StreamError(f"segment {index} has {size} bytes")


def _refusal(index: int) -> StreamError:
    return StreamError(f"segment {index} is not the one that was encrypted there")
