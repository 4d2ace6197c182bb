"""What is put: a file, a pipe, or a directory as a tar stream, read once from front to end.

A file and a directory can be read again from the front, a pipe cannot. What is read is what is stored: a file
that changes meanwhile is read as any program would read it, and `changed` says so afterwards.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import UsageError
from . import tree
from .catalog import Kind

STDIN = "stdin"


class Source:
    """Bytes to put. A context manager.

    Attributes:
        kind: how it is given back.
        size: bytes in all, None when nobody knows; for a directory, of the tar stream as it is now.
        again: whether the same can be opened and read once more.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        size: int | None,
        fill: Callable[[memoryview], int],
        close: Callable[[], None],
    ) -> None:
        self.name = name
        self.kind = kind
        self.size = size
        self.again = name != STDIN and size is not None
        self._fill = fill
        self._close = close

    def read_into(self, view: memoryview) -> int:
        """Fill `view`; returns how many bytes there were, fewer than its length only at the end.

        Raises:
            UsageError: it cannot be read.
        """
        got = 0
        try:
            while got < len(view):
                read = self._fill(view[got:])
                if not read:
                    break
                got += read
        except OSError as error:
            raise UsageError(f"{self.name} cannot be read: {error.strerror}") from error
        return got

    def close(self) -> None:
        """Close it; safe to call twice."""
        self._close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source(path: Path) -> Source:
    """What stands at `path`; stdin for `-`.

    Raises:
        UsageError: there is nothing, or nothing that can be put.
    """
    if str(path) == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("there is nothing on stdin", remedy="Pipe something in, or name a file")
        return _descriptor(STDIN, os.dup(sys.stdin.fileno()))
    try:
        if path.is_dir():
            return _directory(path)
        return _descriptor(str(path), os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", remedy="Name a file, or -") from error


def _descriptor(name: str, fd: int) -> Source:
    file = os.fdopen(fd, "rb", buffering=0)
    found = os.fstat(fd)
    size = found.st_size if stat.S_ISREG(found.st_mode) else None
    if size is not None:
        size -= min(size, os.lseek(fd, 0, os.SEEK_CUR))  # a shell may have read some of stdin's file already
    return Source(name, "file", size, lambda view: file.readinto(view) or 0, file.close)


def _directory(path: Path) -> Source:
    pieces = _Pieces(tree.stream(path))
    return Source(f"{path}", "directory", tree.size(path), pieces.read_into, pieces.close)


class _Pieces:
    """Pieces of any size as one stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def read_into(self, view: memoryview) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        self._pieces = iter(())
        self._left = memoryview(b"")
