"""The files that versions are made of, kept by their hash.

    artifacts/<first 2 hex digits>/<SHA-256 of the file>            mode 0400
    artifacts/<first 2 hex digits>/<SHA-256 of the file>.chunks     the 32-byte leaves of its chunks

1. A file is copied and hashed in one pass; the copy is flushed and has its name before anything refers to it.
2. What is served was hashed by this process since it last changed: a file that was edited behind the store's
   back is found when it is opened, and never served.
3. Only regular files are read, and never through a symbolic link at their end.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..encoding import HASH_SIZE
from ..errors import ProofError, StorageError, UsageError
from .chunks import Digest, check_leaves, chunk_count, split_leaves
from .files import UNFINISHED, Disk, cannot_write, make_directories, unfinished_name, write_atomically
from .manifest import File
from .pipeline import SourceChangedError, Tell, UnreadableError, copy_file, hash_file, untold

LEAVES_SUFFIX = ".chunks"
_KEPT_LEAVES = 16  # lists in memory; of a 10 GiB file one has 320 KiB

_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class ScarceError(StorageError):
    """No descriptor or memory is left to open a file with, which says nothing of the file."""


#: What says that a file is the one that was hashed: device, inode, size, times of change in nanoseconds.
_Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Artifact:
    """The file of a version in the store.

    Attributes:
        id, seq: the version. `name`: what the file was called in its bundle.
        path: where it lies. Open it with `Store.open_artifact`, which checks it.
        size: bytes; `sha256` of them, `chunk_root` over their chunks, `leaves` of which that is the root.
        manifest_files: all files of the version, in the order of their names.
    """

    id: str
    seq: int
    name: str
    path: Path
    size: int
    sha256: bytes
    chunk_root: bytes
    manifest_hash: bytes
    manifest_files: tuple[File, ...] = field(repr=False)
    artifacts: Artifacts = field(repr=False, compare=False)

    @property
    def leaves(self) -> tuple[bytes, ...]:
        """The leaves of the chunks, checked against the chunk root.

        Raises:
            StorageError: the list is missing or is not that of the signed root.
        """
        return self.artifacts.leaves(self.sha256, self.size, self.chunk_root)


@dataclass(frozen=True, slots=True)
class Copy:
    """A file that was copied into the store and has no name there yet."""

    digest: Digest
    unfinished: Path
    artifacts: Artifacts = field(repr=False)

    def keep(self) -> Path:
        """Put it in its place; it is there for good when this returns. Where it is."""
        return self.artifacts.keep(self)


class Artifacts:
    """A directory of artifacts. Any thread may call; `copying` and `sweep` need the lock of the store."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self.directory = directory
        self._disk = disk
        self._lock = threading.Lock()
        self._good: dict[bytes, _Stamp] = {}
        self._checking: dict[bytes, threading.Lock] = {}
        self._leaves: OrderedDict[bytes, tuple[bytes, ...]] = OrderedDict()

    def path(self, sha256: bytes) -> Path:
        """Where the file with that hash lies, if it is there."""
        name = sha256.hex()
        return self.directory / name[:2] / name

    def sweep(self) -> None:
        """Remove what processes that died did not finish."""
        for left in self.directory.glob(f"**/.*{UNFINISHED}"):
            self._disk.unlink(left)

    @contextmanager
    def copying(self, source: Path, tell: Tell = untold) -> Iterator[Copy]:
        """A copy of a file, hashed, which is given up again at the end unless it was kept.

        Args:
            tell: hears of so many more bytes that were read.

        Raises:
            UsageError: the source is missing, no regular file, or changes while it is read.
            StorageError: the disk does not take the copy.
        """
        unfinished = unfinished_name(self.directory / "copy")
        make_directories(self._disk, self.directory)
        fd, before = open_regular(source)
        try:
            digest = self._copy(fd, before.st_size, unfinished, tell)
            if _stamp(os.fstat(fd)) != _stamp(before):
                raise changed(source)
            copy = Copy(digest, unfinished, self)
            yield copy
        except SourceChangedError as error:
            raise changed(source) from error
        except UnreadableError as error:
            raise UsageError(
                f"{source} cannot be read: {error.strerror}", remedy="Look at its disk"
            ) from error
        except OSError as error:
            raise cannot_write(unfinished, error) from error
        finally:
            os.close(fd)
            self._disk.unlink(unfinished)

    def _copy(self, fd: int, size: int, unfinished: Path, tell: Tell) -> Digest:
        target, _ = self._disk.open_direct(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            digest = copy_file(fd, size, self._disk, target, tell)
            self._disk.protect(target, 0o400)
            self._disk.fsync(target)
        finally:
            self._disk.close(target)
        return digest

    def keep(self, copy: Copy) -> Path:
        """Put a copy in its place; it is there for good when this returns. Where it is."""
        final = self.path(copy.digest.sha256)
        make_directories(self._disk, final.parent)
        # The list first: where the file is, its list is.
        write_atomically(self._disk, _leaves_path(final), b"".join(copy.digest.leaves), 0o400)
        try:
            self._disk.rename(copy.unfinished, final)
            self._disk.fsync_dir(final.parent)
            self._disk.fsync_dir(self.directory)
        except OSError as error:
            raise cannot_write(final, error) from error
        return final

    def open(self, sha256: bytes, size: int) -> tuple[int, os.stat_result]:
        """The file with that hash, hashed unless it has been since it last changed: (descriptor, its state).

        Raises:
            StorageError: it is missing, or other bytes are there.
            ScarceError: that cannot be told at the moment.
        """
        path = self.path(sha256)
        try:
            fd, found = open_regular(path)
        except UsageError as error:
            raise StorageError(f"artifact {error.message}", remedy=_REMEDY) from error
        try:
            with self._lock:
                checking = self._checking.setdefault(sha256, threading.Lock())
            with checking:
                if self._good.get(sha256) != _stamp(found):
                    self._rehash(path, fd, found, sha256, size)
        except BaseException:
            os.close(fd)
            raise
        return fd, found

    def _rehash(self, path: Path, fd: int, found: os.stat_result, sha256: bytes, size: int) -> None:
        try:
            same = found.st_size == size and hash_file(fd, size) == sha256
            after = _stamp(os.fstat(fd))
        except SourceChangedError:
            same = False
        except OSError as error:
            if error.errno in _SCARCE:
                raise ScarceError(f"{path} cannot be read now: {error.strerror}") from error
            raise StorageError(f"artifact {path} cannot be read: {error.strerror}", remedy=_REMEDY) from error
        if not same or after != _stamp(found):
            self._good.pop(sha256, None)
            raise StorageError(
                f"artifact {path} was changed after it was signed, and is not served", remedy=_REMEDY
            )
        self._good[sha256] = after

    def leaves(self, sha256: bytes, size: int, chunk_root: bytes) -> tuple[bytes, ...]:
        """The leaves of a file, checked against its chunk root.

        Raises:
            StorageError: the list is missing, or another.
        """
        with self._lock:
            if known := self._leaves.get(chunk_root):
                self._leaves.move_to_end(chunk_root)
                return known
        path = _leaves_path(self.path(sha256))
        try:
            fd, _ = open_regular(path)
            with open(fd, "rb") as file:  # noqa: PTH123 - the descriptor that was checked
                leaves = split_leaves(file.read(chunk_count(size) * HASH_SIZE + 1))
            check_leaves(leaves, size, chunk_root)
        except (UsageError, OSError, ProofError) as error:
            raise StorageError(f"chunk list {path} cannot be used: {error}", remedy=_REMEDY) from error
        with self._lock:
            self._leaves[chunk_root] = leaves
            while len(self._leaves) > _KEPT_LEAVES:
                self._leaves.popitem(last=False)
        return leaves


_REMEDY = "Put it back from its bundle with: dataset version ID --bundle DIR --repair"


def open_regular(path: Path) -> tuple[int, os.stat_result]:
    """Open a regular file to read it: (descriptor, what it is).

    Raises:
        UsageError: there is none, it cannot be read, or it is a symbolic link, a pipe, a directory, a device.
        ScarceError: nothing can be opened at the moment.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _SCARCE:
            raise ScarceError(
                f"{path} cannot be opened now: {error.strerror}", remedy="Try again when less is running"
            ) from error
        kind = "is a symbolic link" if path.is_symlink() else f"cannot be read: {error.strerror}"
        raise UsageError(f"{path} {kind}", remedy="Put a regular file there") from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise UsageError(f"{path} is no regular file", remedy="Put a regular file there")
    return fd, found


def changed(path: Path) -> UsageError:
    """What a command says of a file that is being written."""
    return UsageError(
        f"{path} changed while it was being read", remedy="Run the command again when nothing writes to it"
    )


def _leaves_path(path: Path) -> Path:
    return path.with_name(path.name + LEAVES_SUFFIX)


def _stamp(found: os.stat_result) -> _Stamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
