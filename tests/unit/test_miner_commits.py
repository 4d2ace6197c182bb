"""When a miner commits: at once, then at most once a tempo, and not because of a passing damage."""

from __future__ import annotations

import pytest

from tensorage.commitment import Commitment, first_commitment
from tensorage.miner.commits import Change, change_of, may_commit

A, B, C = ((index, bytes([index + 1]) * 32) for index in range(3))
OTHER_A = (0, b"a" * 32)  # the same sector, with a client's shard in it
TEMPO = 20


def committed_at(block: int) -> Commitment:
    return first_commitment(bytes(32), 1, bytes(32), 0, [A], block)


@pytest.mark.parametrize(
    ("committed", "kept", "planned", "change"),
    [
        ([], [], {0, 1}, Change.NONE),
        ([], [A], {0, 1}, Change.GROWN),
        ([A], [A], {0, 1}, Change.NONE),
        ([A], [A, B], {0, 1}, Change.GROWN),
        ([A, B], [A], {0, 1}, Change.DAMAGED),
        ([A, B], [A, C], {0, 1, 2}, Change.DAMAGED),
        ([A, B], [A], {0}, Change.GIVEN_UP),
        ([A, B], [A, C], {0, 2}, Change.GIVEN_UP),
        ([A], [OTHER_A], {0}, Change.DISPLACED),
        ([A], [OTHER_A, B], {0, 1}, Change.DISPLACED),
        ([A, B], [OTHER_A], {0, 1}, Change.DAMAGED),
        ([A, B], [OTHER_A], {0}, Change.GIVEN_UP),
    ],
)
def test_what_changed_is_named(committed, kept, planned, change):
    assert change_of(committed, kept, planned) is change


def test_the_first_commitment_is_made_at_once():
    assert may_commit(None, 5, TEMPO, Change.GROWN)
    assert not may_commit(None, 5, TEMPO, Change.NONE)


@pytest.mark.parametrize("change", [Change.GROWN, Change.DISPLACED, Change.LINGERING, Change.GIVEN_UP])
def test_later_ones_are_made_at_most_once_a_tempo(change):
    newest = committed_at(100)
    assert not may_commit(newest, 100 + TEMPO - 1, TEMPO, change)
    assert may_commit(newest, 100 + TEMPO, TEMPO, change)


def test_nothing_new_is_not_committed_to_again():
    assert not may_commit(committed_at(100), 10_000, TEMPO, Change.NONE)


def test_a_damaged_sector_has_a_tempo_to_come_back():
    newest = committed_at(100)
    assert not may_commit(newest, 1000, TEMPO, Change.DAMAGED, damaged_since=1000)
    assert not may_commit(newest, 1000 + TEMPO - 1, TEMPO, Change.DAMAGED, damaged_since=1000)
    assert may_commit(newest, 1000 + TEMPO, TEMPO, Change.DAMAGED, damaged_since=1000)
