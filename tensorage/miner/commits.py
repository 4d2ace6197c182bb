"""When a miner commits to what it keeps.

A commitment is worth most when it covers all that is sealed, and costs every validator a listing and an
audit. So while a miner fills there is at most one a tempo; the first is made at once. What went missing is
waited for during one tempo (a damaged sector is sealed again in that time and was never missing to anybody
who counts), and what was given up on purpose is left out of the next commitment as soon as the tempo allows.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence

from ..commitment import Commitment, Entry


class Change(enum.Enum):
    """How what is kept differs from what is committed to."""

    NONE = "none"
    GROWN = "grown"
    DAMAGED = "damaged"
    GIVEN_UP = "given up"


def change_of(committed: Sequence[Entry], kept: Sequence[Entry], planned: Collection[int]) -> Change:
    """What changed since the newest commitment.

    Args:
        committed: entries of the newest commitment, none when there is no commitment.
        kept: entries of the sectors that are sealed now.
        planned: indices of all sectors that the miner means to keep, sealed or not.
    """
    kept_set = set(kept)
    lost = [entry for entry in committed if entry not in kept_set]
    if any(index not in planned for index, _ in lost):
        return Change.GIVEN_UP
    if lost:
        return Change.DAMAGED
    return Change.GROWN if len(kept) > len(committed) else Change.NONE


def may_commit(
    newest: Commitment | None, head: int, tempo: int, change: Change, damaged_since: int | None = None
) -> bool:
    """Whether to commit now.

    Args:
        newest: the newest commitment, None when there is none.
        head: height of the newest block known.
        tempo: blocks of an epoch.
        damaged_since: the height at which the damage was first seen.
    """
    if change is Change.NONE:
        return False
    if newest is None:
        return True
    if head < newest.block_number + max(1, tempo):
        return False
    if change is Change.DAMAGED:
        return damaged_since is not None and head >= damaged_since + tempo
    return True
