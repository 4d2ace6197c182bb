"""The work on the bytes of a stripe, in threads: coding, the outer layer, hashing.

All of it happens in the buffers that the stripe lies in, and nearly all of it outside the GIL.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from .. import shard
from ..coding import erasure, spread

#: Bytes of each block that are coded at a time: what the processor's cache holds for usual codes.
_COLUMNS = 32 << 10

T = TypeVar("T")


class Coder:
    """Threads for one file's bytes. A context manager, to be used within one event loop."""

    def __init__(self, spread_key: bytes, file_id: bytes) -> None:
        self._spread = spread_key
        self._file_id = file_id
        self._workers = max(2, min(8, os.cpu_count() or 2))
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="coder")

    def __enter__(self) -> Coder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """The result of `work`, done in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def encode(self, data: Sequence[memoryview], parity: Sequence[memoryview]) -> None:
        """Fill `parity` with the parity shards of `data`; all have one size."""
        size = len(data[0])
        share = -(-size // self._workers // _COLUMNS) * _COLUMNS
        starts = range(0, size, share)
        await asyncio.gather(
            *(self.run(_encode, data, parity, start, min(start + share, size)) for start in starts)
        )

    async def spread(self, view: memoryview, stripe: int, number: int, layers: Sequence[bytes]) -> bytes:
        """Put a layer on a shard, or take it off, in place, for each miner in `layers`; the root then."""
        return await self.run(self._layered, view, stripe, number, layers)

    def _layered(self, view: memoryview, stripe: int, number: int, layers: Sequence[bytes]) -> bytes:
        for miner in layers:
            spread.apply_into(self._spread, self._file_id, stripe, number, miner, view, view)
        return shard.shard_root(view)

    async def open(
        self, root: bytes, leaves: int, first: int, count: int, answer: bytes, place: tuple[int, int, bytes]
    ) -> memoryview:
        """The block in a miner's answer, without its layer.

        Args:
            place: stripe, number of the shard, and its miner's public key.

        Raises:
            ProofError: it is not the piece of the shard with that root.
        """
        return await self.run(self._opened, root, leaves, first, count, answer, place)

    def _opened(
        self, root: bytes, leaves: int, first: int, count: int, answer: bytes, place: tuple[int, int, bytes]
    ) -> memoryview:
        data = shard.read_piece(root, leaves, first, count, answer)
        offset = first * len(data) // count
        return memoryview(spread.apply(self._spread, self._file_id, *place, data, offset))

    async def decode(
        self, k: int, n: int, blocks: Mapping[int, memoryview], wanted: Sequence[int]
    ) -> dict[int, memoryview]:
        """The wanted data blocks, out of any K blocks."""
        decoded = await self.run(erasure.decode, k, n, blocks)
        return {number: memoryview(decoded[number]) for number in wanted}


def _encode(data: Sequence[memoryview], parity: Sequence[memoryview], start: int, end: int) -> None:
    n = len(data) + len(parity)
    for at in range(start, end, _COLUMNS):
        behind = min(at + _COLUMNS, end)
        coded = erasure.encode([block[at:behind] for block in data], n)
        for block, column in zip(parity, coded, strict=True):
            block[at:behind] = column
