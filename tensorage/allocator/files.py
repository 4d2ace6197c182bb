"""Sector files: flat, allocated before they are written, and there either whole or not at all.

A file is written under another name, flushed, renamed, and its directory flushed. Where the filesystem can,
the page cache is left out (O_DIRECT): the bytes are not read again soon, and copying them through it would
cost the processor time that sealing wants and push other data out.

Imported by worker processes: standard library and the core only.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from .. import merkle, seal
from ..direct import open_file, write_at
from ..seal import Profile
from .layout import UNFINISHED

_GROUP_HEIGHT = 4
_PUNCH_HOLE_KEEP_SIZE = 0x03  # flags of fallocate(2)


def sync_directory(directory: Path) -> None:
    """Flush the names in a directory to disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(directory: Path) -> None:
    """Make a directory and those above it, so that they outlast a power cut."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)


def group_nodes(chunk: memoryview | bytes) -> bytes:
    """The nodes at height 4 of a chunk, one after the other: 64 of 32 bytes."""
    return b"".join(merkle.level(merkle.leaf_hashes(chunk, seal.LEAF_SIZE), _GROUP_HEIGHT))


class NewFile:
    """A file that is written under another name, allocated whole before the first byte.

    Raises:
        OSError: from any method; ENOSPC already from the constructor.
    """

    def __init__(self, path: Path, unfinished: Path, size: int) -> None:
        self.path = path
        self._unfinished = unfinished
        make_directory(path.parent)
        self._fd, self._direct = open_file(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            _allocate(self._fd, size)
        except BaseException:
            self.discard()
            raise

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of `data`, which is aligned to pages, at `offset`."""
        self._direct = write_at(self._fd, offset, data, direct=self._direct)

    def finish(self) -> None:
        """Flush, and give the file its name, which its directory has yet to flush."""
        os.fsync(self._fd)
        if not self._direct and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(self._fd)
        self._fd = -1
        self._unfinished.replace(self.path)

    def discard(self) -> None:
        """Drop what was written, if it was not finished."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._unfinished.unlink(missing_ok=True)


class SectorWriter(NewFile):
    """Writes one sector file. `finish` puts it in its place; until then, `discard` leaves no trace."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(path, path.with_suffix(UNFINISHED), size)

    def finish(self) -> None:
        """Flush, give the file its name, and flush that too."""
        super().finish()
        sync_directory(self.path.parent)


def _allocate(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:
        os.ftruncate(fd, size)


def read_chunks(path: Path, profile: Profile) -> Iterator[memoryview]:
    """The chunks of a sector file in order; each view is valid until the next.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has not the size of a sector.
    """
    fd, direct = open_file(path, os.O_RDONLY | os.O_NONBLOCK)  # whatever stands there must not block
    try:
        if (size := os.fstat(fd).st_size) != profile.size:
            raise ValueError(f"has {size} bytes, not {profile.size}")
        with mmap.mmap(-1, seal.CHUNK_SIZE) as memory, memoryview(memory) as view:
            for chunk in range(profile.chunks):
                offset = chunk * seal.CHUNK_SIZE
                got = 0
                while got < seal.CHUNK_SIZE:
                    with view[got:] as rest:
                        read = os.preadv(fd, [rest], offset + got)
                    if not read:
                        raise ValueError(f"ends at byte {offset + got}")
                    got += read
                if not direct and hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(fd, offset, seal.CHUNK_SIZE, os.POSIX_FADV_DONTNEED)
                yield view
    finally:
        os.close(fd)


def write_ranges(path: Path, size: int, ranges: Iterable[tuple[int, memoryview]]) -> None:
    """Write into a file that is there, and flush it: (offset, bytes), both aligned to pages.

    Raises:
        OSError: the file is not there, or the disk does not take them.
        ValueError: it has not `size` bytes.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if (is_size := os.fstat(fd).st_size) != size:
            raise ValueError(f"has {is_size} bytes, not {size}")
        for offset, data in ranges:
            left, at = data, offset
            while left:
                written = os.pwrite(fd, left, at)
                left, at = left[written:], at + written
        os.fsync(fd)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def punch(fd: int, offset: int, length: int) -> bool:
    """Give the space of a part of a file back to the disk; the part reads as zeros and the size stays.

    Returns:
        False where the filesystem cannot; nothing has changed then.

    Raises:
        OSError: it could, and refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "fallocate"):
        return False
    call = libc.fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if call(fd, _PUNCH_HOLE_KEEP_SIZE, offset, length) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number))
