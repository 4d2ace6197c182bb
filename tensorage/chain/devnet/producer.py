"""The block loop: the one process that writes a devnet's blocks.

A lock on a file beside the devnet's keeps a second producer out; the kernel frees it when the process ends,
however it ends. Each block is one transaction, so a producer that is killed leaves a whole chain, and the
next one goes on from there.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import StorageError, UsageError
from . import epoch
from .block import BlockMaker
from .genesis import derive
from .store import Block, Store

HISTORY = 10_000  # blocks whose state can be read; older values are dropped
_FORGET_EVERY = 500
_LOCK_ATTEMPTS = 10
_PRELOAD_SECONDS = 20.0


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def is_producing(path: Path) -> bool:
    """Whether some process makes blocks for the devnet in `path` now."""
    try:
        descriptor = os.open(_lock_path(path), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def production(path: Path) -> Iterator[None]:
    """Be the producer of the devnet in `path`.

    Raises:
        UsageError: another process is, or the path cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(_lock_path(path), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(
            f"cannot make a devnet at {path}: {error}", remedy="Name a writable --path."
        ) from error
    try:
        for attempt in range(_LOCK_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:  # a producer, or someone who only looks whether there is one
                if attempt == _LOCK_ATTEMPTS - 1:
                    raise UsageError(
                        f"another process makes blocks for {path}",
                        remedy="Use that devnet, or name another --path.",
                    ) from error
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


class Producer:
    """Makes a block each block time.

    Args:
        store: the devnet.
        clock: seconds since the epoch; blocks carry it.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self.maker = BlockMaker(store)
        self._clock = clock
        self._seed = store.meta("seed")
        self._loading = False

    def step(self) -> Block:
        """Make one block now.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            return self._step()
        except sqlite3.Error as error:
            raise StorageError(
                f"cannot write a block to {self.store.path}: {error}",
                remedy="Make room, or start anew on another --path.",
            ) from error

    def _step(self) -> Block:
        number = self.store.head() + 1
        entropy = os.urandom(32) if self._seed is None else derive(self._seed, "block", number)
        block = self.maker.make(time_ms=int(self._clock() * 1000), entropy=entropy)
        if number % _FORGET_EVERY == 0 and number > HISTORY:
            with self.store.transaction():
                self.store.forget(number - HISTORY)
                self.store.set_meta("oldest", number - HISTORY)
        return block

    def _preload(self, block_time: float) -> None:
        """Shortly before the first epoch, load what it needs, beside the blocks."""
        if not self._loading and self.maker.blocks_to_epoch() * block_time <= _PRELOAD_SECONDS:
            self._loading = True
            threading.Thread(target=epoch.load, name="devnet-preload", daemon=True).start()

    def run(
        self,
        stop: threading.Event,
        on_block: Callable[[Block], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make blocks until `stop` is set. A block that took too long is not caught up with."""
        block_time = self.maker.facts.block_time
        due = monotonic()
        while not stop.is_set():
            self._preload(block_time)
            block = self.step()
            if on_block is not None:
                on_block(block)
            due = max(due + block_time, monotonic())
            stop.wait(max(0.0, due - monotonic()))
