"""Files past the page cache (O_DIRECT), where the filesystem can.

For bytes that are not read again soon: copying them through the cache costs the processor more than writing
them, and pushes other data out. Buffers must be whole pages, and offsets and sizes multiples of a page; where
a filesystem wants more than that, or cannot at all, everything goes through the cache instead.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections import deque
from pathlib import Path

_DIRECT: int = getattr(os, "O_DIRECT", 0)
_READ_STEP = 1 << 20


class Pages:
    """Buffers of `size` bytes on pages of their own, used again: a page's first touch costs more than a copy.

    Args:
        keep: how many are kept for the next who want one.
    """

    def __init__(self, size: int, keep: int) -> None:
        self.size = size
        self._free: deque[memoryview] = deque(maxlen=keep)

    def take(self) -> memoryview:
        """One with anything in it."""
        try:
            return self._free.pop()
        except IndexError:
            return memoryview(mmap.mmap(-1, self.size))

    def give(self, buffer: memoryview) -> None:
        """Take one back that nobody uses any more."""
        self._free.append(buffer)


_READ = Pages(_READ_STEP, keep=4)


def open_file(path: Path, flags: int, mode: int = 0o644) -> tuple[int, bool]:
    """Open without the page cache where that works; (descriptor, whether it does)."""
    if _DIRECT:
        try:
            return os.open(path, flags | _DIRECT | os.O_CLOEXEC, mode), True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    return os.open(path, flags | os.O_CLOEXEC, mode), False


def bypass(fd: int) -> bool:
    """Have an open file go past the page cache from now on; whether that works."""
    if not _DIRECT:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | _DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def through_cache(fd: int) -> bool:
    """Have an open file go through the page cache from now on. Returns False, as what is direct about it."""
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~_DIRECT)
    return False


def write_at(fd: int, offset: int, data: memoryview, *, direct: bool) -> bool:
    """Write all of `data`, past the page cache where `direct`; whether the file still goes past it."""
    while data:
        try:
            written = os.pwrite(fd, data, offset)
        except OSError as error:
            if error.errno != errno.EINVAL or not direct:
                raise
            direct = through_cache(fd)  # this filesystem opens files so, and then does not write them
            continue
        data, offset = data[written:], offset + written
    return direct


def read_at(path: Path, offset: int, size: int) -> bytes:
    """`size` bytes from `offset` on, or fewer where the file ends; both are multiples of a page.

    Raises:
        OSError: the file cannot be read; ESPIPE when it is no regular file.
    """
    fd, direct = open_file(path, os.O_RDONLY | os.O_NONBLOCK)
    buffer = _READ.take()
    pieces: list[bytes] = []
    try:
        while size:
            try:
                got = os.preadv(fd, [buffer[: min(size, _READ_STEP)]], offset)
            except OSError as error:
                if error.errno != errno.EINVAL or not direct:
                    raise
                direct = through_cache(fd)
                continue
            if not got:
                break
            pieces.append(bytes(buffer[:got]))
            offset, size = offset + got, size - got
    finally:
        _READ.give(buffer)
        os.close(fd)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
