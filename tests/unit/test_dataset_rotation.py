"""Key rotation: the new key begins where both keys say, and the old one is done."""

from dataclasses import replace

import pytest
from dataset_logs import (
    ALICE,
    BOB,
    CHARLIE,
    DORA,
    EVE,
    NOW,
    append,
    make_log,
    rotate,
    sign,
    sign_head,
    sign_rotation,
)

from tensorage.dataset import identity
from tensorage.dataset.entry import Rotation, SignedRotation
from tensorage.dataset.errors import HeadError, LogError
from tensorage.dataset.log import Log, equivocation, verify_log
from tensorage.dataset.memory import check_head, check_memory, remember

ROTATED = make_log(((ALICE, 2), (DORA, 2), (BOB, 1)))


def reason(log: Log, owner: str | None = None) -> str:
    with pytest.raises(LogError) as caught:
        verify_log(log, owner=owner, verify=identity.verify)
    return caught.value.reason


def with_rotations(*rotations: SignedRotation) -> Log:
    return replace(ROTATED, rotations=rotations)


def test_a_log_holds_for_the_first_key_the_newest_and_the_one_between_and_for_no_other():
    for pin in (ALICE, DORA, BOB):
        assert verify_log(ROTATED, owner=pin.owner, verify=identity.verify).keys == (
            ALICE.owner,
            DORA.owner,
            BOB.owner,
        )
    assert reason(ROTATED, EVE.owner) == "wrong_owner"


def test_a_rotation_may_stand_at_the_end_and_two_at_one_version():
    log = rotate(rotate(make_log(((ALICE, 2),)), ALICE, BOB), BOB, CHARLIE)
    assert verify_log(log, owner=ALICE.owner, verify=identity.verify).owner == CHARLIE.owner
    verify_log(append(log, CHARLIE), owner=ALICE.owner, verify=identity.verify)
    assert reason(append(log, ALICE)) == "mixed_signers"
    assert reason(append(log, BOB)) == "mixed_signers"


def test_without_its_rotation_the_new_key_is_a_stranger():
    first, second = ROTATED.rotations
    assert reason(with_rotations()) == "mixed_signers"
    assert reason(with_rotations(first)) == "mixed_signers"
    assert reason(with_rotations(second)) == "mixed_signers"
    assert reason(with_rotations(second, first)) in {"bad_rotation", "equivocation"}


def test_a_rotation_needs_both_keys():
    first, second = ROTATED.rotations
    for wrong in (
        replace(first, signature=ALICE.sign(bytes(32))),
        replace(first, signature=EVE.sign(first.rotation.hash)),
        replace(first, new_signature=DORA.sign(bytes(32))),
    ):
        assert reason(with_rotations(wrong, second)) == "bad_rotation"
    swapped = SignedRotation(second.rotation, second.new_signature, second.signature)
    assert reason(with_rotations(first, swapped)) == "not_canonical"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("id", "another", "wrong_id"),
        ("old", EVE.owner, "bad_rotation"),
        ("new", EVE.owner, "bad_rotation"),
        ("after", 1, "bad_rotation"),
        ("after", 6, "bad_rotation"),
        ("after", 2**53 - 1, "bad_rotation"),
        ("entry_hash", bytes(32), "bad_rotation"),
        ("time", 1, "bad_rotation"),
    ],
)
def test_an_altered_rotation_is_refused(field, value, expected):
    first, second = ROTATED.rotations
    other = replace(first, rotation=replace(first.rotation, **{field: value}))
    assert reason(with_rotations(other, second)) == expected


def test_a_rotation_after_another_version_is_refused_even_when_both_keys_sign_it():
    log = rotate(make_log(((ALICE, 2),)), ALICE, BOB)
    true = log.rotations[0].rotation
    for wrong in (replace(true, entry_hash=bytes(32)), replace(true, after=1), replace(true, after=3)):
        assert reason(replace(log, rotations=(sign_rotation(wrong, ALICE, BOB),))) == "bad_rotation"


def test_a_key_that_was_rotated_away_does_not_return():
    there = append(rotate(make_log(((ALICE, 2),)), ALICE, BOB), BOB)
    assert reason(append(rotate(there, BOB, ALICE), ALICE)) == "bad_rotation"
    assert reason(rotate(make_log(((ALICE, 2),)), ALICE, ALICE)) == "bad_rotation"


def test_two_rotations_away_from_one_key_are_an_equivocation():
    log = make_log(((ALICE, 2),))
    to_bob, to_eve = rotate(log, ALICE, BOB), rotate(log, ALICE, EVE)
    both = replace(log, rotations=to_bob.rotations + to_eve.rotations)
    assert reason(both) == "equivocation"
    assert equivocation(to_bob, to_eve) == (to_bob.rotations[0], to_eve.rotations[0])
    assert equivocation(log, to_bob) is equivocation(to_bob, append(to_bob, BOB)) is None


def test_rotations_go_forwards():
    log = make_log(((ALICE, 1), (BOB, 2), (CHARLIE, 1)))
    backwards = Rotation(log.id, BOB.owner, CHARLIE.owner, 1, log.entries[0].entry.hash, NOW)
    first = log.rotations[0]
    later = replace(first.rotation, after=2, entry_hash=log.entries[1].entry.hash)
    wrong = (sign_rotation(later, ALICE, BOB), sign_rotation(backwards, BOB, CHARLIE))
    assert reason(replace(log, rotations=wrong)) == "bad_rotation"


def test_a_buyer_does_not_forget_a_rotation():
    """Whoever has the old key can sign a log as if it had never been rotated away."""
    log = make_log(((ALICE, 2),))
    rotated = rotate(log, ALICE, BOB)
    known = check_head(None, rotated, sign_head(rotated, BOB), NOW, verify=identity.verify)
    for old in (log, append(log, ALICE)):
        verify_log(old, owner=ALICE.owner, verify=identity.verify)
        with pytest.raises(HeadError) as caught:
            check_head(known, old, sign_head(old, ALICE), NOW, verify=identity.verify)
        assert caught.value.reason == "retired_owner"
    assert check_head(known, rotated, sign_head(rotated, BOB), NOW, verify=identity.verify) == known


def test_a_new_key_does_not_start_a_history_of_its_own():
    rotated = append(rotate(make_log(((ALICE, 2),)), ALICE, BOB), BOB)
    known = remember(rotated, NOW)
    for count, expected in ((2, "lower_seq"), (3, "other_hash")):
        own = make_log(((BOB, count),))
        verify_log(own, owner=BOB.owner, verify=identity.verify)
        with pytest.raises(HeadError) as caught:
            check_memory(known, own)
        assert caught.value.reason == expected


def test_two_versions_with_one_number_are_evidence():
    log = make_log()
    other = append(replace(log, entries=log.entries[:2]), ALICE, size=7)
    assert equivocation(log, other) == (log.entries[2], other.entries[2])
    entries = (*log.entries, sign(replace(other.head, prev_hash=log.head.hash), ALICE))
    assert reason(replace(log, entries=entries)) == "equivocation"
