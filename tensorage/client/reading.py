"""From a source to stripes of ciphertext, one batch of buffers after the other.

A batch is one full stripe, or all of the stripes of the rest (see `coding.layout`), which fit in the same
buffers: K for the data, as many parity ones as there are parity shards. Each of its stripes comes with a mark
of the plaintext that it was made of.

    mark  HMAC-SHA256 (RFC 2104) under a key of the file's over H(plaintext so far) || u64 its bytes
          || u8 whether it is all there is

A segment that ends in the next stripe is wholly within the mark, so that a stripe whose mark is as it was
before has segments that are as they were before. That is what makes it safe to go on with an upload: every
segment that was ever sent is covered by a mark that was recorded first.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from hashlib import sha256

from ..coding import layout
from ..coding.keys import derive
from ..coding.layout import Stripe
from ..coding.stream import SEALED_SIZE, SEGMENT_SIZE, TAG_SIZE, Encryptor
from ..encoding import tag, u8, u64
from .catalog import Mark


@dataclass(frozen=True, slots=True)
class Cut:
    """One stripe of a batch; `start` is where it begins in the batch, in bytes."""

    stripe: Stripe
    start: int
    mark: Mark

    def shards(self, data: Sequence[memoryview], parity: Sequence[memoryview]) -> list[memoryview]:
        """Where its shards are, or belong, in the buffers of its batch, by number."""
        size = self.stripe.shard_size
        places = [divmod(self.start + number * size, len(data[0])) for number in range(len(data))]
        column = self.start // len(data)
        return [
            *(data[buffer][at : at + size] for buffer, at in places),
            *(buffer[column : column + size] for buffer in parity),
        ]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one set of buffers holds; `last` when nothing follows."""

    cuts: tuple[Cut, ...]
    last: bool


class Reader:
    """Reads a source from its front, encrypts it, and hashes it.

    Args:
        read_into: as `Source.read_into`.
        data_shards: K.
        whole: numbers of full stripes that are stored: they are read, not encrypted.
    """

    def __init__(
        self,
        read_into: Callable[[memoryview], int],
        file_key: bytes,
        content_key: bytes,
        data_shards: int,
        whole: Container[int] = (),
    ) -> None:
        self._read_into = read_into
        self._encryptor = Encryptor(content_key)
        self._mark_key = derive(file_key, tag("tensorage/client-mark/v1"))
        self._data_shards = data_shards
        self._whole = whole
        self._hash = sha256()
        self._segment = 0
        self._now, self._next = memoryview(bytearray(SEGMENT_SIZE)), memoryview(bytearray(SEGMENT_SIZE))
        self._left = -1  # plaintext bytes in `_now`; none were read yet
        self._sealed = memoryview(bytearray(SEALED_SIZE))
        self._carry = self._sealed[:0]  # what of it belongs to the next batch
        self._number = 0
        self.size = 0
        self.ended = False

    @property
    def sha256(self) -> bytes:
        """Of what was read so far; of all of it once `ended`."""
        return self._hash.digest()

    def fill(self, buffers: Sequence[memoryview]) -> Batch:
        """Read and encrypt the next batch. Blocks: for a thread.

        Args:
            buffers: K of them, of the size of a full stripe's shards.
        """
        if self._left < 0:
            self._left = self._read_into(self._now)
        out = _Buffers(buffers)
        out.write(self._carry)
        self._carry = self._sealed[:0]
        while out.at < out.size and not self.ended:
            self._seal(out)
        offset = self._number * out.size
        if out.at == out.size:
            leaves = layout.full_leaves(self._data_shards)
            known = [Stripe(self._number, offset, leaves, self._data_shards)]
        else:
            known = layout.stripes(offset + out.at, self._data_shards)[self._number :]
        cuts = [self._cut(stripe, offset, out.at) for stripe in known]
        out.zero(sum(stripe.size for stripe in known))
        self._number += len(cuts)
        return Batch(tuple(cuts), self.ended and not self._carry)

    def _seal(self, out: _Buffers) -> None:
        """Encrypt the segment in `_now`, and have the next one there."""
        size = self._left
        following = self._read_into(self._next) if size == SEGMENT_SIZE else 0
        last = not following
        plaintext = self._now[:size]
        self._hash.update(plaintext)
        self.size += size
        inside = out.at + size + TAG_SIZE <= out.size
        if inside and self._number in self._whole:
            out.at += size + TAG_SIZE
        elif (view := out.reserve(size + TAG_SIZE)) is not None:
            self._encryptor.segment_into(self._segment, plaintext, last, view)
        else:
            sealed = self._sealed[: size + TAG_SIZE]
            self._encryptor.segment_into(self._segment, plaintext, last, sealed)
            self._carry = sealed[out.write(sealed) :]
        self._now, self._next, self._left = self._next, self._now, following
        self._segment += 1
        self.ended = last

    def _cut(self, stripe: Stripe, offset: int, filled: int) -> Cut:
        start = stripe.offset - offset
        told = self.sha256 + u64(self.size) + u8(self.ended)
        digest = hmac.digest(self._mark_key, told, "sha256")
        length = min(stripe.size, filled - start)
        return Cut(stripe, start, Mark(stripe.number, stripe.leaves, length, self.size, digest))


class _Buffers:
    """Buffers of one size, one behind the other."""

    def __init__(self, buffers: Sequence[memoryview]) -> None:
        self._buffers = buffers
        self._each = len(buffers[0])
        self.size = self._each * len(buffers)
        self.at = 0

    def reserve(self, size: int) -> memoryview | None:
        """The place of the next `size` bytes; None where a buffer ends within them."""
        number, start = divmod(self.at, self._each)
        if number == len(self._buffers) or start + size > self._each:
            return None
        self.at += size
        return self._buffers[number][start : start + size]

    def write(self, data: memoryview) -> int:
        """Copy in as much as there is room for; returns how much that was."""
        done = 0
        while done < len(data) and self.at < self.size:
            number, start = divmod(self.at, self._each)
            fits = min(len(data) - done, self._each - start)
            self._buffers[number][start : start + fits] = data[done : done + fits]
            done, self.at = done + fits, self.at + fits
        return done

    def zero(self, end: int) -> None:
        """Zero bytes from here up to `end`."""
        while self.at < end:
            number, start = divmod(self.at, self._each)
            fits = min(end - self.at, self._each - start)
            self._buffers[number][start : start + fits] = bytes(fits)
            self.at += fits
