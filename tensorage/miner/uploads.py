"""Taking in a shard: the ticket first, then the bytes, at last the receipt.

Nothing of the body is read before the ticket has passed and the database has said that there is room. The
bytes go to a file as they come, hashed on the way; the receipt is given out when they are those of the
ticket's root, flushed to the disk and in the database. The same ticket again, or twice at once, gives the
same receipt: the second waits for the first. Hashing and flushing are done in threads of their own, which
give way to challenges.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from ..allocator.shards import ShardStore
from ..allocator.uploads import Upload
from ..chain.auth import verify
from ..chain.types import Metagraph
from ..errors import RequestError
from ..hashchain import Sign
from ..ticket import Stored
from ..transport.axon import Axon, StreamCall
from ..transport.file_calls import SHARD_SECONDS
from ..transport.file_messages import StoredMessage
from .metrics import ShardMetrics
from .priority import Priority
from .tickets import check_ticket, ticket_of

log = logging.getLogger(__name__)

THREADS = 4

T = TypeVar("T")


class Uploads:
    """Takes shards in.

    Args:
        shards: used from several threads.
        metagraph: the subnet as known now, without I/O.
        sign: signs with the miner's hotkey.
    """

    def __init__(
        self,
        shards: ShardStore,
        *,
        metagraph: Callable[[], Metagraph],
        sign: Sign,
        priority: Priority,
        metrics: ShardMetrics,
    ) -> None:
        self._shards = shards
        self._metagraph = metagraph
        self._sign = sign
        self._priority = priority
        self._metrics = metrics
        self._locks: dict[bytes, asyncio.Lock] = {}
        self._waiting: Counter[bytes] = Counter()  # uploads of a ticket, the one under way among them
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="uploads")

    def attach(self, axon: Axon) -> None:
        """Serve uploads on `axon`."""
        axon.stream("PUT", "/v1/shards/{ticket}", self.put, total_seconds=SHARD_SECONDS)

    async def put(self, call: StreamCall) -> StoredMessage:
        """Take a shard in; its receipt.

        Raises:
            RequestError: see `tickets`; also "conflict", "full", "unready", and "malformed" for bytes that
                are not the ticket's.
            StaleChainError: it is not known who is a validator at the moment.
        """
        signed = ticket_of(call.headers, call.path["ticket"])
        metagraph = self._metagraph()
        await self._in_thread(
            lambda: check_ticket(signed, self._shards.identity, metagraph, time.time(), verify)
        )
        async with self._alone(signed.ticket.hash):
            taken = await self._in_thread(lambda: self._shards.admit(signed, int(time.time())))
            stored = taken if isinstance(taken, Stored) else await self._take(call, taken)
        return StoredMessage.of(stored)

    async def _take(self, call: StreamCall, upload: Upload) -> Stored:
        size, taken = upload.signed.ticket.size, 0
        writing = _Writing(self._threads, upload)
        try:
            if call.length is not None and call.length != size:
                raise _other_size(call.length, size)
            async with aclosing(call.chunks(size)) as steps:
                async for step in steps:
                    taken += len(step)
                    await self._priority.give_way()
                    await writing.write(step)
            if taken != size:
                raise _other_size(taken, size)
            stored = await writing.finish(self._sign)
        finally:
            writing.end()
        self._metrics.taken(size)
        return stored

    @asynccontextmanager
    async def _alone(self, name: bytes) -> AsyncIterator[None]:
        """One upload of a ticket at a time."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        self._waiting[name] += 1
        try:
            async with lock:
                yield
        finally:
            self._waiting[name] -= 1
            if not self._waiting[name]:
                del self._waiting[name], self._locks[name]

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Let the threads end; what they do is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Writing:
    """A shard that is being written: one step at a time in the threads, while the next one comes in.

    Whoever waits may be cancelled at any moment; what a thread is doing then ends before the file is removed.
    """

    def __init__(self, threads: ThreadPoolExecutor, upload: Upload) -> None:
        self._threads = threads
        self._upload = upload
        self._last: Future[Any] | None = None

    async def write(self, step: memoryview) -> None:
        """Begin to write a step, once the one before is written."""
        await self._written()
        self._last = self._threads.submit(self._upload.write, step)

    async def finish(self, sign: Sign) -> Stored:
        """Flush and record the shard; the receipt."""
        await self._written()
        done = self._threads.submit(self._upload.finish, sign, time.time_ns() // 1_000_000)
        self._last = done
        return await asyncio.wrap_future(done)

    def end(self) -> None:
        """Remove what was written, unless it was finished."""
        last = self._last

        def discard() -> None:
            if last is not None:
                wait([last])
            try:
                self._upload.discard()
            except OSError as error:
                log.warning("upload not removed file=%s error=%r", self._upload.path, error.strerror)

        self._threads.submit(discard)

    async def _written(self) -> None:
        if self._last is not None:
            await asyncio.wrap_future(self._last)


def _other_size(size: int, due: int) -> RequestError:
    return RequestError("malformed", f"the body has {size} bytes, the ticket is for {due}")
