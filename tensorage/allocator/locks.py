"""Who may do what to a data directory, across processes. All are flock(2): they end with their holder.

fill.lock   one process at a time plans, seals, verifies and removes
hole.lock   one thread of one process at a time punches holes, or chooses which to fill; for a moment
use.lock    everybody who has the database open shares it; --restart needs it alone
serve.lock  one miner at a time answers for it; an allocation beside it is welcome
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UsageError
from .errors import BusyError
from .layout import FILL_LOCK as FILL
from .layout import HOLE_LOCK as HOLE
from .layout import SERVE_LOCK as SERVE
from .layout import USE_LOCK as USE


def _open(directory: Path, name: str) -> int:
    try:
        return os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError(
            f"{directory} cannot be written: {error.strerror}", remedy="Make it writable for this user"
        ) from error


@contextmanager
def filling(directory: Path) -> Iterator[None]:
    """The right to change what is in a data directory.

    Raises:
        BusyError: another process has it.
    """
    fd = _open(directory, FILL)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise BusyError(
                f"{directory} is being filled by another process ({holder})",
                remedy="It does the same work: let it finish, or stop it first",
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


@contextmanager
def holing(directory: Path) -> Iterator[None]:
    """The right to punch holes into sectors, or to choose which to fill. Waits for it."""
    fd = _open(directory, HOLE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def share(directory: Path) -> int:
    """Hold off a restart for as long as the descriptor that is returned is open.

    Raises:
        BusyError: the database is being dropped right now.
    """
    fd = _open(directory, USE)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise BusyError(f"{directory} is being dropped by --restart", remedy="Wait for it to end") from error
    return fd


@contextmanager
def serving(directory: Path) -> Iterator[None]:
    """The right to answer for what is in a data directory. Taken before anything there is changed.

    Raises:
        BusyError: another miner does.
    """
    fd = _open(directory, SERVE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BusyError(
            f"another miner answers for {directory}",
            remedy="Stop it first, or name another directory with --db_root_path",
        ) from error
    finally:
        os.close(fd)


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """The right to drop a database: nobody has it open.

    Raises:
        BusyError: somebody has.
    """
    fd = _open(directory, USE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BusyError(
            f"{directory} is in use by a miner or another allocation", remedy="Stop it before --restart"
        ) from error
    finally:
        os.close(fd)
