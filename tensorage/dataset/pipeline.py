"""Hashing and copying a file in one pass, at the speed of the processor's SHA-256.

One thread reads blocks of 4 MiB into a ring of buffers; for each, three others hash the whole, hash the
chunks and write the copy. hashlib and the system's calls let go of the interpreter lock, so all of them run
at once, and memory stays at the ring's. The copy is written past the page cache, where that works: filling
the cache may well cost more than writing to the disk. What the cache holds of the source is read from there,
the rest past it.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from hashlib import sha256

from .. import direct, merkle
from .chunks import CHUNK_SIZE, Digest
from .files import Disk

BLOCK_SIZE = 4 * CHUNK_SIZE
_BUFFERS = 5
_PAGE = 4096
_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)

#: Takes a block, how many bytes of it count, and its offset; the block goes on to a whole page.
_Sink = Callable[[memoryview, int, int], None]


#: Hears of so many more bytes that were read, for a progress bar.
Tell = Callable[[int], None]


def untold(size: int) -> None:
    """For who does not want to know."""


class SourceChangedError(Exception):
    """A file has fewer bytes than it had when it was opened."""


class UnreadableError(OSError):
    """It is the source that cannot be read, not the copy that cannot be written."""


def hash_file(fd: int, size: int, tell: Tell = untold) -> bytes:
    """The SHA-256 of the first `size` bytes of an open file; `tell` hears of every so many bytes.

    Raises:
        SourceChangedError: it ends before.
        OSError: it cannot be read.
    """
    hashing = _Hashing()
    _run(fd, size, [hashing.whole], tell)
    return hashing.digest(size).sha256


def digest_file(fd: int, size: int, tell: Tell = untold) -> Digest:
    """What the first `size` bytes of an open file hash to, as a whole and by chunks.

    Raises:
        SourceChangedError, OSError: as `hash_file`.
    """
    hashing = _Hashing()
    _run(fd, size, [hashing.whole, hashing.chunks], tell)
    return hashing.digest(size)


def copy_file(fd: int, size: int, disk: Disk, target: int, tell: Tell = untold) -> Digest:
    """Copy the first `size` bytes of an open file to an empty one; what they hash to. Flushes nothing.

    Raises:
        SourceChangedError, OSError: as `hash_file`; OSError also when the copy cannot be written.
    """
    hashing = _Hashing()
    disk.allocate(target, size)

    def write(block: memoryview, length: int, offset: int) -> None:
        disk.write(target, block[: -(-length // _PAGE) * _PAGE], offset)

    _run(fd, size, [hashing.whole, hashing.chunks, write], tell)
    if size % _PAGE:
        disk.resize(target, size)
    return hashing.digest(size)


class _Hashing:
    """Both hashes of a file, each fed by a thread of its own."""

    def __init__(self) -> None:
        self._whole = sha256()
        self._leaves: list[bytes] = []

    def whole(self, block: memoryview, length: int, offset: int) -> None:
        self._whole.update(block[:length])

    def chunks(self, block: memoryview, length: int, offset: int) -> None:
        for start in range(0, length, CHUNK_SIZE):
            self._leaves.append(merkle.leaf_hash(block[start : min(start + CHUNK_SIZE, length)]))

    def digest(self, size: int) -> Digest:
        return Digest(self._whole.digest(), size, tuple(self._leaves))


def _run(fd: int, size: int, sinks: Sequence[_Sink], tell: Tell) -> None:
    """Give all blocks of a file to every sink, in order."""
    room = min(BLOCK_SIZE, max(_PAGE, -(-size // _PAGE) * _PAGE))
    count = 1 if size <= BLOCK_SIZE else _BUFFERS
    with ExitStack() as stack:
        read = stack.enter_context(_reader(fd))
        buffers = [memoryview(mmap.mmap(-1, room)) for _ in range(count)]  # at addresses that O_DIRECT takes
        if count == 1:
            if size:
                _fill(read, buffers[0], size, 0)
                tell(size)
                for sink in sinks:
                    sink(buffers[0], size, 0)
            return
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in sinks]
        busy: deque[list[Future[None]]] = deque()
        for number, offset in enumerate(range(0, size, BLOCK_SIZE)):
            if len(busy) == count:
                _finish(busy.popleft())
            block, length = buffers[number % count], min(BLOCK_SIZE, size - offset)
            _fill(read, block, length, offset)
            tell(length)
            busy.append(
                [
                    thread.submit(sink, block, length, offset)
                    for thread, sink in zip(threads, sinks, strict=True)
                ]
            )
        while busy:
            _finish(busy.popleft())


def _finish(futures: Sequence[Future[None]]) -> None:
    for future in futures:
        future.result()


_Read = Callable[[memoryview, int], int]


@contextmanager
def _reader(fd: int) -> Iterator[_Read]:
    """Reads from the page cache what is in it and the rest past it, where the system can do both."""
    with ExitStack() as stack:
        past_cache, probe = _reopen(fd), _reopen(fd)
        for again in (past_cache, probe):
            if again >= 0:
                stack.callback(os.close, again)
        both = bool(_NOWAIT) and min(past_cache, probe) >= 0 and direct.bypass(past_cache)
        if both:
            os.posix_fadvise(probe, 0, 0, os.POSIX_FADV_RANDOM)  # a look reads nothing ahead

        def read(into: memoryview, offset: int) -> int:
            aligned = offset % _PAGE == 0 and len(into) % _PAGE == 0
            if both and aligned and not _is_cached(probe, offset):
                try:
                    return os.preadv(past_cache, [into], offset)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
            return os.preadv(fd, [into], offset)

        yield read


def _reopen(fd: int) -> int:
    """Another descriptor of an open file; -1 where there is no /proc: the cache will do."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _is_cached(probe: int, offset: int) -> bool:
    """Whether the page cache has the byte at an offset; also where nobody can say."""
    try:
        os.preadv(probe, [bytearray(1)], offset, _NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    return True


def _fill(read: _Read, block: memoryview, length: int, offset: int) -> None:
    """Read `length` bytes at `offset` to the beginning of a block."""
    got = 0
    while got < length:
        try:
            count = read(block[got:], offset + got)
        except OSError as error:
            raise UnreadableError(error.errno, error.strerror) from error
        if not count:
            raise SourceChangedError(f"ends at byte {offset + got}")
        got += count
