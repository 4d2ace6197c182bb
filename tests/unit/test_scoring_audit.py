"""Which miners are audited in a round, and what that may cost."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest

from tensorage.chain.types import Epoch
from tensorage.commitment import SignedCommitment, first_commitment
from tensorage.encoding import sha256
from tensorage.validator import standing
from tensorage.validator.audit import FIRST_ESTIMATE, STEADY_ROUNDS, Auditor, Budget, queue
from tensorage.validator.parameters import Parameters
from tensorage.validator.scoring import after_fraud
from tensorage.validator.standing import Miner
from tensorage.validator.weights import due

GENESIS = sha256(b"genesis")


def miner(name: str, *, credited: bool, last_audit: int = 0, seen: int = 10) -> Miner:
    key = sha256(name.encode())
    entries = [(0, sha256(b"root"))]
    signed = SignedCommitment(first_commitment(GENESIS, 1, key, 1, entries, 5), bytes(64))
    fresh = standing.taken(Miner(name, key, len(name), 1), signed, entries, seen, 1)
    audited = standing.audit_passed(fresh, last_audit) if credited else fresh
    return replace(audited, last_audit=last_audit)


def names(*miners: Miner, block: int = 100, now: int = 50) -> list[str]:
    return [found.hotkey for found in queue(miners, {m.hotkey for m in miners}, block, now)]


def test_what_waits_for_credit_comes_first_then_what_was_checked_longest_ago():
    found = names(
        miner("old", credited=True, last_audit=1),
        miner("older", credited=True, last_audit=0),
        miner("new", credited=False),
        miner("recent", credited=True, last_audit=50 - STEADY_ROUNDS + 1),
    )
    assert found == ["new", "older", "old"]


def test_a_flood_of_new_sectors_does_not_end_the_steady_audits():
    parameters = Parameters(audit_seconds=1000.0)
    auditor = Auditor(None, None, parameters, None)
    auditor._budget.begin()
    new = deque(miner(f"new{number}", credited=False) for number in range(9))
    old = deque(miner(f"old{number}", credited=True) for number in range(2))
    chosen = [auditor._next(new, old).hotkey[:3] for _ in range(9)]
    assert chosen == ["new", "new", "old", "new", "new", "old", "new", "new", "new"]
    old.append(miner("old2", credited=True))
    new.clear()
    assert auditor._next(new, old).hotkey == "old2"
    assert auditor._next(new, old) is None


def test_who_is_left_alone_for_a_while_is_not_due():
    one = miner("one", credited=False)
    assert queue([one], {"one"}, 100, 50, {"one": 51}) == []
    assert queue([one], {"one"}, 100, 51, {"one": 51}) == [one]


def test_where_tickets_bar_every_sector_nothing_is_drawn():
    one = standing.with_barred(miner("one", credited=True), {0})
    assert names(one) == []
    assert standing.with_draw(one, sha256(b"v"), 100, sha256(b"b"), 50) == one
    assert names(standing.with_barred(one, set())) == ["one"]  # it waits for an audit again


def test_nobody_is_drawn_with_a_block_that_was_known_when_it_committed():
    fresh = miner("fresh", credited=False, seen=100)
    assert names(fresh, block=100) == []
    assert names(fresh, block=101) == ["fresh"]


def test_who_did_not_pass_or_is_in_quarantine_is_not_audited():
    one = miner("one", credited=False)
    assert queue([one], set(), 100, 50) == []
    assert names(replace(one, standing=after_fraud(one.standing, 40))) == []


def test_the_budget_is_saved_up_until_an_audit_can_be_paid_and_no_further():
    budget = Budget(5.0)
    taken = []
    for _ in range(12):
        budget.begin()
        taken.append(budget.take(1))
    cost = FIRST_ESTIMATE[1]
    assert sum(taken) == int(12 * 5.0 / cost)
    for _ in range(100):
        budget.begin()
    assert budget.left <= 5.0 + cost


def test_the_budget_learns_what_an_audit_costs_here():
    budget = Budget(100.0)
    budget.begin()
    for _ in range(30):
        budget.begin()
        assert budget.take(1)
        budget.spent(1, 40.0)
    assert budget.estimates[1] == pytest.approx(40.0, rel=0.01)
    assert not Budget(0.0, left=100.0).take(0)  # switched off


@pytest.mark.parametrize(
    ("block", "last_set", "expected"),
    [
        (105, None, True),  # never: at once
        (105, 95, False),  # set in the second half of the tempo before
        (105, 80, True),  # missed that
        (110, 95, True),  # the second half of this one begins
        (111, 110, False),
    ],
)
def test_weights_are_due_once_a_tempo_in_its_second_half(block, last_set, expected):
    assert due(Epoch(block, 20, 100, 120), last_set) is expected
