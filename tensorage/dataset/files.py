"""The file layer: everything that the store and the buyer write on disk beside SQLite goes through a `Disk`.

A file is there whole or not at all: it is written under another name, flushed, renamed, and its directory
flushed. What a power cut may take is only what was not flushed:

    bytes            until `fsync` of the file
    names            until `fsync_dir` of the directory: those that were made, renamed and removed

Tests put another Disk in this one's place, which keeps no more than that, and stops at any call.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
from pathlib import Path

from .. import direct
from ..errors import StorageError

_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW
_number = itertools.count()

#: Marks a file that is not finished. Whoever has the lock of a directory may remove what a dead process left.
UNFINISHED = ".unfinished"


class Disk:
    """Calls of the operating system that change files. Every one may raise OSError."""

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        """A descriptor of the file at `path`; never of what a symbolic link there points to."""
        return os.open(path, flags | _SAFE, mode)

    def open_direct(self, path: Path, flags: int, mode: int = 0o600) -> tuple[int, bool]:
        """The same past the page cache, where that works: (descriptor, whether it does).

        If it does, offsets, lengths and addresses in memory must be multiples of 4,096.
        """
        fd = self.open(path, flags, mode)
        return fd, direct.bypass(fd)

    def close(self, fd: int) -> None:
        """Close a descriptor; flushes nothing."""
        os.close(fd)

    def write(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        """Write all of `data` at `offset`."""
        direct.write_at(fd, offset, memoryview(data).cast("B"), direct=True)

    def allocate(self, fd: int, size: int) -> None:
        """Take the space for `size` bytes now, so that a full disk shows before the work is done."""
        if not size or not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise  # the others say that this file system cannot; it will show later, then

    def resize(self, fd: int, size: int) -> None:
        """Make a file `size` bytes long."""
        os.ftruncate(fd, size)

    def protect(self, fd: int, mode: int) -> None:
        """Set the permissions of a file."""
        os.fchmod(fd, mode)

    def fsync(self, fd: int) -> None:
        """Flush a file: its bytes, its size, its permissions."""
        os.fsync(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, in place of what had it."""
        os.replace(source, target)  # noqa: PTH105 - the call that is meant

    def link(self, source: Path, target: Path) -> None:
        """Give a file another name beside the one it has; FileExistsError where something has that name."""
        os.link(source, target, follow_symlinks=False)

    def unlink(self, path: Path) -> None:
        """Remove a name, if it is there."""
        path.unlink(missing_ok=True)

    def make_directory(self, path: Path, mode: int = 0o700) -> None:
        """Make one directory, if it is not there."""
        path.mkdir(mode=mode, exist_ok=True)

    def fsync_dir(self, path: Path) -> None:
        """Flush the names in a directory."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def unfinished_name(target: Path) -> Path:
    """A name beside `target` for a file that is to become it; no two calls return one name."""
    return target.with_name(
        f".{target.name}.{os.getpid()}-{threading.get_ident()}-{next(_number)}{UNFINISHED}"
    )


def write_atomically(disk: Disk, path: Path, data: bytes, mode: int = 0o600) -> None:
    """Make `path` hold `data`, in place of what was there; it does when this returns, even after a power cut.

    Raises:
        StorageError: it cannot be written; what was there stays.
    """
    unfinished = unfinished_name(path)
    try:
        fd = disk.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            disk.write(fd, data, 0)
            disk.protect(fd, mode)
            disk.fsync(fd)
        finally:
            disk.close(fd)
        disk.rename(unfinished, path)
        disk.fsync_dir(path.parent)
    except OSError as error:
        disk.unlink(unfinished)
        raise cannot_write(path, error) from error


def make_directories(disk: Disk, path: Path, mode: int = 0o700) -> None:
    """Make a directory and those above it, so that they outlast a power cut.

    Raises:
        StorageError: one of them cannot be made.
    """
    if path.is_dir():
        return
    make_directories(disk, path.parent, mode)
    try:
        disk.make_directory(path, mode)
        disk.fsync_dir(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> StorageError:
    """What a command says when the disk refuses."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = (
        "Make room there, and run the command again" if full else "Make its directory writable for this user"
    )
    return StorageError(f"{path} cannot be written: {error.strerror or error}", remedy=remedy)
