"""Opening a run of segments from ciphertext that arrives in pieces of any size, in order.

Ciphertext comes a shard at a time, and segments lie across the ends of shards and stripes. Whole segments are
opened where they lie; only those that two pieces share are copied together first. Nothing is given out that
was not authenticated, and `finish` tells whether everything that was wanted was.
"""

from __future__ import annotations

from collections.abc import Iterator

from .stream import SEALED_SIZE, Decryptor, Run, StreamError, ciphertext_size, run, segment_count


class Opening:
    """Gives the bytes from `offset` on, `length` of them, of a file of `size` bytes.

    Feed the ciphertext that `run` names. What lies behind it, as padding does, is ignored.

    Raises:
        ValueError: the range is not within the file.
    """

    def __init__(self, key: bytes, size: int, offset: int = 0, length: int | None = None) -> None:
        self.run: Run = run(size, offset, size - offset if length is None else length)
        self._decryptor = Decryptor(key)
        self._segments = segment_count(size)
        self._ciphertext = ciphertext_size(size)
        self._index = self.run.first
        self._skip = self.run.skip
        self._want = self.run.want
        self._held = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[memoryview]:
        """The bytes of the file that `data`, next of the ciphertext, completes; exhaust it before the next.

        Raises:
            StreamError: a segment is not the file's at its place.
        """
        rest = memoryview(data)
        while rest and not self._done:
            due = self._due()
            if not self._held and len(rest) >= due:
                yield self._open(rest[:due])
                rest = rest[due:]
                continue
            taken = min(due - len(self._held), len(rest))
            self._held += rest[:taken]
            rest = rest[taken:]
            if len(self._held) == due:
                held, self._held = self._held, bytearray()
                yield self._open(held)

    def finish(self) -> None:
        """Check that every segment of the run was opened.

        Raises:
            StreamError: the ciphertext ended before.
        """
        if not self._done:
            raise StreamError(f"the ciphertext ends in segment {self._index} of {self._segments}")

    @property
    def _done(self) -> bool:
        return self._index == self.run.first + self.run.count

    def _due(self) -> int:
        """Bytes of the next segment."""
        return min(SEALED_SIZE, self._ciphertext - self._index * SEALED_SIZE)

    def _open(self, sealed: bytearray | memoryview) -> memoryview:
        plain = self._decryptor.segment(self._index, sealed, self._index == self._segments - 1)
        wanted = memoryview(plain)[self._skip : self._skip + self._want]
        self._index, self._skip, self._want = self._index + 1, 0, self._want - len(wanted)
        return wanted
