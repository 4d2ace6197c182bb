"""A disk that keeps only what was flushed, and fails when it is told to.

The power goes at the n-th call: that call and all later ones do nothing but raise PowerCut. `lose_power` then
leaves on the real disk what a file system owes: the bytes of a file as they were at its last fsync (none
before the first), and the names in a directory as they were at the directory's last fsync. Files of SQLite
stay: it flushes by itself.
"""

import errno
import itertools
import os
import shutil
from pathlib import Path

from tensorage.dataset.files import Disk


class PowerCut(BaseException):
    """The machine is off."""


class FaultyDisk(Disk):
    """Everything below `root` as it is now counts as flushed.

    Args:
        cut_at: the call, counted from 0, at which the power goes.
        full_at: the call that finds no space.
    """

    def __init__(self, root: Path, *, cut_at: int | None = None, full_at: int | None = None) -> None:
        self.root = root
        self.cut_at = cut_at
        self.full_at = full_at
        self.calls: list[str] = []
        self._numbers = itertools.count()
        self._files: dict[int, int] = {}  # inode -> our number of the file that has it now
        self._bytes: dict[int, bytes] = {}  # our number -> flushed bytes
        self._names: dict[
            Path, dict[str, int | None]
        ] = {}  # directory -> name -> number, None of a directory
        for directory, _, names in os.walk(root):
            for name in names:
                path = Path(directory, name)
                self._bytes[self._number(path)] = b"" if _is_sqlite(name) else path.read_bytes()
            self._names[Path(directory)] = self._listed(Path(directory))

    def _number(self, path: Path) -> int:
        inode = path.lstat().st_ino
        if inode not in self._files:
            self._files[inode] = next(self._numbers)
        return self._files[inode]

    def _listed(self, directory: Path) -> dict[str, int | None]:
        return {path.name: None if path.is_dir() else self._number(path) for path in directory.iterdir()}

    def _call(self, name: str, *, takes_space: bool = False) -> None:
        number = len(self.calls)
        if self.cut_at is not None and number >= self.cut_at:
            raise PowerCut
        self.calls.append(name)
        if takes_space and number == self.full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open(self, path, flags, mode=0o600):
        self._call(f"open {path.name}", takes_space=True)
        is_new = not os.path.lexists(path)
        fd = super().open(path, flags, mode)
        if is_new:
            self._files[os.fstat(fd).st_ino] = next(self._numbers)  # inodes are used again
        return fd

    def write(self, fd, data, offset):
        self._call("write", takes_space=True)
        super().write(fd, data, offset)

    def allocate(self, fd, size):
        self._call("allocate", takes_space=True)
        super().allocate(fd, size)

    def resize(self, fd, size):
        self._call("resize")
        super().resize(fd, size)

    def protect(self, fd, mode):
        self._call("protect")
        super().protect(fd, mode)

    def fsync(self, fd):
        self._call("fsync", takes_space=True)
        super().fsync(fd)
        self._bytes[self._files[os.fstat(fd).st_ino]] = Path(f"/proc/self/fd/{fd}").read_bytes()

    def rename(self, source, target):
        self._call(f"rename to {target.name}", takes_space=True)
        super().rename(source, target)

    def unlink(self, path):
        self._call(f"unlink {path.name}")
        super().unlink(path)

    def make_directory(self, path, mode=0o700):
        self._call(f"mkdir {path.name}", takes_space=True)
        super().make_directory(path, mode)

    def fsync_dir(self, path):
        self._call(f"fsync_dir {path.name}")
        super().fsync_dir(path)
        self._names[path] = self._listed(path)

    def lose_power(self) -> None:
        """Leave what was flushed, and nothing else."""
        self._restore(self.root)

    def _restore(self, directory: Path) -> None:
        kept = self._names.get(directory, {})
        for path in list(directory.iterdir()):
            if _is_sqlite(path.name):
                continue
            if path.is_dir() and path.name in kept:
                self._restore(path)
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        for name, number in kept.items():
            path = directory / name
            if number is None:
                path.mkdir(exist_ok=True)
            elif not _is_sqlite(name):
                path.write_bytes(self._bytes.get(number, b""))


def _is_sqlite(name: str) -> bool:
    return ".sqlite" in name or name.endswith("lock")
