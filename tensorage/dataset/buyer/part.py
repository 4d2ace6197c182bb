"""The file that a download fills: OUT.part, with OUT.part.json beside it that says what it is a part of.

Rules. Nothing stands under the final name before all of it was checked and flushed. What a `.part` holds is
believed only by its hashes, chunk by chunk, however the last run ended. A `.part` of something else is
dropped; what is none of a buyer's is left alone. No symbolic link is followed, no hard link written to, and
one process at a time fills a `.part`.

Whole chunks go past the page cache: nothing reads them again soon.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ... import merkle
from ...direct import Pages
from ...errors import StorageError, UsageError
from ..chunks import CHUNK_SIZE, chunk_count, chunk_span
from ..files import Disk, cannot_write, write_atomically
from .target import (
    VALIDATOR,
    Goal,
    TakenError,
    check_part,
    hash_descriptor,
    part_path,
    read_sidecar,
    sidecar_path,
)

_CHECKERS = 2
_PAGE = 4096
#: What a file system says that has no hard links, or not of this file.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK)
_ZEROS = bytes(CHUNK_SIZE)
#: Buffers of one chunk.
PAGES = Pages(CHUNK_SIZE, keep=4)


class BusyError(UsageError):
    """Another process fills the same file."""

    exit_code = 1


class Part:
    """A `.part`, opened and locked. A context manager; the threads of a download share it.

    Args:
        force: fill it even if what stands there is another file.

    Attributes:
        found: bytes that were there when it was opened, 0 where it was made or dropped.
        validator: the seller's word for the state of its file, where chunks cannot be checked.

    Raises:
        BusyError: another process fills it.
        TakenError, UsageError: what stands there is no file of ours.
        StorageError: the disk refuses.
    """

    def __init__(self, out: Path, goal: Goal, disk: Disk, *, force: bool = False) -> None:
        self.out = out
        self.goal = goal
        self.found = 0
        self.validator: str | None = None
        self._disk = disk
        self.path = part_path(out)
        self._sidecar = sidecar_path(out)
        self._fd = self._open()
        self._direct: int | None = None
        try:
            check_part(out, force=force)
            self._direct = self._open_direct()
            sidecar = read_sidecar(self._sidecar) or {}
            if {name: value for name, value in sidecar.items() if name != VALIDATOR} == goal.sidecar():
                self.found = os.fstat(self._fd).st_size
                validator = sidecar.get(VALIDATOR)
                self.validator = validator if isinstance(validator, str) else None
            else:
                disk.resize(self._fd, 0)
                self._write_sidecar()
        except OSError as error:
            self.close()
            raise cannot_write(self.path, error) from error
        except BaseException:
            self.close()
            raise

    def _open_direct(self) -> int | None:
        """The same file past the page cache; None where that does not work."""
        fd, works = self._disk.open_direct(self.path, os.O_RDWR)
        if works and os.path.samestat(os.fstat(fd), os.fstat(self._fd)):
            return fd
        self._disk.close(fd)
        return None

    def _open(self) -> int:
        for _ in range(3):
            try:
                fd = self._disk.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                    raise UsageError(
                        f"{self.path} is no regular file", remedy="Remove it, or name another --out"
                    ) from error
                raise cannot_write(self.path, error) from error
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(fd)
                self._check_own(status)
                if os.path.samestat(status, self.path.lstat()):
                    return fd
            except BlockingIOError:
                self._disk.close(fd)
                raise BusyError(
                    f"{self.path} is being filled by another process", remedy="Let it finish, or stop it"
                ) from None
            except FileNotFoundError:
                pass  # the one that filled it has just finished
            except OSError as error:  # a file system without locks
                self._disk.close(fd)
                raise cannot_write(self.path, error) from error
            except BaseException:
                self._disk.close(fd)
                raise
            self._disk.close(fd)
        raise BusyError(f"{self.path} comes and goes", remedy="Let the other process finish, or stop it")

    def _check_own(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or status.st_uid != os.geteuid():
            raise UsageError(
                f"{self.path} is no file of its own, of this user",
                remedy="Remove it, or name another --out",
            )

    def _write_sidecar(self) -> None:
        found = self.goal.sidecar() | ({} if self.validator is None else {VALIDATOR: self.validator})
        write_atomically(self._disk, self._sidecar, json.dumps(found).encode())

    def note(self, validator: str | None) -> None:
        """Keep the seller's word for the state of its file, beside what comes of it.

        Raises:
            StorageError: the disk refuses.
        """
        if validator != self.validator:
            self.validator = validator
            self._write_sidecar()

    def allocate(self) -> None:
        """Take the space for the whole file.

        Raises:
            StorageError: the disk is full.
        """
        try:
            if os.fstat(self._fd).st_size > self.goal.size:
                self._disk.resize(self._fd, self.goal.size)
            self._disk.allocate(self._fd, self.goal.size)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def check(
        self, leaves: Sequence[bytes], progress: Callable[[int], None], *, stopped: Callable[[], bool]
    ) -> list[bool]:
        """Which chunks are there and right.

        Args:
            leaves: the checked leaves of the file.
            progress: told of bytes that are there and right, from several threads.
            stopped: looked at before every chunk; the rest counts as missing.
        """
        count = chunk_count(self.goal.size)
        if not self.found:
            return [False] * count
        zero_leaf = merkle.leaf_hash(_ZEROS)

        def look(first: int) -> list[tuple[int, bool]]:
            buffer = PAGES.take()
            seen = []
            for index in range(first, count, _CHECKERS):
                if stopped():
                    break
                start, end = chunk_span(index, self.goal.size)
                view = buffer[: end - start]
                if self.read(start, view) < len(view):
                    good = False
                elif _blank(view):
                    good = leaves[index] == zero_leaf
                else:
                    good = merkle.leaf_hash(view) == leaves[index]
                seen.append((index, good))
                if good:
                    progress(end - start)
            PAGES.give(buffer)
            return seen

        with ThreadPoolExecutor(_CHECKERS) as threads:
            have = [False] * count
            for seen in threads.map(look, range(_CHECKERS)):
                for index, good in seen:
                    have[index] = good
        return have

    def read(self, offset: int, view: memoryview) -> int:
        """Fill `view` from `offset`; returns how many bytes there were.

        Raises:
            StorageError: the disk refuses.
        """
        got = 0
        fd = self._fd if self._direct is None or len(view) % _PAGE else self._direct
        try:
            while got < len(view):
                try:
                    read = os.preadv(fd, [view[got:]], offset + got)
                except OSError as error:
                    if error.errno != errno.EINVAL or fd == self._fd:
                        raise
                    fd = self._fd  # which reads from anywhere to anywhere
                    continue
                if not read:
                    break
                got += read
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read: {error.strerror}") from error
        return got

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of `data` at `offset`.

        Raises:
            StorageError: the disk refuses.
        """
        if offset + len(data) > self.goal.size:
            raise ValueError(f"{len(data)} bytes at {offset} of a file of {self.goal.size}")
        try:
            whole = self._direct is not None and not len(data) % _PAGE
            self._disk.write(self._direct if whole and self._direct is not None else self._fd, data, offset)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def resize(self, size: int) -> None:
        """Keep the first `size` bytes.

        Raises:
            StorageError: the disk refuses.
        """
        try:
            self._disk.resize(self._fd, size)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    @property
    def size(self) -> int:
        """Bytes that the file has now."""
        return os.fstat(self._fd).st_size

    def hash(self, stopped: Callable[[], bool]) -> bytes:
        """The SHA-256 of what is there, if it is as long as it shall be.

        Raises:
            StorageError: it is not, or cannot be read.
        """
        try:
            return hash_descriptor(self._fd, self.goal.size, stopped)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read: {error.strerror}") from error

    def finish(self, *, force: bool) -> None:
        """Flush the file and give it its name; whoever calls has checked all of it.

        Raises:
            TakenError: something has come to stand under that name meanwhile.
            StorageError: the disk refuses.
        """
        try:
            self._disk.fsync(self._fd)
            if force or not self._link():
                self._disk.rename(self.path, self.out)
            self._disk.fsync_dir(self.out.parent)
            self._disk.unlink(self._sidecar)
        except OSError as error:
            raise cannot_write(self.out, error) from error

    def _link(self) -> bool:
        """Give the file its name only if nothing has it; False where the file system cannot do that."""
        taken = TakenError(
            f"{self.out} has come into being meanwhile", remedy="Replace it with --force, or name another"
        )
        try:
            self._disk.link(self.path, self.out)
        except FileExistsError:
            raise taken from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.lexists(self.out):
                raise taken from None
            return False
        self._disk.unlink(self.path)
        return True

    def drop(self) -> None:
        """Remove the `.part`: what it holds can become nothing."""
        self._disk.unlink(self.path)
        self._disk.unlink(self._sidecar)

    def close(self) -> None:
        """Close it, and let others have it."""
        for fd in (self._direct, self._fd):
            if fd is not None and fd >= 0:
                self._disk.close(fd)
        self._direct, self._fd = None, -1

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _blank(view: memoryview) -> bool:
    """Whether a whole chunk is zeros: what was allocated and never written, most often."""
    return len(view) == CHUNK_SIZE and view[:64] == _ZEROS[:64] and bytes(view) == _ZEROS
