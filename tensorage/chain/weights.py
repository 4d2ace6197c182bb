"""When weights may be set, and whether they landed: decisions without a chain in them.

Rules. The chain takes weights of one hotkey at most every `rate_limit` blocks, counted from LastUpdate,
which a plain set and a commit-reveal commit both move; before that height nothing is sent. An extrinsic is
mortal: signed at height h it can be in no block after h + ERA. So when a connection breaks and leaves the
fate of weights unknown, they are not sent again until LastUpdate or a pending commit shows that they
landed, or until their era is over and they never can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Literal

# Blocks during which a signed extrinsic can still be included: 13 minutes of 12-second blocks.
ERA = 64

Fate = Literal["landed", "pending", "lost"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """Weights that were signed when the chain stood at `height`, and whose fate nobody knows."""

    height: int

    @property
    def expires(self) -> int:
        """The last height at which they can be included."""
        return self.height + ERA


def normalised(weights: Mapping[int, float]) -> dict[int, float]:
    """The weights above zero, in the order of their uids, as shares that add up to 1; {} when there are none.

    Raises:
        ValueError: a weight is negative or no number, or a uid is out of range.
    """
    for uid, weight in weights.items():
        if not 0 <= uid < 1 << 16:
            raise ValueError(f"uid {uid} is not between 0 and 65535")
        if not isfinite(weight) or weight < 0:
            raise ValueError(f"weight {weight} of uid {uid} is no share")
    top = max(weights.values(), default=0.0)
    if top <= 0:
        return {}
    # Divided by the largest first: a sum of huge weights overflows, and one of tiny weights loses its digits.
    scaled = {uid: weights[uid] / top for uid in sorted(weights)}
    total = sum(scaled.values())
    return {uid: weight / total for uid, weight in scaled.items() if weight > 0}


def allowed_from(last_update: int, rate_limit: int) -> int:
    """The first height at which the chain takes weights again; 0 when it always does."""
    return last_update + rate_limit if last_update > 0 and rate_limit > 0 else 0


def fate(attempt: Attempt, *, head: int, last_update: int, commits: Iterable[int]) -> Fate:
    """What became of an attempt, as the state at height `head` shows.

    Args:
        last_update: LastUpdate of our uid.
        commits: the heights of the weight commits of our hotkey that are not revealed yet.
    """
    if last_update > attempt.height or any(height > attempt.height for height in commits):
        return "landed"
    return "lost" if head > attempt.expires else "pending"
