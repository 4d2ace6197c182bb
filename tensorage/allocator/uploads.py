"""One shard on its way in: its file, and the errors that a disk may have meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from .. import ticket
from ..errors import RequestError, StorageError
from ..hashchain import Sign
from ..ticket import SignedTicket, Stored
from .shard_files import FULL, ShardWriter

log = logging.getLogger(__name__)


def full(message: str) -> RequestError:
    """The refusal of a shard for which there is no room."""
    return RequestError("full", message)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the system refuses about a file into RequestError ("full") or StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            log.warning("disk full file=%s error=%r", path, error.strerror)
            raise full("our disk is full") from error
        raise StorageError(
            f"{path} cannot be written: {error.strerror}", remedy="Check the disk and its permissions"
        ) from error


class Upload:
    """One shard on its way in. A context manager: what is not finished at its end leaves nothing behind.

    Args:
        disk: the row of the disk that it goes to.
        land: makes it last, once its file is flushed.
        over: told once at its end whether it lasts.
    """

    def __init__(
        self,
        signed: SignedTicket,
        disk: int,
        writer: ShardWriter,
        land: Callable[[Upload], None],
        over: Callable[[bool], None],
    ) -> None:
        self.signed = signed
        self.disk = disk
        self.nodes = b""
        self.stored: Stored | None = None
        self._writer = writer
        self._land = land
        self._over = over
        self._renamed = False
        self._landed = False
        self._ended = False

    @property
    def path(self) -> Path:
        return self._writer.path

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            ProofError: they are more than the ticket says.
            RequestError: "full".
            StorageError: the disk does not take them.
        """
        with disk_errors(self.path):
            self._writer.write(data)

    def finish(self, sign: Sign, unix_ms: int) -> Stored:
        """Check the bytes, put them where they last, and give the receipt.

        Args:
            sign: signs with the miner's hotkey.
            unix_ms: the time now.

        Raises:
            ProofError: they are not all of the shard, or another shard.
            RequestError: "full": there is no space, or no chunk left to give.
            StorageError: the disk or the database does not take them.
        """
        ticket_ = self.signed.ticket
        with disk_errors(self.path):
            self.nodes = self._writer.finish(ticket_.shard_root)
            self._renamed = True
        stored = ticket.stored(ticket_.hash, unix_ms, sign)
        self.stored = stored
        try:
            self._land(self)
        except StorageError as error:
            if "disk is full" in error.message:  # as SQLite says it
                raise full(f"our database is full: {error.message}") from error
            raise
        self._landed = True
        return stored

    def discard(self) -> None:
        """Drop it, if it was not finished; safe to call twice."""
        try:
            self._writer.discard()
            if self._renamed and not self._landed:
                self.path.unlink(missing_ok=True)
        finally:
            if not self._ended:
                self._ended = True
                self._over(self._landed)

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()
