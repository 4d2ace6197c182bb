"""The parameters of the proof on one subnet, and how much work a validator does."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .. import challenge as challenges
from .. import seal

#: Most sectors of one commitment that a validator takes: 64 TiB of profile 1. A listing is believed only
#: when it was fetched whole, and costs some 16 MB of memory by then, whoever shows it.
MAX_SECTORS = 1 << 16
#: Most commitments that are caught up with in one round.
MAX_BETWEEN = 32


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a validator asks, and how often.

    Attributes:
        hops: leaves read for one challenge.
        deadline: seconds for the answer.
        round_seconds: from the begin of one round to that of the next.
        audit_seconds: seconds of one core that seal audits may take in a round, on average.
        concurrency: miners that are asked at once: few enough that waiting for us is not their lateness.
        profiles: sector profiles that are paid; profile 0 proves nothing and is for networks without value.
        private: whether addresses that are not globally routable are dialled.
    """

    hops: int = challenges.HOPS
    deadline: float = challenges.DEADLINE
    round_seconds: float = 300.0
    audit_seconds: float = 30.0
    concurrency: int = 16
    profiles: frozenset[int] = frozenset({seal.MAIN.number})
    private: bool = False

    def strict(self) -> Parameters:
        """The same on a chain with value."""
        return replace(self, profiles=frozenset({seal.MAIN.number}), private=False)
