"""What holds of a miner's credit through any sequence of commitments and audits."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tensorage.commitment import Entry, SignedCommitment, first_commitment, next_commitment
from tensorage.encoding import sha256, u64
from tensorage.seal import DEV
from tensorage.validator import rows, scoring, standing
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

    @rule(indices=st.sets(st.integers(0, 6)), version=st.integers(0, 1))
    def commit(self, indices: set[int], version: int) -> None:
        listing = entries(indices, version)
        known = self.miner.commitment
        new = (
            next_commitment(known.commitment, listing, self.height)
            if known
            else first_commitment(GENESIS, 1, MINER, 0, listing, self.height)
        )
        draw, before = self.miner.draw, dict(self.miner.listing)
        self.miner = standing.taken(
            self.miner, SignedCommitment(new, bytes(64)), listing, self.height, self.now
        )
        self.covered &= set(listing)
        if draw is not None and dict(listing).get(draw.sector) != before[draw.sector]:
            self.covered = set()
            assert self.miner.audits_due == scoring.REAUDIT_SECTORS
        self.height += 1

    @rule(passed=st.booleans())
    def audit(self, passed: bool) -> None:
        self.now += 1
        pending = self.miner.pending
        owed = self.miner.draw
        self.miner = standing.with_draw(self.miner, VALIDATOR, self.height, sha256(u64(self.now)), self.now)
        draw = self.miner.draw
        if draw is None:
            assert not self.miner.listing
            return
        if owed is not None:
            assert draw == owed
        elif pending:
            assert draw.sector in pending
        if passed:
            due = self.miner.audits_due
            self.miner = standing.audit_passed(self.miner, self.now)
            if due <= 1:
                self.covered = set(self.miner.listing)
        else:
            self.miner = standing.audit_unanswered(self.miner, self.now)
            self.covered = set()

    @rule()
    def defraud(self) -> None:
        self.miner = standing.caught(self.miner, self.now)
        self.covered = set()

    @invariant()
    def credit_is_what_an_audit_covers_and_the_listing_holds(self) -> None:
        held = dict(self.miner.listing)
        assert {(index, held[index]) for index in self.miner.credited} == self.covered
        assert self.miner.standing.credited_bytes == len(self.covered) * DEV.size
        assert set(self.miner.pending) | self.miner.credited == set(held)

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
