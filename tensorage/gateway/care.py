"""What looking after files needs of the rest: the database, miners to ask, the time, and how much to do.

health     stored shards are challenged, oldest first
repair     shards that are lost, or whose miner leaves, are made anew on other miners
retrieval  what clients read is counted, and pieces are fetched as clients do
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from ..chain.types import Metagraph, Neuron
from ..hashchain import Sign, Verify
from ..service.quiet import Quiet
from ..transport.dendrite import Dendrite, Late, Malformed, PeerError, Refused
from ..transport.file_calls import MinerCalls
from .placement import Candidate
from .store import FileStore

T = TypeVar("T")

#: Kinds of refusal that pass: the miner is busy, starts, or does not know us yet.
_PASSING = frozenset({"rate_limited", "unready", "unauthenticated"})


class Market(Protocol):
    """Which miners take shards."""

    def candidates(self) -> Sequence[Candidate]:
        """Those that take shards of ours now."""

    def leaving(self) -> frozenset[str]:
        """Hotkeys (SS58) of miners that want to be rid of theirs."""


@dataclass(frozen=True, slots=True)
class CareSettings:
    """How much is done, and how soon.

    Attributes:
        round_seconds: what the others are measured in.
        checks: shards challenged in a round; `hops` leaves of each, answered within `deadline` seconds.
        recheck_rounds: a shard is not challenged sooner again, unless somebody asks for it.
        again_rounds: when one that was not answered for is asked for once more.
        lost_after: askings without an answer, one behind the other, after which a shard is lost.
        fetches: pieces that are fetched in a round as a client does, each within `fetch_seconds`.
        collect_rounds: how often miners are asked for their records of retrievals.
        repair_pause: seconds between two stripes.
        at_once: miners that are asked at the same time.
    """

    round_seconds: float = 300.0
    checks: int = 256
    hops: int = 6
    deadline: float = 10.0
    recheck_rounds: float = 12.0
    again_rounds: float = 12.0
    lost_after: int = 24
    fetches: int = 4
    fetch_seconds: float = 10.0
    collect_rounds: float = 3.0
    repair_pause: float = 1.0
    at_once: int = 4


@dataclass(frozen=True)
class Care:
    """What every part is given.

    Attributes:
        dendrite: asks as the validator.
        public_key: of the validator's hotkey, for which `sign` signs.
        metagraph: the newest; raises StaleChainError when it is too old.
        worker: where bytes are hashed, checked and coded, off the event loop.
        quiet: gone through before each step.
        clock: seconds since 1970.
        fetching: nonces of requests that are being made as a client makes them.
    """

    store: FileStore
    dendrite: Dendrite
    public_key: bytes
    sign: Sign
    verify: Verify
    metagraph: Callable[[], Metagraph]
    market: Market
    worker: Executor
    quiet: Quiet
    settings: CareSettings
    clock: Callable[[], float]
    fetching: set[int] = field(default_factory=set)

    @property
    def calls(self) -> MinerCalls:
        """Asks miners as the validator."""
        return MinerCalls(self.dendrite)

    def now(self) -> int:
        """Whole seconds since 1970."""
        return int(self.clock())

    def neuron(self, hotkey: str) -> Neuron | None:
        """The neuron of a hotkey (SS58); None when it is not registered.

        Raises:
            StaleChainError: it is not known.
        """
        return self.metagraph().by_hotkey(hotkey)

    async def db(self, work: Callable[..., T], *arguments: object) -> T:
        """Call a method of the store, off the event loop."""
        return await asyncio.to_thread(work, *arguments)

    async def compute(self, work: Callable[..., T], *arguments: object) -> T:
        """Do something long in the worker."""
        return await asyncio.get_running_loop().run_in_executor(self.worker, partial(work, *arguments))


def is_passing(error: PeerError) -> bool:
    """Whether a miner that failed so may do better later, as against one that says it has not the shard."""
    if isinstance(error, Refused):
        return error.status >= 500 or error.status == 429 or error.kind in _PASSING
    return not isinstance(error, Malformed)


def says(error: PeerError) -> str:
    """What a failure is called in one line."""
    kind = "late" if isinstance(error, Late) else "refused" if isinstance(error, Refused) else "away"
    return f"{kind}: {error.message}"
