"""Retrieval: what miners give to clients, as they can prove, and as we see it when we ask as a client does.

Rules. A record counts when the ticket's client signed the request and its miner says that it answered, within
the last week, about a shard that the miner still has. What is counted is which leaves were read on a day, so
that a record that is shown again counts nothing. Records are taken page by page, each page in one transaction
with the place to go on from; the signatures of what is counted already are not checked again, so that a flood
of such records is cheap. When the last record that was taken is not the miner's any more, it starts over.

A fetch of our own is a piece request with the reader's key of a file, over a connection of its own, of a
random piece at a random time: what a miner sees of it is what it sees of clients, but for our address. Its
record is not counted.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from functools import partial

from .. import shard
from ..chain.types import Neuron
from ..errors import ProofError
from ..keyauth import SigningKey
from ..transport.dendrite import Dendrite, PeerError
from ..transport.file_calls import MinerCalls
from ..transport.file_messages import RetrievalMessage
from ..validator.together import together
from .care import Care, says
from .health import report_wrong
from .rows import ShardRow
from .serving import DAY, KEPT_DAYS, Fetch, Mark, Read

log = logging.getLogger(__name__)

#: Pages that are taken of a miner at one visit.
PAGES = 8
AHEAD_SECONDS = 120
_PAGE_SECONDS = 20.0
_MOST = 1 << 63  # SQLite's integers


class Collector:
    """Collects records of retrievals from miners."""

    def __init__(self, care: Care) -> None:
        self._care = care

    async def run(self) -> float:
        """Visit every miner that has shards of ours; the seconds until the next time.

        Raises:
            StaleChainError: it is not known who is registered.
        """
        care = self._care
        hotkeys = await care.db(care.store.holders)
        random.shuffle(hotkeys)
        neurons = {hotkey: neuron for hotkey in hotkeys if (neuron := care.neuron(hotkey)) is not None}
        jobs = {hotkey: partial(self.visit, neuron) for hotkey, neuron in neurons.items()}
        await together(jobs, care.settings.at_once)
        return care.settings.collect_rounds * care.settings.round_seconds

    async def visit(self, neuron: Neuron) -> int:
        """Take what a miner has to show since the last visit; how many records were counted."""
        care, counted = self._care, 0
        mark = await care.db(care.store.mark, neuron.hotkey)
        for _ in range(PAGES):
            start = 0 if mark is None else mark.id
            try:
                async with care.quiet.aside():
                    page = await care.calls.retrievals(neuron, start, deadline=_PAGE_SECONDS)
                    records = page.retrievals
                    if mark is not None and not _continues(records, mark):
                        mark = None
                        continue
                    reads, wrong = await care.compute(self._proven, neuron.hotkey, records)
            except PeerError as error:
                log.debug("no records of retrievals hotkey=%s reason=%r", neuron.hotkey, error.message)
                break
            if wrong:
                log.warning("false records of retrievals hotkey=%s count=%d", neuron.hotkey, wrong)
            if not records:
                break
            last = records[-1]
            mark = Mark(min(last.id, _MOST - 1), min(last.nonce, _MOST - 1))
            await care.db(care.store.add_reads, neuron.hotkey, reads, mark)
            counted += len(reads)
            if page.next is None:
                break
        return counted

    def _proven(self, hotkey: str, records: Sequence[RetrievalMessage]) -> tuple[list[Read], int]:
        """What is new and true in a page, and how many records are false. Blocks."""
        care, store = self._care, self._care.store
        now, wrong = care.now(), 0
        fetching = frozenset(care.fetching)  # before those that are written down, so that none is missed
        ours = fetching | {fetch.nonce_ns for fetch in store.fetches(hotkey)}
        reads: dict[Read, None] = {}
        for record in records:
            seconds = record.nonce // 1_000_000_000
            if not now - KEPT_DAYS * DAY <= seconds <= now + AHEAD_SECONDS:
                continue
            row = store.shard(record.ticket)
            if row is None or row.hotkey != hotkey or row.state != "stored":
                continue
            read = Read(row.ticket, seconds // DAY, record.leaf, record.count)
            if read in reads or record.nonce in ours:
                continue
            try:
                shard.check_piece(row.leaves, record.leaf, record.count)
                if store.has_read(read):
                    continue
                record.retrieval().check(row.decoded().ticket, care.verify)
            except ProofError:
                wrong += 1
                continue
            reads[read] = None
        return list(reads), wrong


def _continues(records: Sequence[RetrievalMessage], mark: Mark) -> bool:
    """Whether a page starts with the last record that was taken."""
    return bool(records) and (records[0].id, records[0].nonce) == (mark.id, mark.nonce_ns)


class _Noting(SigningKey):
    """A key that notes the nonces of the requests that it signs."""

    def __init__(self, seed: bytes, nonces: set[int]) -> None:
        super().__init__(seed)
        self.nonces = nonces
        self.last = 0

    def sign_request(
        self, *, method: str, path: str, body: bytes, receiver: bytes, nonce_ns: int
    ) -> dict[str, str]:
        self.last = nonce_ns
        self.nonces.add(nonce_ns)
        return super().sign_request(method=method, path=path, body=body, receiver=receiver, nonce_ns=nonce_ns)


class Sampler:
    """Fetches pieces as clients do.

    Args:
        allow_private: whether addresses are dialled that are not globally routable.
    """

    def __init__(self, care: Care, *, allow_private: bool) -> None:
        self._care = care
        self._allow_private = allow_private
        self._random = random.SystemRandom()

    async def run(self) -> float:
        """Fetch one piece; the seconds until the next, which nobody can tell.

        Raises:
            StaleChainError: it is not known who is registered.
        """
        care, settings = self._care, self._care.settings
        hotkeys = [neuron.hotkey for neuron in care.metagraph().neurons]
        self._random.shuffle(hotkeys)
        row = await care.db(self._any_shard, hotkeys)
        if row is not None:
            await self.fetch(row)
        pause = settings.round_seconds / max(1, settings.fetches)
        return self._random.uniform(0.0, 2.0 * pause)

    def _any_shard(self, hotkeys: Sequence[str]) -> ShardRow | None:
        """A shard of the first miner that has one of ours. Blocks."""
        found = (self._care.store.any_shard(hotkey, self._random.random()) for hotkey in hotkeys)
        return next((row for row in found if row is not None), None)

    async def fetch(self, row: ShardRow) -> Fetch | None:
        """Fetch a random piece of a shard, and note how it went; None when that cannot be told."""
        care = self._care
        neuron, file = care.neuron(row.hotkey), await care.db(care.store.file, row.file)
        if neuron is None or file is None or file.reader is None:
            return None
        key = _Noting(file.reader, care.fetching)
        try:
            return await self._fetch(row, neuron, key)
        finally:
            care.fetching.discard(key.last)

    async def _fetch(self, row: ShardRow, neuron: Neuron, key: _Noting) -> Fetch:
        care = self._care
        first, count = piece(row.leaves, self._random)
        at, reason, elapsed = care.now(), "", 0.0
        async with care.quiet.aside():
            started = time.perf_counter()
            try:
                answer = await self._ask(neuron, key, row, first, count)
                elapsed = time.perf_counter() - started
                await care.compute(shard.read_piece, row.root, row.leaves, first, count, answer)
            except PeerError as error:
                elapsed, reason = time.perf_counter() - started, says(error)
                await care.db(care.store.report, row.ticket)
            except ProofError as error:
                reason = error.message
                await report_wrong(care, row, error.message)
        passed = not reason and elapsed <= care.settings.fetch_seconds
        fetch = Fetch(
            row.hotkey,
            row.ticket,
            first,
            count,
            at,
            key.last,
            min(2**31, int(elapsed * 1000)),
            passed,
            reason[:200],
        )
        await care.db(care.store.add_fetch, fetch)
        log.debug(
            "fetched hotkey=%s leaves=%d seconds=%.3f passed=%s reason=%r",
            row.hotkey,
            count,
            elapsed,
            passed,
            reason,
        )
        return fetch

    async def _ask(self, neuron: Neuron, key: SigningKey, row: ShardRow, first: int, count: int) -> bytes:
        async with Dendrite(key, allow_private=self._allow_private) as client:
            return await MinerCalls(client).piece(
                neuron, row.decoded(), first, count, deadline=self._care.settings.fetch_seconds
            )


def piece(leaves: int, draw: random.Random) -> tuple[int, int]:
    """(first, count) of a piece such as clients ask for: the whole shard, or an aligned part of it."""
    count = leaves >> draw.choice((0, 0, 1, 2, 4))
    return draw.randrange(leaves // count) * count, count
