"""Supervisor of the worker processes that seal and check sectors.

Each worker has one sector at a time. One that dies (most often because memory ran out) is not replaced
unless it was the last, and its sector goes to another. Pausing stops the processes where they are (SIGSTOP)
and costs nothing to undo; ending them is killing them, since an unfinished file is never trusted.

Workers are processes of our own instead of an executor's: they can be paused, they report progress within a
sector, and they need not import the program that started them, which would count against their memory.
"""

from __future__ import annotations

import errno
import json
import logging
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import StorageError
from .errors import NoSpaceError, SealingStoppedError
from .layout import UNFINISHED, Identity

ATTEMPTS = 3  # per sector, before the fault is taken to be elsewhere than in memory
_LOOK_SECONDS = 0.2
_SOURCES = Path(__file__).parents[2]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """A sector to seal into its file, or a file to check.

    Attributes:
        ranges: (offset, length) of the parts that are missing in a file that is there, in bytes: no more than
            those are written, in place. Empty for a file that is to be made.
    """

    index: int
    path: Path
    seal: bool
    ranges: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a worker is: `done` bytes of its sector; all of them once it is finished."""

    worker: int
    job: Job
    done: int


Observer = Callable[[Progress], None]


class Control:
    """Pauses and ends work from other threads. Pauses nest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pauses = 0
        self._stopped = threading.Event()
        self._processes: set[subprocess.Popen[bytes]] = set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """End the work within a second; what is finished stays."""
        self._stopped.set()

    def pause(self) -> None:
        """Take the processor from the workers at once."""
        self._signal(1)

    def resume(self) -> None:
        """Undo one pause."""
        self._signal(-1)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The workers stand still inside the block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def _signal(self, change: int) -> None:
        with self._lock:
            before, self._pauses = self._pauses, max(self._pauses + change, 0)
            if bool(before) != bool(self._pauses):
                for process in self._processes:
                    process.send_signal(signal.SIGSTOP if self._pauses else signal.SIGCONT)

    def _add(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._processes.add(process)
            if self._pauses:
                process.send_signal(signal.SIGSTOP)

    def _remove(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._processes.discard(process)


class _Process:
    """One worker process; what it says goes to a queue as (process, message), None when it has ended."""

    def __init__(
        self, number: int, identity: Identity, events: queue.SimpleQueue[tuple[_Process, Any]]
    ) -> None:
        self.number = number
        self.job: Job | None = None
        self._identity = identity
        self._events = events
        self.popen = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "tensorage.allocator.worker", str(identity.profile)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_SOURCES,
        )
        self._listener = threading.Thread(target=self._listen, name=f"sealing-{number}", daemon=True)
        self._listener.start()

    def give(self, job: Job) -> None:
        self.job = job
        order: dict[str, Any] = {"index": job.index, "path": str(job.path)}
        if job.seal:
            order["seal"] = self._identity.sector_id(job.index).hex()
        if job.ranges:
            order["ranges"] = job.ranges
        assert self.popen.stdin is not None
        try:
            self.popen.stdin.write(json.dumps(order).encode() + b"\n")
            self.popen.stdin.flush()
        except BrokenPipeError:
            log.debug("worker is gone worker=%d", self.number)  # the listener reports it

    def _listen(self) -> None:
        out = self.popen.stdout
        assert out is not None
        for line in out:
            if not line.endswith(b"\n"):
                break  # it was killed while it spoke
            message = json.loads(line)
            if "nodes" in message:
                data = out.read(message["nodes"])
                if len(data) != message["nodes"]:
                    break
                message["nodes"] = data
            self._events.put((self, message))
        self._events.put((self, None))

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self._listener.join()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    log.debug("worker was gone worker=%d", self.number)


@dataclass
class Supervisor:
    """Runs jobs in worker processes.

    Attributes:
        on_nodes: told (job, nodes at height 4 of the sector's chunks), in the thread that calls `run`.
        on_damaged: told (job, why) of a file that cannot be one of a sector, likewise.
        observer: told of progress, likewise.
    """

    identity: Identity
    on_nodes: Callable[[Job, bytes], None]
    on_damaged: Callable[[Job, str], None]
    control: Control
    observer: Observer
    _events: queue.SimpleQueue[tuple[_Process, Any]] = field(default_factory=queue.SimpleQueue)
    _workers: dict[int, _Process] = field(default_factory=dict)
    _attempts: dict[int, int] = field(default_factory=dict)
    _deaths: int = 0
    _wanted: int = 0

    def run(self, jobs: Sequence[Job], workers: int) -> bool:
        """Do the jobs in order; False when it was stopped before the last.

        Raises:
            NoSpaceError: a disk is full.
            SealingStoppedError: workers keep dying.
            StorageError: a disk does not take what is written.
        """
        waiting = deque(jobs)
        try:
            self._wanted = min(workers, len(jobs))
            if jobs:
                self._start(0)  # compiles the kernel, if need be, for those that follow
            while self._workers:
                stopped = self.control.stopped
                try:
                    worker, message = self._events.get(block=not stopped, timeout=_LOOK_SECONDS)
                except queue.Empty:
                    if stopped:
                        return False
                    continue
                if self._workers.get(worker.number) is worker:  # not the last words of one that was ended
                    self._handle(worker, message, waiting)
            return True
        finally:
            for worker in list(self._workers.values()):
                self._end(worker)

    def _start(self, number: int) -> None:
        try:
            worker = _Process(number, self.identity, self._events)
        except OSError as error:
            raise SealingStoppedError(
                f"worker process {number + 1} cannot be started: {error.strerror}",
                remedy="Lower --workers, or raise the limits on processes and memory",
            ) from error
        self._workers[number] = worker
        self.control._add(worker.popen)

    def _end(self, worker: _Process) -> Job | None:
        """End a worker and remove what it was writing; returns its job, if it had one."""
        self._workers.pop(worker.number, None)
        self.control._remove(worker.popen)
        worker.kill()
        if worker.job is not None and worker.job.seal and not worker.job.ranges:
            worker.job.path.with_suffix(UNFINISHED).unlink(missing_ok=True)
        return worker.job

    def _handle(self, worker: _Process, message: dict[str, Any] | None, waiting: deque[Job]) -> None:
        if message is None or message.get("errno") == errno.ENOMEM:
            self._died(worker, waiting)
            return
        if "ready" in message:
            for number in range(len(self._workers), self._wanted):
                self._start(number)
            self._wanted = 0
            self._next(worker, waiting)
            return
        job = worker.job
        assert job is not None
        if "done" in message:
            self.observer(Progress(worker.number, job, message["done"]))
            return
        if "failed" in message:
            raise _failure(job, message["failed"], message["errno"])
        self._next(worker, waiting)
        if "damaged" in message:
            self.on_damaged(job, message["damaged"])
        else:
            self.on_nodes(job, message["nodes"])
        self.observer(Progress(worker.number, job, self.identity.sectors.size))

    def _next(self, worker: _Process, waiting: deque[Job]) -> None:
        worker.job = None
        if waiting:
            worker.give(waiting.popleft())
        else:
            self._end(worker)

    def _died(self, worker: _Process, waiting: deque[Job]) -> None:
        job = self._end(worker)
        log.warning(
            "worker died worker=%d sector=%s status=%s remaining=%d remedy=%r",
            worker.number,
            job.index if job else "none",
            worker.popen.returncode,
            len(self._workers),
            "if memory is short, lower --workers",
        )
        self._deaths += 1
        if job is not None:
            waiting.appendleft(job)
            self._attempts[job.index] = self._attempts.get(job.index, 0) + 1
        if self._deaths >= ATTEMPTS and (job is None or self._attempts[job.index] >= ATTEMPTS):
            raise SealingStoppedError(
                f"worker processes died {self._deaths} times"
                + (f", the last with sector {job.index} ({job.path})" if job else ""),
                remedy="Look for an out-of-memory message in the system's log, and lower --workers",
            )
        if waiting and not self._workers:
            self._start(worker.number)


def _failure(job: Job, why: str, number: int | None) -> StorageError | NoSpaceError:
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpaceError(
            f"{job.path.parents[2]} is full ({why}); sector {job.index} was not sealed",
            remedy="Free space, lower --size_in_gb, or raise --headroom",
        )
    return StorageError(f"{job.path} cannot be used: {why}", remedy="Check the disk and its permissions")
