"""Buffers of one size, of which there are only so many: what keeps the client's memory bounded.

They are pages of their own (anonymous maps), not of the heap, which would keep what it was once given, and
they are used again and again. Whoever wants some waits in turn until that many are free.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Sequence

import anyio

#: Bytes of shards that a command has in flight. With the interpreter, the libraries (90 MB) and what sockets
#: and threads hold it stays under 300 MB.
BUDGET = 144 << 20


class Pool:
    """`count` buffers of `size` bytes, made when they are first wanted."""

    def __init__(self, size: int, count: int) -> None:
        self.size = size
        self.count = count
        self._made = 0
        self._free: list[memoryview] = []
        self._maps: list[mmap.mmap] = []
        self._waiting: deque[tuple[int, anyio.Event]] = deque()

    @classmethod
    def of(cls, size: int, least: int) -> Pool:
        """As many buffers as `BUDGET` allows, and no fewer than `least`."""
        return cls(size, max(least, BUDGET // size))

    async def take(self, count: int) -> list[memoryview]:
        """So many buffers, with anything in them, once they are free; first come, first served."""
        if count > self.count:
            raise ValueError(f"{count} buffers of {self.count}")
        if self._waiting or self._left() < count:
            turn = anyio.Event()
            entry = (count, turn)
            self._waiting.append(entry)
            try:
                await turn.wait()
            except BaseException:
                if entry in self._waiting:
                    self._waiting.remove(entry)
                self._wake()
                raise
            self._waiting.popleft()
        taken = [self._one() for _ in range(count)]
        self._wake()
        return taken

    def give(self, buffers: Sequence[memoryview]) -> None:
        """Take buffers back."""
        self._free.extend(buffers)
        self._wake()

    def _left(self) -> int:
        return len(self._free) + self.count - self._made

    def _one(self) -> memoryview:
        if self._free:
            return self._free.pop()
        self._made += 1
        self._maps.append(mmap.mmap(-1, self.size))
        return memoryview(self._maps[-1])

    def _wake(self) -> None:
        if self._waiting and self._left() >= self._waiting[0][0]:
            self._waiting[0][1].set()
