"""What members were sent, on its way into the store: a queue with an end, and one thread that empties it.

Each write waits for the disk, so what has gathered is written in one transaction. While the queue is full no
member's download is begun: nobody is sent what cannot be noted.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from ...errors import TensorageError
from ..members import Sent
from ..store import Store

logger = logging.getLogger(__name__)

#: Ranges that wait to be written. Downloads that run when it is full may add theirs.
MAX_NOTES = 4_096
#: Ranges in one transaction, so that commands get their turn.
_BATCH = 1_024


class Notes:
    """Ranges that were sent and are not in the store yet. Safe from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[Sent] = deque()
        self._lock = threading.Lock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="downloads")
        self._is_writing = False

    @property
    def is_full(self) -> bool:
        """Whether no more downloads should begin."""
        return len(self._waiting) >= MAX_NOTES

    def add(self, sent: Iterable[Sent]) -> None:
        """Have these noted soon."""
        with self._lock:
            self._waiting.extend(sent)
            if self._is_writing:
                return
            self._is_writing = True
        self._writer.submit(self._write)

    def close(self) -> None:
        """Wait until all is noted."""
        self._writer.shutdown()

    def _write(self) -> None:
        while batch := self._next():
            try:
                self._store.log_downloads(batch)
            except TensorageError as error:
                logger.error("downloads were not noted ranges=%d reason=%r", len(batch), str(error))  # noqa: TRY400
            finally:
                with self._lock:
                    for _ in batch:
                        self._waiting.popleft()

    def _next(self) -> list[Sent]:
        """What to write next, which stays in the queue until it is written."""
        with self._lock:
            batch = [self._waiting[number] for number in range(min(_BATCH, len(self._waiting)))]
            self._is_writing = bool(batch)
            return batch
