"""Judging: what an exchange comes to, given what happened. Pure.

Rules. Bytes that do not verify are `wrong` at once. What did not come in time, or not at all, is asked for
once more with the same nonce, and counts only when it fails again. A validator that stood still itself does
not call a miner late. And when over 30 % of the challenged miners, and at least 3, fail at once in one way,
the validator is assumed to be at fault; but in at most 3 of any 24 rounds, since miners who agree to delete
their disks on one day fail at once in one way too (docs/decisions/0007-validator-fault-budget.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from ..encoding import ZERO_HASH
from ..receipts import Verdict, line

FAULT_SHARE = 0.3
FAULT_MINERS = 3
FAULT_WINDOW = 24  # rounds, this one included
FAULT_BUDGET = 3
#: Standing still for this share of the deadline explains a late answer.
STALL_SHARE = 0.25

#: Verdicts that count only when the same challenge has failed twice.
FAILURES = frozenset({Verdict.LATE, Verdict.REFUSED, Verdict.UNREACHABLE})


@dataclass(frozen=True, slots=True)
class Attempt:
    """One asking.

    Attributes:
        kind: the class of the reason, one word that says how it failed, the same for all who fail so.
        reason: one line for people.
        elapsed: seconds until the answer was whole, or until it was given up.
        stalled: seconds of these during which the validator itself stood still.
        leaves: leaves that verified, of a pass.
        evidence: what the miner sent.
        final_state: where the walk ended, of a pass.
    """

    verdict: Verdict
    kind: str
    reason: str
    elapsed: float = 0.0
    stalled: float = 0.0
    leaves: int = 0
    evidence: bytes = b""
    final_state: bytes = ZERO_HASH


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an exchange comes to: the attempt that decided, and whether it was the second."""

    attempt: Attempt
    second: bool = False

    @property
    def verdict(self) -> Verdict:
        return self.attempt.verdict


def excused_stall(attempt: Attempt, deadline: float) -> Attempt:
    """The attempt, as the validator's own fault if it stood still too long to tell."""
    if attempt.verdict in (Verdict.LATE, Verdict.UNREACHABLE) and attempt.stalled > STALL_SHARE * deadline:
        reason = f"the validator stood still for {attempt.stalled:.2f} s: {attempt.reason}"
        return replace(attempt, verdict=Verdict.VALIDATOR_FAULT, kind="stalled", reason=line(reason))
    return attempt


def ask_again(first: Attempt) -> bool:
    """Whether the same challenge is put once more; not after a fault of ours, which moves nothing anyway."""
    return first.verdict in FAILURES


def conclude(first: Attempt, second: Attempt | None) -> Judgement:
    """The judgement of one or two askings of one challenge."""
    if second is None:
        return Judgement(first)
    if second.verdict is Verdict.PASSED:
        return Judgement(
            replace(second, reason=line(f"at the second asking; the first: {first.reason}")), second=True
        )
    if second.verdict in FAILURES:
        return Judgement(
            replace(second, reason=line(f"{second.reason} (asked twice; the first: {first.reason})")), True
        )
    return Judgement(second, second=True)


def assumed_fault(
    judgements: Mapping[str, Judgement], failing_before: Collection[str], excused_rounds: int
) -> tuple[Verdict, str] | None:
    """The (verdict, kind) that is the validator's fault this round, None when there is none.

    Args:
        judgements: of every miner that was challenged, by hotkey.
        failing_before: those whose last verdict that counted was no pass; who has been failing all along does
            not begin to fail at once with others.
        excused_rounds: rounds that were excused among the last FAULT_WINDOW - 1.
    """
    if excused_rounds >= FAULT_BUDGET:
        return None
    together = Counter(
        (judgement.verdict, judgement.attempt.kind)
        for hotkey, judgement in judgements.items()
        if judgement.verdict not in (Verdict.PASSED, Verdict.VALIDATOR_FAULT) and hotkey not in failing_before
    )
    for way, count in together.most_common(1):
        if count >= FAULT_MINERS and count > FAULT_SHARE * len(judgements):
            return way
    return None


def excuse(judgement: Judgement, way: tuple[Verdict, str]) -> Judgement:
    """The judgement of one miner in a round in which failing in that way is the validator's fault."""
    attempt = judgement.attempt
    if (attempt.verdict, attempt.kind) != way:
        return judgement
    reason = line(f"assumed to be ours, as many failed so at once: {attempt.verdict.word}: {attempt.reason}")
    return Judgement(
        replace(attempt, verdict=Verdict.VALIDATOR_FAULT, reason=reason), second=judgement.second
    )
