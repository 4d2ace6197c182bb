"""Whether the subnet did what it is for: pay the honest for what they hold, and cheats nothing.

Pure: rows in, a judgement out. Honest emissions stand as the bytes when the best and the worst paid byte
differ by at most `TOLERANCE`. A cheat is at zero when it has no emission, and no weight from any validator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .cast import Kind

TOLERANCE = 0.15


@dataclass(frozen=True, slots=True)
class Row:
    """One miner as the chain and the validators have it.

    Attributes:
        share: what it claims to hold, in units of the smallest honest miner.
        committed_bytes: the most that a validator ever saw it commit to.
        proven_bytes: by validator.
        verdicts: counts by the verdict's word, over both validators.
        reasons: by validator, what the newest receipt against it says; only what went wrong.
        scores, weights: by validator; a weight is a share of that validator's, as it stands on the chain.
        incentive: share of the miners' part; emission: alpha a tempo.
    """

    uid: int
    name: str
    kind: Kind
    hotkey: str
    share: float
    committed_bytes: int = 0
    proven_bytes: Mapping[str, float] = field(default_factory=dict)
    verdicts: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    incentive: float = 0.0
    emission: float = 0.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether all is as it should be, and in one line why not."""

    ok: bool
    reason: str = ""


def judge(rows: Sequence[Row], validators: Sequence[str]) -> Judgement:
    """The judgement on the table as it stands.

    Args:
        validators: all names that must stand in each row's `weights`.
    """
    for row in rows:
        if missing := [name for name in validators if name not in row.weights]:
            return Judgement(False, f"{missing[0]} has set no weights yet")
    honest = [row for row in rows if row.kind == "honest"]
    for row in honest:
        if row.emission <= 0:
            return Judgement(False, f"{row.name} is honest and has no emission")
    for row in rows:
        if row.kind == "honest":
            continue
        if row.emission > 0:
            return Judgement(False, f"{row.name} cheats and has an emission of {row.emission:.6g}")
        for name, weight in row.weights.items():
            if weight > 0:
                return Judgement(False, f"{row.name} cheats and has a weight of {weight:.4g} from {name}")
    paid = {row.name: row.emission / row.share for row in honest}
    best, worst = max(paid, key=paid.__getitem__), min(paid, key=paid.__getitem__)
    if paid[best] > paid[worst] * (1 + TOLERANCE):
        return Judgement(
            False,
            f"{best} is paid {paid[best] / paid[worst]:.2f} times as much a byte as {worst}; "
            f"{1 + TOLERANCE:.2f} is allowed",
        )
    return Judgement(True)
