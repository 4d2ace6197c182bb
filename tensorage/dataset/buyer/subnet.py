"""A file in the storage subnet as a source, beside those over HTTP.

Rules. The link came from the seller, who may have put anything into it. It must be of a file of the size and
the hash that the owner signed; the miners that it names are dialled only where `tensorage get` would dial
those of a link: at public addresses, or on a network that the user named. What comes is checked chunk by
chunk like what any source sends.

The work is that of `tensorage get`: an event loop in a thread of its own, which fetches ahead, while the
thread of the download takes what is there.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack
from pathlib import Path

import anyio
from anyio.from_thread import start_blocking_portal

from ...chain.network import ChainSettings
from ...client.coder import Coder
from ...client.download import Download
from ...client.fetching import Fetcher, UnavailableError
from ...client.gateway import Access
from ...client.known import Known, known_link
from ...client.reach import reaching
from ...errors import ProofError, TensorageError, UsageError
from ...transport.refusals import one_line
from .faults import SourceFault
from .sources import Stream
from .target import Goal

NAME = "the storage subnet"
#: Bytes that were fetched and opened, and that nobody has taken yet.
_READY = 4 << 20
#: Seconds that reports about wrong shards may take in the end.
_REPORT_SECONDS = 1.0


def open_link(link: str, goal: Goal, chain: ChainSettings) -> SubnetSource:
    """The source that a link is of.

    Args:
        chain: the network that the user named.

    Raises:
        ProofError: it is no link, or not one of the file that was signed.
    """
    known = known_link(link.encode("ascii", "replace"))
    manifest = known.manifest
    if manifest.kind != "file" or manifest.size != goal.size:
        raise ProofError(
            f"the link is of a {manifest.kind} of {manifest.size} bytes where {goal.size} are signed"
        )
    if manifest.sha256 != goal.file_hash:
        raise ProofError(
            f"the link is of a file with hash {manifest.sha256.hex()} where {goal.file_hash.hex()} is signed"
        )
    return SubnetSource(known, Access(None, None, ("", "", Path()), lambda: chain, chain.is_local))


class SubnetSource:
    """A file in the subnet.

    Attributes:
        wrong: shards that were wrong and made up for: stripe, shard, hotkey of the miner, why.
    """

    name = NAME

    def __init__(self, known: Known, access: Access) -> None:
        self._known = known
        self._access = access
        self.wrong: list[tuple[int, int, str, str]] = []

    def connect(self, size: int) -> Stream:
        """A stream of the file."""
        return _SubnetStream(self, self._known, self._access)


class _SubnetStream:
    """A stream; `abort` by any thread, the rest by one."""

    def __init__(self, source: SubnetSource, known: Known, access: Access) -> None:
        self._source = source
        self._known = known
        self._access = access
        self._session: _Session | None = None
        self._pipe = _Pipe()
        self._lock = threading.Lock()
        self._aborted = ""

    def begin(self, start: int, end: int) -> None:
        self._check()
        try:
            if self._session is None:
                self._session = _Session(self._known, self._access)
            pipe = self._session.begin(start, end)
        except UsageError as error:
            raise SourceFault(
                "lies at private addresses, which are not dialled unless --subtensor.network names a network "
                "on this machine",
                final=True,
            ) from error
        with self._lock:
            self._pipe = pipe
        self._check()

    def readinto(self, view: memoryview) -> int:
        return self._pipe.take(view)

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
            self._source.wrong += session.wrong

    def abort(self, reason: str) -> None:
        with self._lock:
            self._aborted = self._aborted or reason
            self._pipe.close(SourceFault(self._aborted, final=True))

    def _check(self) -> None:
        with self._lock:
            if self._aborted:
                self._pipe.close(SourceFault(self._aborted, final=True))
                raise SourceFault(self._aborted, final=True)


class _Session:
    """An event loop in a thread, with connections to the miners of one file.

    Raises:
        UsageError: they have addresses that are not dialled.
    """

    def __init__(self, known: Known, access: Access) -> None:
        self._known = known
        self._pipe = _Pipe()
        self._running: asyncio.Task[None] | None = None
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            reach = stack.enter_context(
                self._portal.wrap_async_context_manager(reaching(known, access, None))
            )
            self._coder = stack.enter_context(Coder(known.keys.spread, known.manifest.id))
            self._fetcher = Fetcher(reach.places, reach.miners, self._coder, reach.gateway)
            self._stack = stack.pop_all()

    @property
    def wrong(self) -> list[tuple[int, int, str, str]]:
        """Shards that were wrong, as of `SubnetSource`."""
        return self._fetcher.wrong

    def begin(self, start: int, end: int) -> _Pipe:
        """Have bytes [start, end) come, and nothing else any more; where they come out."""
        self._pipe.close(SourceFault("is closed", final=False))
        self._pipe = _Pipe()
        self._portal.call(self._start, self._pipe, start, end)
        return self._pipe

    async def _start(self, pipe: _Pipe, start: int, end: int) -> None:
        await self._end()
        self._running = asyncio.create_task(self._run(pipe, start, end))

    async def _run(self, pipe: _Pipe, start: int, end: int) -> None:
        download = Download(self._known.manifest, self._known.keys, self._fetcher, self._coder)
        try:
            await download.run(pipe.put, start, end - start)
        except UnavailableError as error:
            pipe.end(SourceFault(f"does not give all: {one_line(error.message)}", final=False))
        except TensorageError as error:
            pipe.end(SourceFault(f"gives something else: {one_line(error.message)}", final=True))
        except Exception as error:  # noqa: BLE001 - raised where the bytes are taken
            pipe.end(error)
        else:
            pipe.end(None)

    async def _end(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def close(self) -> None:
        """End all of it."""
        self._pipe.close(SourceFault("is closed", final=False))
        with self._stack:
            self._portal.call(self._finish)

    async def _finish(self) -> None:
        await self._end()
        with anyio.move_on_after(_REPORT_SECONDS):
            await self._fetcher.finish()


class _Pipe:
    """Bytes that one thread puts and another takes; what is ready is bounded."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ready: list[memoryview] = []
        self._size = 0
        self._ended = False
        self._fault: Exception | None = None
        self._closed = False

    def put(self, view: memoryview) -> None:
        """Add bytes, which are copied; waits for room. Once nobody takes any more, they are dropped."""
        copy = memoryview(bytes(view))
        with self._changed:
            while self._size >= _READY and not self._closed:
                self._changed.wait()
            if self._closed:
                return
            self._ready.append(copy)
            self._size += len(copy)
            self._changed.notify_all()

    def end(self, fault: Exception | None) -> None:
        """No more bytes come; what is ready can be taken first."""
        with self._changed:
            self._ended = True
            self._fault = self._fault or fault
            self._changed.notify_all()

    def close(self, fault: Exception) -> None:
        """Take no more; whoever does gets `fault`."""
        with self._changed:
            self._closed = self._ended = True
            self._fault = self._fault or fault
            self._ready, self._size = [], 0
            self._changed.notify_all()

    def take(self, view: memoryview) -> int:
        """Fill a part of `view`; returns how many bytes, 0 at the end."""
        with self._changed:
            while not self._ready and not self._ended:
                self._changed.wait()
            if not self._ready:
                if self._fault is not None:
                    raise self._fault
                return 0
            first = self._ready[0]
            got = min(len(view), len(first))
            view[:got] = first[:got]
            if got == len(first):
                self._ready.pop(0)
            else:
                self._ready[0] = first[got:]
            self._size -= got
            self._changed.notify_all()
            return got
