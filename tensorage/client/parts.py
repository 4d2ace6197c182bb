"""A file that is being fetched: `PATH.part` until all of it is there and right, and then PATH.

`PATH.part.json` says what it is of and how many of its bytes are on the disk for sure. An interrupted get
goes on behind those; at the end the digest of the whole decides, of what was there before too.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

from .. import direct
from ..coding.stream import SEGMENT_SIZE
from ..errors import ProofError, UsageError
from .home import BusyError, sync_directory

#: Bytes after which what was written is flushed and noted.
STEP = 32 << 20
_READ = 1 << 20
_BUFFERS = direct.Pages(1 << 20, keep=2)


class WrongDigest(ProofError):
    """What was put together is not the file, although each part of it seemed to be."""


class PartFile:
    """The unfinished file. A context manager: what is there stays there, unless it was finished.

    Args:
        path: the final name.
        id: of the file that is fetched.
        digest: SHA-256 of all of it; None where it is a range, which is not gone on with.

    Raises:
        UsageError: it cannot be written; or something else stands there.
    """

    def __init__(self, path: Path, id: bytes, size: int, digest: bytes | None) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self._note = path.with_name(path.name + ".part.json")
        self._id = id
        self._size = size
        self._digest = digest
        self._hash = sha256()
        self.at = 0
        self._noted = 0
        self._fd = -1
        self._direct = False
        self._written = 0  # bytes up to `at` are in the buffer
        self._buffer: memoryview | None = None
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="flush")
        self._flushing: Future[None] | None = None
        try:
            self._open()
        except OSError as error:
            self.close()
            raise UsageError(
                f"{self.part} cannot be written: {error.strerror}", remedy="Name another place with -o"
            ) from error
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        noted = self._read_note()
        if noted is None and self.part.exists() and self.part.stat().st_size:
            raise UsageError(
                f"{self.part} is there, and not of a get that was interrupted",
                remedy="Move it away, or name another place with -o",
            )
        self._fd = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                f"{self.path} is being fetched by another process", remedy="Let it finish, or stop it first"
            ) from error
        if not self._is_part():  # what was opened may have its final name by now
            raise BusyError(
                f"{self.path} was fetched by another process just now", remedy="See whether it is there"
            )
        if noted is not None and self._digest is not None:
            self._rehash(noted)
        os.ftruncate(self._fd, self.at)
        self._noted = self._written = self.at
        self._direct = direct.bypass(self._fd)
        self._write_note()

    def _is_part(self) -> bool:
        """Whether the file that is open and locked is still the unfinished one."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.lstat(self.part))
        except FileNotFoundError:
            return False

    def _read_note(self) -> int | None:
        """Bytes that are there for sure; 0 of another file; None when there is no note."""
        try:
            note: Any = json.loads(self._note.read_text())
            same = note["tensorage_part"] == 1 and note["id"] == self._id.hex()
            return max(0, int(note["bytes"])) if same else 0
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return 0

    def _rehash(self, noted: int) -> None:
        end = min(noted, os.fstat(self._fd).st_size, self._size)
        end -= end % SEGMENT_SIZE
        while self.at < end:
            data = os.pread(self._fd, min(_READ, end - self.at), self.at)
            if not data:
                break
            self._hash.update(data)
            self.at += len(data)

    def _write_note(self) -> None:
        note = json.dumps({"tensorage_part": 1, "id": self._id.hex(), "bytes": self._noted})
        temporary = self._note.with_suffix(".tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            os.write(fd, note.encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(self._note)

    def write(self, view: memoryview) -> None:
        """Append; now and then, what was written is flushed and noted meanwhile.

        Raises:
            UsageError: it cannot be written.
        """
        self._hash.update(view)
        if self._buffer is None:
            self._buffer = _BUFFERS.take()
        try:
            while view:
                filled = self.at - self._written
                fits = min(len(view), _BUFFERS.size - filled)
                self._buffer[filled : filled + fits] = view[:fits]
                self.at += fits
                view = view[fits:]
                if filled + fits == _BUFFERS.size:
                    self._put(self._buffer)
            if self._written - self._noted >= STEP and (self._flushing is None or self._flushing.done()):
                self._settle()
                self._flushing = self._flusher.submit(self._flush, self._written)
        except OSError as error:
            raise self._full(error) from error

    def _put(self, view: memoryview) -> None:
        """Write what was gathered."""
        if self._direct and len(view) % mmap.PAGESIZE:
            self._direct = direct.through_cache(self._fd)  # the end of the file
        self._direct = direct.write_at(self._fd, self._written, view, direct=self._direct)
        self._written += len(view)

    def _flush(self, at: int) -> None:
        os.fdatasync(self._fd)
        self._noted = at
        self._write_note()

    def _settle(self) -> None:
        """Wait for what is being flushed; OSError when it failed."""
        if self._flushing is not None:
            flushing, self._flushing = self._flushing, None
            flushing.result()

    def _full(self, error: OSError) -> UsageError:
        return UsageError(
            f"{self.part} cannot be written: {error.strerror}",
            remedy="Make room, and get it again: it goes on from here",
        )

    def check(self) -> None:
        """See that it is the whole file, and flush it.

        Raises:
            WrongDigest: it is not; it is dropped, so that the next get begins anew.
            UsageError: it cannot be written.
        """
        try:
            self._settle()
            if self._buffer is not None:
                self._put(self._buffer[: self.at - self._written])
            os.fsync(self._fd)
        except OSError as error:
            raise self._full(error) from error
        if self.at != self._size or self._digest not in (None, self._hash.digest()):
            self.drop()
            raise WrongDigest(
                f"what was put together as {self.path.name} is not the file",
                remedy="Get it again; if it happens twice, its manifest is wrong",
            )

    def finish(self) -> None:
        """Give it its name; after `check`."""
        self.part.replace(self.path)
        self._note.unlink(missing_ok=True)
        sync_directory(self.path.absolute().parent)

    def drop(self) -> None:
        """Remove it."""
        self.part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it; safe to call twice."""
        self._flusher.shutdown()
        if self._buffer is not None:
            _BUFFERS.give(self._buffer)
            self._buffer = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> PartFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._digest is None and kind is not None:
            self.drop()
        self.close()
