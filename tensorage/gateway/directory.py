"""Which miners have room: asked of each in the background, so that a placement waits for nobody.

A miner is asked every minute, one without room sooner, one that fails after a wait that doubles up to a
quarter of an hour, a new one at once. Only those that answered the last time or the time before count. Places
that are kept for shards that have not come are taken off, and so is what was given away since the answer. A
miner that fails its challenges gets no shards until it passes again, which is looked up at every tick.

The event loop asks and any thread chooses: what is known is replaced, never changed in place.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .. import seal
from ..chain.types import Endpoint, Metagraph, Neuron
from ..transport.dendrite import PeerError
from ..transport.file_calls import MinerCalls
from ..transport.file_messages import StorageMessage
from . import placement
from .placement import Candidate, Taken
from .rows import Place

CHUNK_SIZE = seal.LEAVES_PER_CHUNK * seal.LEAF_SIZE
POLL_SECONDS = 60.0
FULL_SECONDS = 10.0
LONGEST_PAUSE = 900.0
TICK_SECONDS = 2.0
_FIRST_PAUSE = 5.0
_DEADLINE = 5.0
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Standings:
    """What the validator knows of miners (SS58): scores, and those that fail their challenges."""

    scores: Mapping[str, float] = field(default_factory=dict)
    failing: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Known:
    """The last answer of a miner, None when it gave none.

    Attributes:
        due: when it is asked next.
        owed: its slots that were kept or issued when it was asked; `given`: how many were given away by then.
    """

    endpoint: Endpoint
    due: float
    answer: StorageMessage | None = None
    failures: int = 0
    owed: int = 0
    given: int = 0

    def room(self, given: int) -> int:
        """Shards that it can take, when `given` were given away by now."""
        if self.answer is None or self.answer.leaving:
            return 0
        room = min(self.answer.quota - self.answer.used, self.answer.free_bytes // CHUNK_SIZE)
        return max(0, room - self.owed - (given - self.given))


class Directory:
    """Miners with room.

    Attributes:
        ready: whether all were asked once.

    Args:
        hotkey: our own, SS58, which is never asked.
        metagraph: the newest, without I/O; raises StaleChainError when it is too old.
        standings: what is known of the miners now.
        outstanding: places and tickets of each miner without a receipt.
        clock: seconds, steady.
    """

    def __init__(
        self,
        calls: MinerCalls,
        hotkey: str,
        *,
        metagraph: Callable[[], Metagraph],
        standings: Callable[[], Awaitable[Standings]],
        outstanding: Callable[[], Awaitable[Mapping[str, int]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = calls
        self._hotkey = hotkey
        self._metagraph = metagraph
        self._standings = standings
        self._outstanding = outstanding
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._standing = Standings()
        self._given: Counter[str] = Counter()
        self.ready = False

    async def refresh(self) -> float:
        """Ask those that are due; the seconds until the next look.

        Raises:
            StaleChainError: nobody knows who is on the subnet. StorageError: the database is away.
        """
        now = self._clock()
        due: list[tuple[Neuron, _Known]] = []
        known: dict[str, _Known] = {}
        for neuron in self._metagraph().neurons:
            if neuron.endpoint is None or neuron.hotkey == self._hotkey:
                continue
            last = self._known.get(neuron.hotkey)
            if last is None or last.endpoint != neuron.endpoint:
                last = _Known(neuron.endpoint, now)
            known[neuron.hotkey] = last
            if last.due <= now:
                due.append((neuron, last))
        self._standing = await self._standings()
        if due:
            given = Counter(self._given)
            owed = await self._outstanding()
            turns = asyncio.Semaphore(_AT_ONCE)
            asked = await asyncio.gather(*(self._ask(neuron, last, turns) for neuron, last in due))
            for (neuron, _), found in zip(due, asked, strict=True):
                name = neuron.hotkey
                new = not found.failures
                known[name] = replace(found, owed=owed.get(name, 0), given=given[name]) if new else found
        self._known = known
        self.ready = True
        return TICK_SECONDS

    async def _ask(self, neuron: Neuron, last: _Known, turns: asyncio.Semaphore) -> _Known:
        async with turns:
            try:
                answer = await self._calls.storage(neuron, deadline=_DEADLINE)
            except PeerError:  # one of many; it is asked again
                pause = min(LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(last.failures, 16))
                answer_before = None if last.failures else last.answer
                due = self._clock() + pause
                return replace(last, due=due, answer=answer_before, failures=last.failures + 1)
        found = _Known(last.endpoint, 0.0, answer)
        return replace(found, due=self._clock() + (POLL_SECONDS if found.room(0) else FULL_SECONDS))

    def candidates(self) -> list[Candidate]:
        """Those that take shards of ours now.

        Raises:
            StaleChainError: nobody knows who is on the subnet.
        """
        found = []
        for neuron in self._metagraph().neurons:
            known = self._known.get(neuron.hotkey)
            if neuron.endpoint is None or known is None or neuron.hotkey in self._standing.failing:
                continue
            free = known.room(self._given[neuron.hotkey])
            if free:
                score = self._standing.scores.get(neuron.hotkey, 0.0)
                network = placement.network_of(neuron.endpoint.ip)
                found.append(Candidate(neuron.hotkey, neuron.coldkey, network, score, free))
        return found

    def leaving(self) -> frozenset[str]:
        """Hotkeys of miners that want to be rid of their shards."""
        return frozenset(
            hotkey
            for hotkey, known in self._known.items()
            if known.answer is not None and known.answer.leaving
        )

    def choose(
        self, taken: Sequence[Place], out: Collection[str], wanted: int, seed: bytes
    ) -> list[tuple[str, str]]:
        """Miners for further shards of a stripe: (hotkey, coldkey) of each. They count as given away.

        Args:
            taken: shards of the stripe that have a place. `out`: hotkeys that are not to be chosen.
            seed: 32 bytes that nobody foresees.

        Raises:
            StaleChainError: nobody knows who is on the subnet.
        """
        metagraph = self._metagraph()
        there = []
        for place in taken:
            neuron = metagraph.by_hotkey(place.hotkey)
            endpoint = neuron.endpoint if neuron is not None else None
            there.append(Taken(place.coldkey, placement.network_of(endpoint.ip) if endpoint else ""))
            if neuron is not None and neuron.coldkey != place.coldkey:
                there.append(Taken(neuron.coldkey, ""))
        able = [candidate for candidate in self.candidates() if candidate.hotkey not in out]
        chosen = placement.choose(able, there, wanted, seed)
        self._given.update(candidate.hotkey for candidate in chosen)
        return [(candidate.hotkey, candidate.coldkey) for candidate in chosen]

    def serves(self, hotkey: str) -> bool:
        """Whether a miner can still take a shard that a place was kept for.

        Raises:
            StaleChainError: nobody knows who is on the subnet.
        """
        neuron = self._metagraph().by_hotkey(hotkey)
        return neuron is not None and neuron.endpoint is not None and hotkey not in self.leaving()

    def endpoint(self, hotkey: str) -> Endpoint | None:
        """Where a miner serves, None when it does not.

        Raises:
            StaleChainError: nobody knows who is on the subnet.
        """
        neuron = self._metagraph().by_hotkey(hotkey)
        return neuron.endpoint if neuron is not None else None
