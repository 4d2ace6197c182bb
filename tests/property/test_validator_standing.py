"""What holds of a miner's credit through any sequence of commitments and audits."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tensorage.commitment import Entry, SignedCommitment, first_commitment, next_commitment
from tensorage.encoding import sha256, u64
from tensorage.receipts import Verdict
from tensorage.seal import DEV
from tensorage.validator import rows, scoring, standing
from tensorage.validator.judge import Attempt, Judgement
from tensorage.validator.standing import Miner

GENESIS, VALIDATOR, MINER = sha256(b"g"), sha256(b"v"), sha256(b"m")


def entries(indices: set[int], version: int = 0) -> list[Entry]:
    return [(index, sha256(u64(index) + u64(version))) for index in sorted(indices)]


class Credit(RuleBasedStateMachine):
    """A miner that commits to anything, against a model: which (index, root) pairs an audit covers."""

    def __init__(self) -> None:
        super().__init__()
        self.miner = Miner("hotkey", MINER, 1, 1)
        self.height = 10
        self.now = 1
        self.covered: set[Entry] = set()
        self.barred: set[int] = set()

    @rule(
        indices=st.sets(st.integers(0, 6)),
        version=st.integers(0, 1),
        verified=st.sets(st.integers(0, 6)),
        barred=st.sets(st.integers(0, 6), max_size=2),
    )
    def commit(self, indices: set[int], version: int, verified: set[int], barred: set[int]) -> None:
        """A new commitment; in `verified` only slots changed, in `barred` tickets are not good."""
        listing = entries(indices, version)
        barred &= indices
        known = self.miner.commitment
        new = (
            next_commitment(known.commitment, listing, self.height)
            if known
            else first_commitment(GENESIS, 1, MINER, 0, listing, self.height)
        )
        draw, before, after = self.miner.draw, dict(self.miner.listing), dict(listing)
        sampled, was = scoring.at_round(self.miner.standing, self.now).sampled, self.miner.commitment
        self.miner = standing.taken(
            self.miner,
            SignedCommitment(new, bytes(64)),
            listing,
            self.height,
            self.now,
            verified=verified,
            barred=barred,
        )
        kept = {i for i in after if i in before and (before[i] == after[i] or i in verified)}
        self.covered = {(i, after[i]) for i, _ in self.covered if i in kept and i not in barred}
        self.barred = barred
        if draw is not None and draw.sector not in kept:
            self.covered = set()
            assert self.miner.audits_due == scoring.REAUDIT_SECTORS
        assert self.miner.standing.sampled == pytest.approx(sampled * len(kept) / max(1, len(after)))
        assert self.miner.previous == (was if before and kept == set(before) else None)
        self.height += 1

    @rule(barred=st.sets(st.integers(0, 6)))
    def review(self, barred: set[int]) -> None:
        self.miner = standing.with_barred(self.miner, barred)
        self.barred = barred & set(dict(self.miner.listing))
        self.covered = {entry for entry in self.covered if entry[0] not in barred}

    @rule(leaves=st.integers(1, 32))
    def challenge(self, leaves: int) -> None:
        if self.miner.commitment is not None:
            passed = Judgement(Attempt(Verdict.PASSED, "", "", leaves=leaves))
            self.miner = standing.judged(self.miner, passed, self.now, 4.0)

    @rule(passed=st.sampled_from([True, False, None]))
    def audit(self, passed: bool | None) -> None:
        """An audit passes, brings nothing, or (None) finds a ticket that is not good."""
        self.now += 1
        pending = self.miner.pending
        owed = self.miner.draw
        self.miner = standing.with_draw(self.miner, VALIDATOR, self.height, sha256(u64(self.now)), self.now)
        draw = self.miner.draw
        if draw is None:
            assert set(dict(self.miner.listing)) == self.barred
            return
        if owed is not None:
            assert draw == owed
        elif pending:
            assert draw.sector in pending
        if passed:
            due = self.miner.audits_due
            self.miner = standing.audit_passed(self.miner, self.now)
            if due <= 1:
                self.covered = {entry for entry in self.miner.listing if entry[0] not in self.barred}
        elif passed is None:
            self.miner = standing.audit_refused(self.miner, self.now)
            self.barred = self.barred | {draw.sector}
            self.covered = {entry for entry in self.covered if entry[0] != draw.sector}
        else:
            self.miner = standing.audit_unanswered(self.miner, self.now)
            self.covered = set()

    @rule()
    def defraud(self) -> None:
        self.miner = standing.caught(self.miner, self.now)
        self.covered = self.barred = set()

    @invariant()
    def credit_is_what_an_audit_covers_and_the_listing_holds(self) -> None:
        held = dict(self.miner.listing)
        assert {(index, held[index]) for index in self.miner.credited} == self.covered
        assert self.miner.standing.credited_bytes == len(self.covered) * DEV.size
        assert self.miner.barred == self.barred
        assert set(self.miner.pending) | self.miner.credited | self.barred == set(held)
        assert not self.miner.credited & self.barred

    @invariant()
    def the_previous_one_is_asked_about_only_when_it_is_part_of_the_newest(self) -> None:
        target = standing.target(self.miner, self.height)
        assert target is None or target in (self.miner.commitment, self.miner.previous)


Credit.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestCredit = Credit.TestCase


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50, unique=True), st.binary(max_size=16))
def test_a_draw_is_one_of_the_candidates_and_follows_from_public_facts(candidates, salt):
    seed = standing.draw_seed(sha256(salt), VALIDATOR, sha256(b"block" + salt), 7)
    assert standing.drawn(candidates, seed) in candidates
    assert standing.drawn(candidates, seed) == standing.drawn(list(candidates), seed)


def test_draws_are_spread_evenly_over_the_candidates():
    drawn = Counter(standing.drawn(range(4), sha256(u64(number))) for number in range(4000))
    assert all(900 < drawn[index] < 1100 for index in range(4))


@given(st.dictionaries(st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32), max_size=20))
def test_listings_survive_the_ledger(listing):
    listed = sorted(listing.items())
    assert rows.read_entries(rows.write_entries(listed)) == listed
    assert rows.read_indices(rows.write_indices(listing)) == sorted(listing)
