"""Attacks on the answer: hashes without leaves, answers of another form, place, time or distance."""

from __future__ import annotations

from dataclasses import replace

import pytest
from adversaries import (
    OTHER_VALIDATOR,
    AnotherPlace,
    Endless,
    FarDisk,
    Forger,
    Grinder,
    HashesOnly,
    Replayer,
    asked,
)
from contest import claimed, contest
from validator_net import PARAMETERS, TestMiner, subnet, with_parameters

from tensorage.encoding import sha256, u64
from tensorage.receipts import Verdict

SECTORS = range(2)


async def fought(tmp_path, adversary, rounds=4, parameters=PARAMETERS):
    """The outcome against an honest miner of the same claim."""
    honest = TestMiner("Honest", SECTORS)
    honest.commit(90)
    if not adversary.chain:
        adversary.commit(90)
    assert claimed(adversary) == claimed(honest)
    async with subnet(tmp_path, adversary, honest, parameters=parameters) as net:
        ended = await contest(net, adversary, honest, rounds)
        assert set(net.of(honest).counts) == {Verdict.PASSED}
    return ended


async def test_hashes_without_leaves_prove_nothing(tmp_path):
    ended = await fought(tmp_path, HashesOnly("HashesOnly", SECTORS))
    assert (ended.share, set(ended.verdicts)) == (0, {Verdict.WRONG})
    assert ended.last.reason.startswith("hop 0: leaf ")
    assert "not the one committed to" in ended.last.reason


def swapped(right: bytes, hop: int) -> bytes:
    return right[hop : 2 * hop] + right[:hop] + right[2 * hop :]


def another_sector(right: bytes, hop: int) -> bytes:
    return u64(int.from_bytes(right[:8], "big") ^ 1) + right[8:]


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda right, hop: b"", "ends at byte 0"),
        (lambda right, hop: right[: hop * 4], "hop 4"),
        (lambda right, hop: right[:-1], "inside a field of 64"),
        (swapped, "hop 0"),
        (lambda right, hop: right[:hop] * 2 + right[2 * hop :], "hop 1"),
        (lambda right, hop: right * 2, "at most"),
        (lambda right, hop: right + b"\0", "1 bytes too many"),
        (another_sector, "hop 0"),
    ],
    ids=["empty", "half", "short", "reordered", "a hop twice", "all twice", "long", "another sector index"],
)
async def test_an_answer_of_another_form_is_wrong_though_every_byte_is_kept(tmp_path, forge, reason):
    ended = await fought(tmp_path, Forger("Forger", SECTORS, forge), rounds=3)
    assert (ended.share, set(ended.verdicts)) == (0, {Verdict.WRONG})
    assert reason in ended.last.reason


async def test_a_leaf_of_another_place_is_wrong(tmp_path):
    ended = await fought(tmp_path, AnotherPlace("AnotherPlace", SECTORS))
    assert (ended.share, set(ended.verdicts)) == (0, {Verdict.WRONG})
    assert "not the one committed to" in ended.last.reason


@pytest.mark.parametrize(
    "other",
    [
        lambda miner, message: asked(miner, message.model_copy(update={"round": message.round - 1})),
        lambda miner, message: asked(miner, message, OTHER_VALIDATOR.public_key),
        lambda miner, message: replace(asked(miner, message), block_hash=sha256(b"an older block")),
    ],
    ids=["of the round before", "for another validator", "of an older block"],
)
async def test_an_answer_to_another_challenge_is_wrong(tmp_path, other):
    ended = await fought(tmp_path, Replayer("Replayer", SECTORS, other))
    assert (ended.share, set(ended.verdicts)) == (0, {Verdict.WRONG})
    assert ended.last.reason.startswith("hop 0")


async def test_an_answer_that_passed_once_is_wrong_ever_after(tmp_path):
    adversary = Replayer("Replayer", SECTORS, lambda miner, message: asked(miner, miner.asked[0]))
    ended = await fought(tmp_path, adversary)
    # The right answer and the audit that it earns; from then on the same answer, on the next block and day.
    assert ended.verdicts == [Verdict.PASSED, Verdict.PASSED, Verdict.WRONG, Verdict.WRONG]
    assert ended.share == 0
    assert ended.last.reason.startswith("hop 0")


async def test_a_commitment_dated_back_and_ground_for_a_known_block_gains_nothing(tmp_path):
    adversary, honest = Grinder("Grinder", SECTORS, 0.7), TestMiner("Honest", SECTORS)
    honest.commit(90)
    async with subnet(tmp_path, adversary, honest) as net:
        # It knows block 105, and that round 2 could use it: the validator looks at it in round 1, at 105.
        easy = adversary.grind(net.chain.block(105).hash, 2, PARAMETERS.hops)
        await net.round()
        assert adversary.asked == []
        await net.round(blocks=0)
        assert adversary.asked == []  # 105 is the block at which it was first seen, so it is never used
        ended = await contest(net, adversary, honest, 8)
        assert min(message.block_number for message in adversary.asked) > 105
        assert easy.nonce not in {asked(adversary, message).nonce for message in adversary.asked}
        assert Verdict.REFUSED in ended.verdicts
        assert ended.share < 0.5 * adversary.fraction


async def test_a_disk_a_round_trip_away_is_late_and_a_near_one_is_not(tmp_path):
    # 8 hops of 0.2 s do not fit in 1 s: a walk cannot be prefetched, nor read in one go.
    far, near = FarDisk("Far", SECTORS, 0.2), FarDisk("Near", SECTORS, 0.01)
    for miner in (far, near):
        miner.commit(90)
    async with subnet(tmp_path, far, near) as net:
        ended = await contest(net, far, near, 3)
        assert (ended.share, set(ended.verdicts)) == (0, {Verdict.LATE})
        assert "asked twice" in ended.last.reason
        assert ended.last.elapsed_ms >= 1000 * PARAMETERS.deadline - 1
        assert net.of(far).standing.integrity == 1.0  # slow is not wrong
        assert set(net.of(near).counts) == {Verdict.PASSED}  # nor can anybody tell a disk in the next rack


async def test_an_answer_that_never_ends_ends_at_the_deadline_and_holds_up_nobody(tmp_path):
    parameters = with_parameters(deadline=0.5)
    adversary = Endless("Endless", SECTORS)
    honest = [TestMiner(name, SECTORS) for name in ("Honest", "Other", "Third")]
    for miner in (adversary, *honest):
        miner.commit(90)
    async with subnet(tmp_path, adversary, *honest, parameters=parameters) as net:
        await net.round()
        for _ in range(2):
            adversary.sent = 0
            report = await net.round()
            assert report.verdicts == {Verdict.LATE: 1, Verdict.PASSED: 3}
            assert adversary.sent > 4  # it did send
            assert (
                report.seconds < 5 * parameters.deadline
            )  # two askings, and what the miners share of a core
        ended = await contest(net, adversary, honest[0], 1)
        assert (ended.share, set(ended.verdicts)) == (0, {Verdict.LATE})
        assert "had not answered whole after 0.5 s" in ended.last.reason
        assert all(set(net.of(miner).counts) == {Verdict.PASSED} for miner in honest)
