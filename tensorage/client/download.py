"""get: the bytes of a file, or of a range of it, in order.

Units of the plan are fetched ahead, as many as fit into the budget, and opened in their order: whatever is
handed on was authenticated under the file's key, at its place.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from ..coding.keys import FileKeys
from ..coding.layout import stripes
from ..coding.manifest import Manifest
from ..coding.opening import Opening
from .coder import Coder
from .fetching import Fetcher
from .plan import Unit, units

#: Bytes of blocks that are fetched, or being fetched, ahead; answers take as much again for a while. At first
#: there is the first segment only; each unit with which some was handed on doubles what may be ahead.
AHEAD = 64 << 20
_AT_FIRST = 320 << 10

Write = Callable[[memoryview], None]
T = TypeVar("T")


class Download:
    """Fetches from one file.

    Args:
        progress: told of bytes of the file, as they are handed on.
    """

    def __init__(
        self,
        manifest: Manifest,
        keys: FileKeys,
        fetcher: Fetcher,
        coder: Coder,
        progress: Callable[[float], None] = lambda size: None,
    ) -> None:
        self._manifest = manifest
        self._keys = keys
        self._fetcher = fetcher
        self._coder = coder
        self._progress = progress

    async def run(self, write: Write, offset: int = 0, length: int | None = None) -> None:
        """Hand on `length` bytes from `offset` on, in order.

        Args:
            write: takes them, in a thread; each view is valid only during the call.

        Raises:
            ValueError: the range is not within the file.
            StreamError: bytes are not the file's.
            UnavailableError: too few shards of a stripe are to be had.
            OSError: from `write`.
        """
        manifest = self._manifest
        opening = Opening(self._keys.content, manifest.size, offset, length)
        begin, left = opening.run.offset, opening.run.length
        plan = units(stripes(manifest.ciphertext, manifest.data_shards), begin, left)
        ahead: deque[tuple[Unit, asyncio.Task[list[memoryview]]]] = deque()
        flying, held, window = 0, 0, _AT_FIRST  # held: handed over, and nothing of it handed on
        following = next(plan, None)
        try:
            while following is not None or ahead:
                while following is not None and (not ahead or flying + following.size <= window):
                    ahead.append((following, asyncio.create_task(self._fetch(following))))
                    flying += following.size
                    following = next(plan, None)
                unit, task = ahead[0]
                blocks = await task
                skip = max(0, begin - unit.offset)
                done = await _whole(self._coder.run(_open, opening, blocks, skip, write))
                del blocks, task
                ahead.popleft()
                held += unit.size
                if done:
                    flying, held, window = flying - held, 0, min(2 * window, AHEAD)
                self._progress(done)
        finally:
            for _, task in ahead:
                task.cancel()
            await asyncio.gather(*(task for _, task in ahead), return_exceptions=True)
        opening.finish()

    async def _fetch(self, unit: Unit) -> list[memoryview]:
        blocks = await self._fetcher.blocks(unit.stripe, unit.numbers, unit.first, unit.count)
        return [blocks[number] for number in unit.numbers]


async def _whole(work: Awaitable[T]) -> T:
    """The result of work in a thread, which has ended also when this is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    finally:
        await asyncio.wait([task])


def _open(opening: Opening, blocks: Iterable[memoryview], skip: int, write: Write) -> int:
    done = 0
    for block in blocks:
        for plain in opening.feed(block[skip:]):
            write(plain)
            done += len(plain)
        skip = 0
    return done
