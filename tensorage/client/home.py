"""The client's own directory, which holds the keys of all files, and the locks in it.

Mode 0700, and everything in it 0600: whoever reads it reads the files. Locks are flock(2): they end with
their holder, so that a client that was killed leaves none behind.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..encoding import sha256
from ..errors import UsageError

CATALOG = "files.sqlite"
_LOCKS = "locks"


class BusyError(UsageError):
    """Another process is doing the same thing."""

    exit_code = 1


def sync_directory(directory: Path) -> None:
    """Flush the names in a directory to disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Home:
    """The directory, made when it is not there.

    Raises:
        UsageError: it cannot be made or used, or it is somebody else's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser()
        try:
            (self.path / _LOCKS).mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.path.stat()
            if found.st_uid != os.geteuid():
                raise UsageError(f"{self.path} belongs to another user", remedy="Name your own with --home")
            if stat.S_IMODE(found.st_mode) & 0o077:
                self.path.chmod(0o700)
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be used: {error.strerror}", remedy="Name a writable place with --home"
            ) from error

    @property
    def catalog(self) -> Path:
        """The database."""
        return self.path / CATALOG

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """The right to put a file under `name`.

        Raises:
            BusyError: another process is doing so.
        """
        lock = self.path / _LOCKS / f"{sha256(name.encode('utf-8', 'surrogateescape')).hex()[:32]}.lock"
        with locked(lock, f"{name!r} is being put by another process"):
            yield


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file at `path`, which stays there.

    Raises:
        BusyError: another process holds it; `busy` says what that means.
        UsageError: it cannot be written.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}", remedy="Make its directory writable"
        ) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                busy, remedy="Let it finish, or stop it; what it began is gone on with"
            ) from error
        yield
    finally:
        os.close(fd)
