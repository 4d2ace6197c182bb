"""The hash of a whole file, which runs along while its chunks arrive.

A thread follows the front: the first chunk that is not there yet. A chunk that arrives at the front, or
little ahead of it, is hashed from memory; all others are read back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from hashlib import sha256

from ...errors import StorageError
from ..chunks import CHUNK_SIZE, chunk_span
from .part import PAGES

#: Chunks that are kept in memory for the hash, at most.
_KEPT = 32


class Follower:
    """Hashes a file of `size` bytes.

    Args:
        changed: notified when a chunk is there, and when it shall stop; its lock guards all of this.
        has: whether a chunk is there; called with the lock held.
        read: fills a view from an offset.
    """

    def __init__(
        self,
        size: int,
        changed: threading.Condition,
        has: Callable[[int], bool],
        read: Callable[[int, memoryview], int],
    ) -> None:
        self._size = size
        self._changed = changed
        self._has = has
        self._read = read
        self._at = 0
        self._kept: dict[int, memoryview] = {}
        self._stopped = False
        self._error: BaseException | None = None
        self._digest: bytes | None = None
        self._thread = threading.Thread(target=self._run, name="dataset-hash", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def offer(self, index: int, buffer: memoryview) -> memoryview:
        """Hand a chunk over, before it is announced; returns a buffer to go on with, maybe the same."""
        with self._changed:
            if self._at <= index < self._at + _KEPT and index not in self._kept:
                self._kept[index] = buffer
                return PAGES.take()
            return buffer

    def stop(self) -> None:
        """End before the end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def digest(self) -> bytes:
        """The SHA-256 of the file, once all its chunks are there; waits for it.

        Raises:
            StorageError: what was written could not be read back.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        if self._digest is None:
            raise RuntimeError("the hash was stopped before the file was whole")
        return self._digest

    def _run(self) -> None:
        try:
            self._follow()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever wants the digest
            self._error = error

    def _follow(self) -> None:
        state = sha256()
        own = PAGES.take()
        while (start := self._at * CHUNK_SIZE) < self._size:
            with self._changed:
                while not (self._stopped or self._has(self._at)):
                    self._changed.wait()
                if self._stopped:
                    return
                kept = self._kept.pop(self._at, None)
            length = chunk_span(self._at, self._size)[1] - start
            view = (own if kept is None else kept)[:length]
            if kept is None and self._read(start, view) < length:
                raise StorageError(f"the file ends before byte {start + length}")
            state.update(view)
            if kept is not None:
                PAGES.give(kept)
            with self._changed:
                self._at += 1
        self._digest = state.digest()
