"""Chunks from several sources at once into one file, each checked before it is written.

Rules. A chunk is written after its hash was found to be the signed one, so a source can delay and refuse, and
nothing else. A source that sends a wrong chunk is not asked again and is named; one that breaks off, or takes
too long over a chunk, is asked again a few times. The last chunks of a slow source are fetched from another.
There is never more in memory than a few chunks a source.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ... import merkle
from ...errors import ProofError
from ..chunks import CHUNK_SIZE, chunk_span
from .faults import DownloadError, SourceFault
from .follower import Follower
from .part import PAGES, Part
from .sources import Source, Stream
from .spans import SPAN_CHUNKS, Span, Spans

#: Seconds that one chunk may take, from being asked for; less than 9 KB/s is no source.
CHUNK_SECONDS = 120.0
#: Seconds between the attempts at a source that broke off; after the last it is dropped. A chunk that
#: arrives starts the list again.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
_TICK = 0.5


@dataclass
class Report:
    """What came of one source.

    Attributes:
        fault: why it was dropped; empty while it is not.
    """

    name: str
    chunks: int = 0
    bytes: int = 0
    fault: str = ""


@dataclass
class Outcome:
    """A file that is whole.

    Attributes:
        kept: bytes that were there already.
        fetched: bytes that came and were used.
    """

    kept: int = 0
    fetched: int = 0
    sources: list[Report] = field(default_factory=list)


@dataclass(eq=False)
class _Worker:
    source: Source
    stream: Stream
    report: Report
    since: float | None = None  # when the chunk in flight was begun; None while there is none
    buffer: memoryview = field(default_factory=PAGES.take)


class Download:
    """One download. `run` once; `stop` from any thread.

    Args:
        leaves: the leaves of the file's chunks, checked against the signed root.
        sources: where to fetch from; the first ones are asked first.
        progress: told of bytes that are there, from any thread.
        pauses, chunk_seconds: as PAUSES and CHUNK_SECONDS.
    """

    def __init__(
        self,
        part: Part,
        leaves: Sequence[bytes],
        sources: Sequence[Source],
        progress: Callable[[int], None] = lambda size: None,
        *,
        pauses: Sequence[float] = PAUSES,
        chunk_seconds: float = CHUNK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._part = part
        self._size = part.goal.size
        self._leaves = leaves
        self._progress = progress
        self._pauses = pauses
        self._chunk_seconds = chunk_seconds
        self._clock = clock
        self._changed = threading.Condition()
        self._stopped = False
        self._spans = Spans([False] * len(leaves))
        self._error: BaseException | None = None
        self._workers = [
            _Worker(source, source.connect(self._size), Report(source.name)) for source in sources
        ]
        self._busy = 0

    def run(self) -> Outcome:
        """Fetch what is missing and give the file to be finished; returns when all of it was checked.

        Raises:
            DownloadError: no source is left.
            ProofError: all chunks are the signed ones, and the file is not: the owner signed what cannot be.
            StorageError: the disk refuses.
        """
        self._part.allocate()
        have = self._part.check(self._leaves, self._progress, stopped=lambda: self._stopped)
        self._spans = Spans(have)
        kept = sum(_length(index, self._size) for index, there in enumerate(have) if there)
        follower = Follower(self._size, self._changed, self._spans.has, self._part.read)
        follower.start()
        self._busy = len(self._workers)
        threads = [
            threading.Thread(target=self._work, args=(worker, follower), name="dataset-fetch", daemon=True)
            for worker in self._workers
        ]
        try:
            for thread in threads:
                thread.start()
            self._watch()
            if self._error is not None:
                raise self._error
            if self._spans.left:
                raise self._failed()
            self._end(threads)
            if follower.digest() != self._part.goal.file_hash:
                raise ProofError(
                    "every chunk is as signed, and the hash of the whole is not: the owner contradicts itself"
                )
        finally:
            self.stop()
            self._end(threads)
            follower.stop()
        reports = [worker.report for worker in self._workers]
        return Outcome(kept, self._size - kept, reports)

    def stop(self) -> None:
        """End before the end; what came is kept."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _watch(self) -> None:
        """Wait until it is done or nobody is left, and end what takes too long."""
        with self._changed:
            while self._spans.left and self._busy and not self._stopped:
                self._changed.wait(_TICK)
                now = self._clock()
                for worker in self._workers:
                    if worker.since is not None and now - worker.since > self._chunk_seconds:
                        worker.since = now
                        worker.stream.abort("is too slow")

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        for worker in self._workers:
            worker.stream.abort("is not needed any more")
        with self._changed:
            self._changed.notify_all()
        for thread in threads:
            if thread.ident is not None:
                thread.join()

    def _failed(self) -> DownloadError:
        if self._stopped:
            return DownloadError(
                "the download was stopped", remedy="Run the same command again to go on with it"
            )
        reasons = "; ".join(f"{worker.report.name} {worker.report.fault}" for worker in self._workers)
        return DownloadError(
            f"{self._spans.left} of {len(self._leaves)} chunks are missing and no source is left: "
            f"{reasons or 'there was none'}",
            remedy="Run the same command again to go on with it, or name another source with --mirror",
        )

    def _over(self) -> bool:
        return self._stopped or not self._spans.left

    def _work(self, worker: _Worker, follower: Follower) -> None:
        """A source's thread."""
        try:
            self._serve(worker, follower)
        except SourceFault as fault:
            with self._changed:
                if not self._over():
                    worker.report.fault = fault.message
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            with self._changed:
                self._error = self._error or error
                self._stopped = True
        finally:
            worker.stream.close()
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _serve(self, worker: _Worker, follower: Follower) -> None:
        failed = 0
        while (span := self._take(worker)) is not None:
            before = worker.report.chunks
            try:
                self._fetch(worker, span, follower)
            except SourceFault as fault:
                failed = 1 if worker.report.chunks > before else failed + 1
                if fault.final or failed > len(self._pauses) or self._over():
                    raise
                self._give_up(worker, span)
                worker.stream.close()
                self._pause(max(self._pauses[failed - 1], fault.wait))
            else:
                failed = 0
            finally:
                self._give_up(worker, span)

    def _take(self, worker: _Worker) -> Span | None:
        """The next span; waits where all that is left is in others' hands."""
        with self._changed:
            while not self._over():
                span = self._spans.take(worker.source.name, most=None if self._busy == 1 else SPAN_CHUNKS)
                if span is not None:
                    worker.since = self._clock()
                    return span
                self._changed.wait()
        return None

    def _give_up(self, worker: _Worker, span: Span) -> None:
        with self._changed:
            worker.since = None
            self._spans.give_up(span)
            self._changed.notify_all()

    def _fetch(self, worker: _Worker, span: Span, follower: Follower) -> None:
        worker.stream.begin(span.at * CHUNK_SIZE, chunk_span(span.end - 1, self._size)[1])
        while span.at < span.end and not self._over():
            index, length = span.at, _length(span.at, self._size)
            view, got = worker.buffer[:length], 0
            while got < length:
                if not (read := worker.stream.readinto(view[got:])):
                    raise SourceFault("ended early", final=False)
                got += read
            if merkle.leaf_hash(view) != self._leaves[index]:
                raise SourceFault(f"sent a wrong chunk {index}", final=True)
            self._part.write(index * CHUNK_SIZE, view)
            worker.buffer = follower.offer(index, worker.buffer)
            with self._changed:
                worker.since = self._clock()
                worker.report.chunks += 1
                worker.report.bytes += length
                if self._spans.done(span):
                    self._progress(length)
                self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        """Wait, unless it is over."""
        until = self._clock() + seconds
        with self._changed:
            while not self._over() and (left := until - self._clock()) > 0:
                self._changed.wait(left)


def _length(index: int, size: int) -> int:
    start, end = chunk_span(index, size)
    return end - start
