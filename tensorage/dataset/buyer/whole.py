"""A file of format 1, which signs no chunks: fetched front to back, and checked once it is whole.

What is there is taken up with a range, if the seller says by a validator (a strong ETag, or the time of the
last change) that the file is still the same; otherwise all of it comes anew. Nothing can be checked before
the end, so only the owner's own server is asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from ...errors import ProofError
from .download import CHUNK_SECONDS, PAUSES, Outcome, Report
from .faults import DownloadError, SourceFault
from .part import PAGES, Part
from .ranged import Wanted
from .sources import HttpSource

_TICK = 0.5


class WholeDownload:
    """One such download. `run` once; `stop` from any thread.

    Args:
        progress: told of bytes that are there.
        pauses: as PAUSES.
        piece_seconds: seconds that the next 256 KiB may take.
    """

    def __init__(
        self,
        part: Part,
        source: HttpSource,
        progress: Callable[[int], None] = lambda size: None,
        *,
        pauses: Sequence[float] = PAUSES,
        piece_seconds: float = CHUNK_SECONDS,
    ) -> None:
        self._part = part
        self._goal = part.goal
        self._reader = source.reader()
        self._report = Report(source.name)
        self._progress = progress
        self._pauses = pauses
        self._piece_seconds = piece_seconds
        self._ended = threading.Event()
        self._since = 0.0

    def run(self) -> Outcome:
        """Fetch what is missing; returns when the whole file has the signed hash.

        Raises:
            DownloadError: the seller does not give it.
            ProofError: what came is not what the owner signed; it is dropped.
            StorageError: the disk refuses.
        """
        kept = self._kept()
        self._progress(kept)
        self._since = time.monotonic()
        watch = threading.Thread(target=self._watch, name="dataset-watch", daemon=True)
        watch.start()
        try:
            kept = self._all(kept)
        finally:
            self.stop()
            watch.join()
            self._reader.close()
        if not self._right():
            self._part.resize(0)
            raise ProofError(
                f"{self._report.name} sent a file whose hash is not the signed {self._goal.file_hash.hex()}",
                remedy="It was dropped; run the command again, and tell the owner if it stays so",
            )
        return Outcome(kept, self._goal.size - kept, [self._report])

    def stop(self) -> None:
        """End before the end; what came is kept."""
        self._ended.set()
        self._reader.abort("was stopped")

    def _kept(self) -> int:
        """Bytes that are there and may be gone on with."""
        kept = self._part.size
        if kept > self._goal.size or (kept == self._goal.size and not self._right()):
            kept = 0
        if kept < self._goal.size and self._part.validator is None:
            kept = 0
        self._part.resize(kept)
        return kept

    def _right(self) -> bool:
        return self._part.hash(lambda: False) == self._goal.file_hash

    def _watch(self) -> None:
        while not self._ended.wait(_TICK):
            if time.monotonic() - self._since > self._piece_seconds:
                self._reader.abort("is too slow")
                return

    def _all(self, kept: int) -> int:
        """Fetch until it is as long as it shall be; returns how much of what was there was kept."""
        failed = 0
        while (before := self._part.size) < self._goal.size:
            try:
                if self._fetch(before) == 0:
                    kept = 0
            except SourceFault as fault:
                failed = 1 if self._part.size > before else failed + 1
                if fault.final or failed > len(self._pauses):
                    raise DownloadError(
                        f"{self._goal.size - self._part.size} bytes are missing: {self._report.name} "
                        f"{fault.message}",
                        remedy="Run the same command again to go on with it",
                    ) from fault
                kept = min(kept, self._part.size)
                self._ended.wait(max(self._pauses[failed - 1], fault.wait))
                self._since = time.monotonic()
        return kept

    def _fetch(self, at: int) -> int:
        """Read on from `at`; returns where the answer began."""
        wanted = Wanted(at, self._goal.size, self._goal.size)
        begun = self._reader.open(wanted, if_range=self._part.validator if at else None)
        if begun < at:
            self._part.resize(0)
            self._progress(-at)
            at = 0
        self._part.note(self._reader.validator)
        buffer = PAGES.take()
        while at < self._goal.size:
            got = self._reader.readinto(buffer)
            self._part.write(at, buffer[:got])
            at += got
            self._report.bytes += got
            self._since = time.monotonic()
            self._progress(got)
        PAGES.give(buffer)
        return begun
