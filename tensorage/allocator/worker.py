"""The process that seals and checks sectors, one after the other, in memory that it keeps.

    python -m tensorage.allocator.worker PROFILE

It is told what to do in lines of JSON on stdin and says what it did on stdout; it ends with its stdin, or
with the process that started it.

    out  {"ready": true}                        once, when the kernel is compiled or loaded
    in   {"index", "path", "seal": id in hex}   seal the sector and put its file in place
         {"index", "path"}                      read the file
    out  {"index", "done": bytes}               now and then
         {"index", "nodes": length}             then so many raw bytes: the nodes at height 4 of its chunks
         {"index", "damaged": why}              the file is not one of a sector
         {"index", "failed": why, "errno"}      anything else that the system refused

A sector's hash tree is built, and its file written, during the last pass, chunk by chunk while the
processor's cache still holds them; a thread writes, so that a chunk is on its way to the disk while the next
is made. What a worker imports counts against its memory, so that is the core and little else.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from .. import seal
from .files import SectorWriter, group_nodes, read_chunks, write_ranges

NICE = 10
REPORT_SECONDS = 0.2
_DAMAGE = (errno.EIO, errno.ENOENT, errno.EISDIR)
_PR_SET_PDEATHSIG = 1


class Worker:
    """Seals and checks; `messages` yields what there is to say about one job, nodes as bytes at the end."""

    def __init__(self, profile: seal.Profile) -> None:
        self._profile = profile
        self._sealer: seal.Sealer | None = None
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="write")

    def seal(self, path: Path, sector_id: bytes) -> Iterator[int | bytes]:
        """Seal a sector into its file: yields bytes done (of the size of a sector), at last the nodes.

        Raises:
            OSError: no memory, or the file cannot be written; nothing is left of it.
        """
        if self._sealer is None:
            self._sealer = seal.Sealer(self._profile)
        writer = SectorWriter(path, self._profile.size)
        written: list[Future[None]] = []
        try:
            nodes = []
            a_pass = self._profile.size // seal.PASSES
            for number, _ in enumerate(self._sealer.steps(sector_id)):
                yield (number + 1) * a_pass
            for number, chunk in enumerate(self._sealer.last_pass()):
                written.append(self._writing.submit(writer.write, number * seal.CHUNK_SIZE, chunk))
                nodes.append(group_nodes(chunk))
                yield (seal.PASSES - 1) * a_pass + (number + 1) * a_pass // self._profile.chunks
            for each in written:
                each.result()
            writer.finish()
            yield b"".join(nodes)
        finally:
            wait(written)
            writer.discard()

    def refill(
        self, path: Path, sector_id: bytes, ranges: Sequence[tuple[int, int]]
    ) -> Iterator[int | bytes]:
        """Seal a sector, and write parts of it into the file that is there; yields as `seal`.

        Raises:
            OSError: no memory, no such file, or it cannot be written.
            ValueError: it has not the size of a sector.
        """
        if self._sealer is None:
            self._sealer = seal.Sealer(self._profile)
        a_pass = self._profile.size // seal.PASSES
        for number, _ in enumerate(self._sealer.steps(sector_id)):
            yield (number + 1) * a_pass
        nodes: list[bytes] = []
        parts: list[tuple[int, memoryview]] = []
        for number, chunk in enumerate(self._sealer.last_pass()):
            nodes.append(group_nodes(chunk))
            first = number * seal.CHUNK_SIZE
            parts += [
                (offset, chunk[offset - first : offset - first + length])
                for offset, length in ranges
                if first <= offset < first + seal.CHUNK_SIZE
            ]
        write_ranges(path, self._profile.size, parts)
        yield b"".join(nodes)

    def check(self, path: Path) -> Iterator[int | bytes]:
        """Read a sector's file: yields bytes done, at last the nodes.

        Raises:
            OSError: the file cannot be read.
            ValueError: it has not the size of a sector.
        """
        nodes = []
        for number, chunk in enumerate(read_chunks(path, self._profile)):
            nodes.append(group_nodes(chunk))
            yield (number + 1) * seal.CHUNK_SIZE
        yield b"".join(nodes)

    def _steps(self, job: dict[str, Any], path: Path) -> Iterator[int | bytes]:
        if "seal" not in job:
            return self.check(path)
        sector_id = bytes.fromhex(job["seal"])
        if "ranges" in job:
            return self.refill(path, sector_id, [(offset, length) for offset, length in job["ranges"]])
        return self.seal(path, sector_id)

    def messages(self, job: dict[str, Any]) -> Iterator[dict[str, Any] | bytes]:
        """Do a job and say so."""
        index, path = job["index"], Path(job["path"])
        told = time.monotonic()
        try:
            for step in self._steps(job, path):
                if isinstance(step, bytes):
                    yield {"index": index, "nodes": len(step)}
                    yield step
                elif time.monotonic() - told >= REPORT_SECONDS:
                    told = time.monotonic()
                    yield {"index": index, "done": step}
        except ValueError as error:
            yield {"index": index, "damaged": str(error)}
        except OSError as error:
            why = error.strerror or str(error)
            if ("seal" not in job or "ranges" in job) and error.errno in _DAMAGE:
                yield {"index": index, "damaged": f"cannot be read: {why}"}
            else:
                yield {"index": index, "failed": why, "errno": error.errno}


def _follow_parent() -> None:
    """Have the kernel end this process with the one that started it, even while it is stopped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _shed_compiler() -> None:
    """Let go of the pages of the compiler's code, up to 80 MB, once the kernel is loaded.

    They are clean, and come back from the file if they are called after all.
    """
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, rights, *_ = line.split()
        if rights == "r-xp" and "libllvmlite" in line:
            first, end = (int(address, 16) for address in place.split("-"))
            madvise(first, end - first, mmap.MADV_DONTNEED)


def main() -> None:
    """Serve jobs until stdin ends."""
    _follow_parent()
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all at once; the parent decides what they mean
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # nothing that a library prints may stand among the messages
    worker = Worker(seal.profile(int(sys.argv[1])))
    seal.Sealer(seal.DEV).seal(bytes(32))
    _shed_compiler()
    with closing(out), suppress(BrokenPipeError):  # killed before we could follow it: nobody listens
        _send(out.fileno(), _line({"ready": True}))
        for line in sys.stdin:
            for message in worker.messages(json.loads(line)):
                _send(out.fileno(), message if isinstance(message, bytes) else _line(message))


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _send(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


if __name__ == "__main__":
    main()
