"""What a miner's axon serves, beside ping and health.

Commitments and listings are there for everyone who is registered, so that anybody can check a miner;
challenges are for validators with a permit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..allocator.store import Store
from ..commitment import SignedCommitment
from ..errors import RequestError
from ..transport.axon import Access, Axon, Call, Reply
from ..transport.messages import SECTORS_PAGE, CommitmentMessage, SectorsPage
from .answers import Answers

T = TypeVar("T")


class Routes:
    """The routes of one miner.

    Args:
        store: used from one thread of its own.
    """

    def __init__(self, store: Store, answers: Answers) -> None:
        self._store = store
        self._answers = answers
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="listings")

    def attach(self, axon: Axon) -> None:
        """Serve them on `axon`."""
        registered, validator = Access.REGISTERED, Access.VALIDATOR
        axon.route("GET", "/v1/commitment", self._commitment, access=registered)
        axon.route("GET", "/v1/sectors", self._sectors, access=registered)
        axon.route("GET", "/v1/sectors/{index}/chunk-roots", self._chunk_roots, access=registered)
        axon.route("POST", "/v1/challenge", self._answers.challenge, access=validator)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _commitment(self, call: Call) -> Reply:
        seq = call.number("seq", low=1, high=(1 << 63) - 1) if "seq" in call.query else None
        signed = await self._in_thread(lambda: self._store.commitment(seq))
        if signed is None:
            raise _unknown(seq)
        return CommitmentMessage.of(signed)

    async def _sectors(self, call: Call) -> Reply:
        start = call.number("from", 0, high=(1 << 63) - 1)
        limit = call.number("limit", SECTORS_PAGE, low=1, high=SECTORS_PAGE)

        def read() -> SectorsPage:
            newest = self._newest()
            entries = self._store.listing(newest.commitment.seq, start=start, limit=limit)
            return SectorsPage(indices=[index for index, _ in entries], roots=[root for _, root in entries])

        return await self._in_thread(read)

    async def _chunk_roots(self, call: Call) -> Reply:
        index = call.number("index", high=(1 << 63) - 1)
        roots = await self._in_thread(lambda: self._store.committed_chunk_roots(index))
        if roots is None:
            raise RequestError("unknown", f"there is no sector {index}")
        return roots

    def _newest(self) -> SignedCommitment:
        signed = self._store.commitment()
        if signed is None:
            raise _unknown(None)
        return signed

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _unknown(seq: int | None) -> RequestError:
    return RequestError(
        "unknown", "nothing is committed to yet" if seq is None else f"there is no commitment {seq}"
    )
