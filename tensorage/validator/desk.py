"""Giving miners their receipts: beside the ledger, so that whoever asks cannot hold up a round.

It reads over a connection and in a thread of its own, and sends the documents as they were written. No more
callers wait than are served before they give up.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import RequestError, StorageError
from ..transport.axon import Call, Reply
from ..transport.messages import RECEIPTS_PAGE, ReceiptsPage
from .ledger import connect_read_only, read_documents

MOST_WAITING = 64  # some 10 ms each


class ReceiptDesk:
    """Answers `GET /v1/receipts` from the ledger at `path`, which another connection writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="receipts")
        self._waiting = 0

    async def answer(self, call: Call) -> Reply:
        """A page of the caller's own receipts.

        Raises:
            RequestError: "malformed", or "rate_limited"; as many are waiting as can be served soon.
            StorageError: the ledger cannot be read.
        """
        start = call.number("from", 0)
        limit = call.number("limit", RECEIPTS_PAGE, low=1, high=RECEIPTS_PAGE)
        if self._waiting >= MOST_WAITING:
            raise RequestError("rate_limited", "many ask for their receipts; ask again soon")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._page, start, limit, call.neuron.public_key
            )
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Close the connection, after what is being read."""
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    def _page(self, start: int, limit: int, miner: bytes) -> ReceiptsPage:
        try:
            if self._db is None:
                self._db = connect_read_only(self._path)
            documents, following = read_documents(self._db, start, limit, miner)
        except sqlite3.Error as error:
            raise StorageError(f"{self._path} cannot be read: {error}") from error
        return ReceiptsPage(receipts=[json.loads(document) for document in documents], next=following)

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
