"""What an exchange comes to, and when it is the validator's fault."""

from __future__ import annotations

import pytest

from tensorage.receipts import Verdict
from tensorage.validator.judge import (
    FAULT_BUDGET,
    FAULT_WINDOW,
    Attempt,
    Judgement,
    ask_again,
    assumed_fault,
    conclude,
    excuse,
    excused_stall,
)
from tensorage.validator.scoring import Standing, after_miss, after_pass, score

PASS = Attempt(Verdict.PASSED, "", "fine", leaves=32)
LATE = Attempt(Verdict.LATE, "late", "too late", elapsed=4.0)
REFUSED = Attempt(Verdict.REFUSED, "unready", "not now")
WRONG = Attempt(Verdict.WRONG, "answer", "other bytes")


def judgements(*attempts: Attempt) -> dict[str, Judgement]:
    return {str(number): Judgement(attempt) for number, attempt in enumerate(attempts)}


def test_only_what_did_not_come_is_asked_again():
    assert [ask_again(attempt) for attempt in (PASS, WRONG, LATE, REFUSED)] == [False, False, True, True]
    assert not ask_again(Attempt(Verdict.VALIDATOR_FAULT, "stalled", "ours"))


def test_the_second_asking_decides():
    assert conclude(LATE, PASS).verdict is Verdict.PASSED
    assert conclude(LATE, PASS).second
    assert conclude(LATE, REFUSED).verdict is Verdict.REFUSED
    assert conclude(REFUSED, WRONG).verdict is Verdict.WRONG


@pytest.mark.parametrize(("stalled", "verdict"), [(0.9, Verdict.LATE), (1.1, Verdict.VALIDATOR_FAULT)])
def test_a_validator_that_stood_still_for_a_quarter_of_the_deadline_does_not_judge(stalled, verdict):
    attempt = Attempt(Verdict.LATE, "late", "too late", elapsed=4.0, stalled=stalled)
    assert excused_stall(attempt, 4.0).verdict is verdict


def test_standing_still_excuses_no_wrong_bytes():
    attempt = Attempt(Verdict.WRONG, "answer", "other bytes", stalled=10.0)
    assert excused_stall(attempt, 4.0).verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([LATE] * 3 + [PASS] * 6, (Verdict.LATE, "late")),
        ([LATE] * 3 + [PASS] * 7, None),  # 30 % is not over 30 %
        ([LATE] * 2 + [PASS] * 1, None),  # two are no crowd
        ([LATE] * 2 + [REFUSED] * 2 + [PASS], None),  # not for the same reason
        ([WRONG] * 4 + [PASS], (Verdict.WRONG, "answer")),
    ],
)
def test_the_validator_is_at_fault_when_over_30_percent_and_at_least_3_fail_alike(attempts, expected):
    assert assumed_fault(judgements(*attempts), set(), 0) == expected


def test_who_has_been_failing_all_along_does_not_count_as_failing_at_once():
    failing = judgements(*[LATE] * 4, *[PASS] * 4)
    assert assumed_fault(failing, {"0", "1"}, 0) is None
    assert assumed_fault(failing, {"0"}, 0) is not None


def test_an_excuse_is_for_those_who_failed_in_that_way():
    way = (Verdict.LATE, "late")
    assert excuse(Judgement(LATE), way).verdict is Verdict.VALIDATOR_FAULT
    assert "too late" in excuse(Judgement(LATE), way).attempt.reason
    assert excuse(Judgement(WRONG), way).verdict is Verdict.WRONG
    assert excuse(Judgement(PASS), way).verdict is Verdict.PASSED


def coalition(rounds: int, *, budget: bool) -> float:
    """What is left of the score of four of ten miners that delete their disks together, after `rounds`."""
    standing = Standing(credited_bytes=1 << 40)
    for now in range(1, 301):
        standing = after_pass(standing, now, 32, 0.1)
    before = score(standing)
    excused: list[int] = []
    failing: set[str] = set()
    for now in range(301, 301 + rounds):
        recent = [past for past in excused if past > now - FAULT_WINDOW]
        used = min(len(recent), FAULT_BUDGET) if budget else 0
        if assumed_fault(judgements(*[REFUSED] * 4, *[PASS] * 6), failing, used) is not None:
            excused.append(now)
            continue
        standing = after_miss(standing, now)
        failing = {"0", "1", "2", "3"}
    return score(standing) / before


def test_without_a_budget_miners_who_delete_their_disks_together_are_paid_for_ever():
    # The rule to the letter, and the hole in it: a week of rounds without one leaf, and nothing is lost.
    assert coalition(2016, budget=False) == pytest.approx(1.0)


def test_with_the_budget_they_lose_their_score_like_anybody():
    assert coalition(2016, budget=True) < 1e-6
    assert coalition(72, budget=True) < 0.6
