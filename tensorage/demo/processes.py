"""The processes of the demo: each leads a process group of its own, writes its own log, and ends with us.

Whatever ends the demo (its own end, an error, Ctrl-C), `stop` runs: SIGTERM to every group, and SIGKILL to
what is left of it after a few seconds, workers of the process included.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ..errors import TensorageError

STOP_SECONDS = 6.0  # a service promises to leave within 5
_POLL_SECONDS = 0.05


class ProcessEndedError(TensorageError):
    """A process ended that should not have, or with an error."""


@dataclass(frozen=True)
class Child:
    """One process and where it logs."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def ended(self) -> ProcessEndedError:
        """The error that says how it ended and what it said last."""
        last = last_line(self.log)
        code = self.process.returncode
        how = (
            f"was ended by signal {-code}"
            if code is not None and code < 0
            else f"ended with exit code {code}"
        )
        return ProcessEndedError(f"{self.name} {how}: {last}", remedy=f"Its log is {self.log}")


class Processes:
    """Starts `python ...` children and stops them all on the way out. A context manager.

    Args:
        logs: directory for one `<name>.log` each.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []
        # Many numerical threads in many processes only stand in each other's way.
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

    def __enter__(self) -> Processes:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str, arguments: Sequence[str]) -> Child:
        """Start `python <arguments>` in the background."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def check(self) -> None:
        """Check that every child still runs or has ended well.

        Raises:
            ProcessEndedError: one ended with an error.
        """
        for child in self._children:
            if child.process.poll() not in (None, 0):
                raise child.ended()

    def end(self, child: Child, how: signal.Signals, seconds: float = STOP_SECONDS) -> None:
        """End one child's group by a signal, by SIGKILL what is left of it, and watch over it no more."""
        self._children.remove(child)
        _end([child], how, seconds)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End every process group that is left; returns when none is."""
        with _deaf():
            _end(self._children, signal.SIGTERM, seconds)
            self._children.clear()


def _end(children: Sequence[Child], how: signal.Signals, seconds: float) -> None:
    for child in children:
        _signal(child, how)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(_group_lives(child) for child in children):
        time.sleep(_POLL_SECONDS)
    for child in children:
        _signal(child, signal.SIGKILL)
        child.process.wait()


@contextmanager
def _deaf() -> Iterator[None]:
    """Hear no signal that would end us before the others have ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(child: Child, number: signal.Signals) -> None:
    """Send to the whole group; it may be gone already."""
    try:
        os.killpg(child.process.pid, number)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        return


def _group_lives(child: Child) -> bool:
    child.process.poll()  # takes a zombie off the group
    try:
        os.killpg(child.process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
