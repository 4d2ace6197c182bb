"""What is asked about one shard: its bytes in pieces, a challenge, its removal and return.

    400  no such piece
    403  signed neither by the ticket's client nor by its validator; removing is for the validator alone
    404  not kept, or no longer; also when its file turns out damaged
    429  as many challenges are being answered as can be in time
    503  its disk is away

A large piece is read and sent in steps, so that what is held in memory does not grow with the piece. Reading
is done in threads of its own and gives way to challenges of capacity, step by step.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

from .. import shard
from ..allocator.errors import DamagedShardError
from ..allocator.shard_rows import ShardRow
from ..allocator.shards import ShardStore
from ..challenge import MAX_HOPS
from ..encoding import HASH_SIZE
from ..errors import RequestError, StorageError
from ..hashchain import Sign
from ..seal import LEAF_SIZE
from ..service.duty import Trouble
from ..ticket import Ticket
from ..transport.axon import Access, Axon, Call, Client, Reply
from ..transport.file_calls import SHARD_SECONDS
from ..transport.file_messages import ShardChallenge, ShardState
from .metrics import ShardMetrics
from .priority import Priority
from .retrievals import Retrievals
from .turns import Turns

log = logging.getLogger(__name__)

THREADS = 4
#: Leaves that are read in one step, 1 MiB, and bytes that are handed to the connection at once.
STEP = 256
_SENT = 256 * 1024
#: Challenges of shards: at once for one caller, hops for one caller, hops in all.
CALLER_CHALLENGES = 4
CALLER_HOPS = MAX_HOPS
MOST_HOPS = 4 * MAX_HOPS

_NAME = re.compile("[0-9a-f]{64}")

T = TypeVar("T")


class Pieces:
    """The routes of single shards.

    Args:
        shards: used from several threads.
        sign: signs with the miner's hotkey.
        see_to: told on the event loop that slots have changed.
    """

    def __init__(
        self,
        shards: ShardStore,
        *,
        sign: Sign,
        priority: Priority,
        retrievals: Retrievals,
        metrics: ShardMetrics,
        see_to: Callable[[], None],
    ) -> None:
        self._shards = shards
        self._sign = sign
        self._priority = priority
        self._retrievals = retrievals
        self._metrics = metrics
        self._see_to = see_to
        self._turns = Turns(
            "leaves of shards are being read", most=MOST_HOPS, each=CALLER_HOPS, each_times=CALLER_CHALLENGES
        )
        self._trouble = Trouble("reading shards")
        self._reading = ThreadPoolExecutor(THREADS, thread_name_prefix="pieces")
        self._answering = ThreadPoolExecutor(2, thread_name_prefix="shard-answers")
        self._changing = ThreadPoolExecutor(1, thread_name_prefix="shard-changes")

    def attach(self, axon: Axon) -> None:
        """Serve them on `axon`."""
        path, client = "/v1/shards/{ticket}", Access.CLIENT
        axon.route("GET", path, self._piece, access=client, knows=self._reads, total_seconds=SHARD_SECONDS)
        axon.route("POST", f"{path}/challenge", self._challenge, access=client, knows=self._reads)
        axon.route("DELETE", path, self._remove, access=client, knows=self._owns)
        axon.route("POST", f"{path}/restore", self._restore, access=client, knows=self._owns)

    # Who may ask: called in the axon's thread, and answered by one row.

    def _owns(self, client: Client, path: Mapping[str, str]) -> bool:
        ticket = self._row(path).ticket
        return client.kind == "hotkey" and client.public_key == ticket.validator

    def _reads(self, client: Client, path: Mapping[str, str]) -> bool:
        ticket = self._row(path).ticket
        if client.kind == "key":
            return client.public_key == ticket.client
        return client.public_key == ticket.validator

    def _row(self, path: Mapping[str, str]) -> ShardRow:
        """The row of a shard that is kept.

        Raises:
            RequestError: "malformed" or "unknown".
        """
        if not _NAME.fullmatch(path["ticket"]):
            raise RequestError("malformed", "a ticket is named by its hash, 64 lower-case hex digits")
        row = self._shards.record(bytes.fromhex(path["ticket"]))
        if row is None or not row.live:
            raise RequestError("unknown", f"no shard of ticket {path['ticket']} is kept")
        return row

    async def _ticket(self, call: Call) -> Ticket:
        return await _in(self._reading, lambda: self._row(call.path).ticket)

    # Reading

    async def _piece(self, call: Call) -> Reply:
        first = call.number("leaf", high=shard.MOST_LEAVES - 1)
        count = call.number("count", low=1, high=shard.MOST_LEAVES)
        ticket, client = await self._ticket(call), call.signer
        shard.check_piece(ticket.leaves, first, count)
        name = ticket.hash

        def given() -> None:
            self._metrics.given(count * LEAF_SIZE)
            self._retrievals.note(ticket, first, count, client)

        if count <= STEP:
            answer = await self._step(name, first, count)
            given()
            return answer
        begun = await self._step(name, first, STEP)
        path = shard.piece_hashes(ticket.leaves, count) * HASH_SIZE
        below = len(begun) - STEP * LEAF_SIZE - path  # the step's own path, up to the piece's node

        async def answer_in_steps() -> AsyncIterator[bytes]:
            step, skip = begun, below
            for at in range(first + STEP, first + count + STEP, STEP):
                for start in range(skip, len(step), _SENT):
                    yield step[start : start + _SENT]
                if at < first + count:
                    step, skip = await self._step(name, at, STEP), below + path
            given()

        return answer_in_steps()

    async def _step(self, name: bytes, first: int, count: int) -> bytes:
        """The answer with a piece that is read in one step."""
        await self._priority.give_way()
        return await self._read(self._reading, lambda: self._shards.read(name, first, count))

    async def _challenge(self, call: Call) -> bytes:
        asked = call.json(ShardChallenge)
        ticket, client = await self._ticket(call), call.signer
        name, leaves = ticket.hash, ticket.leaves
        nonce = shard.nonce(asked.salt, client.public_key, self._shards.identity.hotkey, name)

        def answer() -> bytes:
            return shard.answer(
                nonce, asked.hops, leaves, lambda number: self._shards.leaf(name, number), self._sign
            )

        with self._turns.turn(client.name, asked.hops):
            return await self._read(self._answering, answer)

    async def _read(self, threads: ThreadPoolExecutor, work: Callable[[], bytes]) -> bytes:
        """Do `work`, which reads a shard, in a thread.

        Raises:
            RequestError: "unknown", "unready".
        """
        try:
            read = await _in(threads, work)
        except DamagedShardError as error:
            log.warning(
                "shard damaged ticket=%s file=%s why=%r", error.ticket_hash.hex(), error.path, error.why
            )
            self._see_to()
            raise RequestError("unknown", "the shard is damaged, and is given up") from error
        except StorageError as error:
            self._trouble.failed(error)
            raise RequestError("unready", "our disk cannot be read at the moment") from error
        self._trouble.worked()
        return read

    # Removing

    async def _remove(self, call: Call) -> ShardState:
        return await self._change(call, self._shards.remove)

    async def _restore(self, call: Call) -> ShardState:
        return await self._change(call, self._shards.restore)

    async def _change(self, call: Call, change: Callable[[bytes, int], ShardRow]) -> ShardState:
        name = (await self._ticket(call)).hash
        row = await _in(self._changing, lambda: change(name, int(time.time())))
        return ShardState(ticket=name, state=_state(row), until=self._shards.until(row))

    def close(self) -> None:
        """Let the threads end; what they do is not waited for."""
        for threads in (self._reading, self._answering, self._changing):
            threads.shutdown(wait=False, cancel_futures=True)


async def _in(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, work)


def _state(row: ShardRow) -> Literal["stored", "committed", "trash"]:
    """The state of a shard that is kept.

    Raises:
        RequestError: "unknown"; it was given up a moment ago.
    """
    if row.state == "ended" or row.state == "damaged":  # noqa: PLR1714 - narrows the type
        raise RequestError("unknown", "the shard is no longer kept")
    return row.state
