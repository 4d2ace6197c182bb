"""The directory of an owner: how it is made, who may add to it, what time it is there."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ..errors import UsageError
from .files import Disk, make_directories
from .schema import STORE_NAME, Database

HOME_VARIABLE = "TENSORAGE_DATASET_HOME"
DEFAULT_HOME = Path("~/.tensorage/datasets")
LOCK_NAME = "lock"
OPENING_NAME = "opening.lock"

S = TypeVar("S", bound="Home")
_OWN = "Name a writable directory of your own with --home"


def unix_now() -> int:
    """The time, in unix seconds."""
    return int(time.time())


class Home(Database):
    """An owner's directory, made when it is not there, and the database in it. A context manager.

    Args:
        home: the directory; mode 0700, files in it 0600.
        disk: the file layer.
        clock: unix seconds.
        rng: so many random bytes.
        waiting: told, in one line, that another process has the lock that this one waits for.

    Raises:
        UsageError: it cannot be made or used, is somebody else's, or its database is damaged or of a later
            version.
        StorageError: from any method, when it cannot be read or written.
    """

    def __init__(
        self,
        home: Path,
        *,
        disk: Disk | None = None,
        clock: Callable[[], int] = unix_now,
        rng: Callable[[int], bytes] = os.urandom,
        waiting: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.home = home.expanduser().absolute()
        self._disk = disk or Disk()
        self._clock = clock
        self._rng = rng
        self._waiting = waiting
        self._alone_lock = threading.RLock()
        self._alone_depth = 0
        _prepare(self.home, self._disk)
        with _opening(self.home):
            super().__init__(self.home / STORE_NAME)

    def __enter__(self: S) -> S:
        return self

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The right to add to logs and artifacts, across processes; waits for it. May be nested."""
        with self._alone_lock:
            if self._alone_depth:
                yield
                return
            fd = self._lock()
            self._alone_depth += 1
            try:
                yield
            finally:
                self._alone_depth -= 1
                os.close(fd)

    def _lock(self) -> int:
        fd = _open_lock(self.home / LOCK_NAME)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._waiting(f"waiting for another command that is adding to {self.home}")
                fcntl.flock(fd, fcntl.LOCK_EX)
        except BaseException:
            os.close(fd)
            raise
        return fd


@contextmanager
def _opening(home: Path) -> Iterator[None]:
    """One process after the other: SQLite makes who finds a new database being set up fail, not wait."""
    fd = _open_lock(home / OPENING_NAME)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", remedy=_OWN) from error


def _prepare(home: Path, disk: Disk) -> None:
    make_directories(disk, home)
    try:
        found = home.stat()
        if found.st_uid != os.geteuid():
            raise UsageError(f"{home} belongs to another user", remedy=_OWN)
        if stat.S_IMODE(found.st_mode) & 0o077:
            home.chmod(0o700)
    except OSError as error:
        raise UsageError(f"{home} cannot be used: {error.strerror}", remedy=_OWN) from error
