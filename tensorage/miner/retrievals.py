"""Records of the pieces that clients were given, countersigned by us; validators count them.

A client's signature of its request is what makes the record worth something, ours says that we answered. An
answer never waits for its record: what was read is noted in memory, and signed and written in batches in a
thread of its own. A process that is killed loses the records of the last moment, which costs it a little of
what it would be paid; at an orderly end they are written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from .. import keyauth
from ..errors import StorageError
from ..hashchain import Sign
from ..service.duty import FAILURES, repeat
from ..ticket import Retrieval, Ticket, piece_path
from ..transport.axon import Client

log = logging.getLogger(__name__)

EVERY = 0.5  # seconds
#: Records that are signed and written in one go, and that wait at most: a disk that takes none for so long
#: has other troubles.
BATCH = 512
MOST_WAITING = 20_000

#: A client's own record, and the public key of the validator whose ticket it is about.
Noted = tuple[Client, Retrieval, bytes]
Record = tuple[Retrieval, bytes]


class Retrievals:
    """Notes retrievals, and writes them down. For one event loop.

    Args:
        write: keeps records, each with the public key of the ticket's validator; called in a thread.
        miner: our public key.
        sign: signs with the miner's hotkey.
    """

    def __init__(self, write: Callable[[Sequence[Record]], None], *, miner: bytes, sign: Sign) -> None:
        self._write = write
        self._miner = miner
        self._sign = sign
        self._waiting: list[Noted] = []
        self._left_out = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="retrievals")

    def note(self, ticket: Ticket, first: int, count: int, client: Client) -> None:
        """A piece was read for a client that signed with a key; the reads of hotkeys do not count."""
        if client.signature is None:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._left_out += 1
            return
        retrieval = Retrieval(ticket.hash, first, count, client.nonce_ns, client.signature, b"")
        self._waiting.append((client, retrieval, ticket.validator))

    async def run(self) -> None:
        """Write for ever."""
        await repeat("recording retrievals", self._step)

    async def _step(self) -> float:
        if self._left_out:
            log.warning("retrievals not recorded count=%d", self._left_out)
            self._left_out = 0
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._record, batch)
            except FAILURES:
                self._waiting = batch + self._waiting
                raise
        return EVERY

    def _record(self, batch: Sequence[Noted]) -> None:
        signed = [
            (replace(retrieval, miner_signature=self._sign(retrieval.hash)), validator)
            for client, retrieval, validator in batch
            if self._asked(client, retrieval)
        ]
        if signed:
            self._write(signed)

    def _asked(self, client: Client, retrieval: Retrieval) -> bool:
        """Whether the client's signature is over the one spelling of the path that a record stands for."""
        path = piece_path(retrieval.ticket_hash, retrieval.first, retrieval.count)
        asked = keyauth.request_hash("GET", path, self._miner, retrieval.nonce_ns, b"")
        return keyauth.verify(client.public_key, asked, retrieval.client_signature)

    def close(self) -> None:
        """Write what is left, and let the thread end. Blocks on the disk for a moment."""
        self._thread.shutdown(wait=True)  # a batch that it was given it writes
        try:
            self._record(self._waiting)
        except StorageError as error:
            log.warning("retrievals not recorded count=%d error=%r", len(self._waiting), str(error))
        self._waiting.clear()
