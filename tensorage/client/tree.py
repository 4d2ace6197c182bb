"""A directory as one stream of bytes, and back: tar, in the PAX format (POSIX.1-2001).

The stream is a function of what is in the directory, so that an upload that broke off can be gone on with:
entries by name, no owners, whole seconds. It holds directories, regular files and symbolic links that stay
inside; anything else is refused, since it could not be given back.

Giving back follows the rules of Python's `tarfile.data_filter`, written out here because not every Python
3.10 has it, and is stricter: a stream that holds a path out of the directory, a device, a hard link or
anything twice is refused whole. So is one with sparse files, which are larger than the stream that they come
in, or with headers that it would take much memory to read. Links are made last, so that nothing is ever
written through one.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from ..errors import ProofError, UsageError
from .home import sync_directory

_BLOCK = tarfile.BLOCKSIZE
_PIECE = 256 * 1024
_END = bytes(2 * _BLOCK)
#: Bytes that the headers of one entry may have; a name and a link of 4,096 characters take far less.
_HEADERS = 1 << 20


def stream(root: Path) -> Iterator[bytes]:
    """The tar stream of what is in `root`, piece by piece.

    Raises:
        UsageError: it holds what cannot be put, or a file ended before its size while it was read.
        OSError: something in it cannot be read.
    """
    for path, name, found in _walk(root, ""):
        yield _header(root, path, name, found)
        if stat.S_ISREG(found.st_mode):
            yield from _content(path, found.st_size)
    yield _END


def size(root: Path) -> int:
    """Bytes of `stream(root)`, as the directory is now. Raises as it does."""
    total = len(_END)
    for path, name, found in _walk(root, ""):
        total += len(_header(root, path, name, found))
        if stat.S_ISREG(found.st_mode):
            total += -(-found.st_size // _BLOCK) * _BLOCK
    return total


def _walk(directory: Path, prefix: str) -> Iterator[tuple[Path, str, os.stat_result]]:
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
    for entry in entries:
        path, name = Path(entry.path), prefix + entry.name
        status = entry.stat(follow_symlinks=False)
        yield path, name, status
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(path, name + "/")


def _header(root: Path, path: Path, name: str, found: os.stat_result) -> bytes:
    info = tarfile.TarInfo(name)
    info.mode = stat.S_IMODE(found.st_mode) & 0o777
    info.mtime = int(found.st_mtime)
    if stat.S_ISREG(found.st_mode):
        info.size = found.st_size
    elif stat.S_ISDIR(found.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(found.st_mode):
        info.type = tarfile.SYMTYPE
        info.linkname = str(path.readlink())
        if not _stays_inside(root, path, info.linkname):
            raise UsageError(
                f"{path} is a link to {info.linkname}, out of the directory, and would not be given back",
                remedy=f"Remove it, or put it as a file: tar c {root} | tensorage put - --name NAME.tar",
            )
    else:
        raise UsageError(
            f"{path} is no file, directory or link",
            remedy=f"Remove it, or put it as a file: tar c {root} | tensorage put - --name NAME.tar",
        )
    return info.tobuf(tarfile.PAX_FORMAT)


def _content(path: Path, size: int) -> Iterator[bytes]:
    left = size
    with path.open("rb", buffering=0) as file:
        while left:
            piece = file.read(min(_PIECE, left))
            if not piece:
                raise UsageError(f"{path} became shorter while it was read", remedy="Put the directory again")
            left -= len(piece)
            yield piece
    yield bytes(-size % _BLOCK)


def _stays_inside(root: Path, link: Path, target: str) -> bool:
    """Whether a symbolic link, and what it leads to by now, stay in `root`."""
    if not target or target.startswith("/"):
        return False
    inside = os.path.realpath(root)
    depth = len(link.relative_to(root).parts) - 1
    for part in PurePosixPath(target).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return False
    led = os.path.realpath(os.path.join(os.path.realpath(link.parent), target))  # noqa: PTH118 - keeps ".."
    return led == inside or led.startswith(inside + os.sep)


def unpack(archive: BinaryIO, root: Path) -> int:
    """Lay out a tar stream in the empty directory `root`, and flush it to disk; returns how many entries.

    Raises:
        ProofError: the stream is damaged or holds what is refused; `root` then holds a part of it.
        OSError: something cannot be written.
    """
    seen: set[str] = set()
    links: list[tuple[Path, str, int]] = []
    directories: list[tuple[Path, int]] = [(root, -1)]
    metered = _Metered(archive)
    try:
        with tarfile.open(fileobj=cast("BinaryIO", metered), mode="r:", format=tarfile.PAX_FORMAT) as tar:
            while (info := metered.header(tar)) is not None:
                vars(tar)["members"] = []  # else it keeps every entry
                if info.issparse() or tar.pax_headers:
                    raise ProofError(f"entry {info.name[:200]!r} of the directory is sparse, or about others")
                path = root / _checked(info.name, seen)
                if info.isdir():
                    path.mkdir(mode=0o755)
                    directories.append((path, int(info.mtime)))
                elif info.issym():
                    links.append((path, info.linkname, int(info.mtime)))
                elif info.isreg():
                    _write(tar, info, path)
                else:
                    raise ProofError(f"entry {info.name!r} of the directory is no file, directory or link")
        _link(root, links)
        for path, mtime in reversed(directories):
            sync_directory(path)
            if mtime >= 0:
                os.utime(path, (mtime, mtime))
    except _DAMAGE as error:
        raise ProofError(f"the directory's stream is damaged: {error}") from error
    return len(seen)


#: What a stream that nobody wrote in earnest has `tarfile` and the system say: no tar, times that there are
#: not, headers of headers.
_DAMAGE = (
    *(tarfile.TarError, UnicodeError, ValueError, OverflowError, RecursionError),
    *(FileNotFoundError, NotADirectoryError),
)


class _Metered:
    """A file of which `header` reads a bounded number of bytes at a time. Other reading is not counted."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left: int | None = _HEADERS  # `tarfile.open` reads the first header

    def header(self, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
        """The next entry, None after the last."""
        self._left = _HEADERS
        try:
            return tar.next()
        finally:
            self._left = None

    def read(self, size: int) -> bytes:
        if self._left is not None:
            if not 0 <= size <= self._left:
                raise ProofError(f"the headers of an entry of the directory are over {_HEADERS} bytes")
            self._left -= size
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()


def _link(root: Path, links: list[tuple[Path, str, int]]) -> None:
    """Make symbolic links: path, target, time.

    Raises:
        ProofError: one leads out of `root`.
    """
    for path, target, mtime in links:
        if path.parent.resolve() != root.resolve() / path.parent.relative_to(root):
            raise ProofError(f"link {str(path.relative_to(root))!r} stands below another link")
        if not _stays_inside(root, path, target):
            raise ProofError(f"link {str(path.relative_to(root))!r} leads out of the directory")
        path.symlink_to(target)
        os.utime(path, (mtime, mtime), follow_symlinks=False)
    for path, target, _ in links:  # those that were made later may have changed where one leads
        if not _stays_inside(root, path, target):
            raise ProofError(f"link {str(path.relative_to(root))!r} leads out of the directory")


def _checked(name: str, seen: set[str]) -> str:
    """The name of an entry, once, with all that stands above it there already.

    Raises:
        ProofError: it leads elsewhere.
    """
    name = name.rstrip("/")
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise ProofError(f"entry {name[:200]!r} of the directory is no path inside it")
    if name in seen:
        raise ProofError(f"entry {name[:200]!r} stands twice in the directory")
    seen.add(name)
    return name


def _write(tar: tarfile.TarFile, info: tarfile.TarInfo, path: Path) -> None:
    mode = (info.mode & 0o755) | 0o600
    if not mode & 0o100:
        mode &= ~0o111
    content = tar.extractfile(info)
    assert content is not None  # a regular file has some
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb", buffering=0) as file:
        left = info.size
        while left:
            piece = content.read(min(_PIECE, left))
            if not piece:
                raise ProofError(f"entry {info.name!r} of the directory is cut")
            file.write(piece)
            left -= len(piece)
        os.fchmod(file.fileno(), mode)
        os.utime(file.fileno(), (int(info.mtime), int(info.mtime)))
        os.fsync(file.fileno())
