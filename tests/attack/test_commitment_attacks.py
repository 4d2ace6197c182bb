"""Attacks on the commitment: to more than there is, to two things at once, to something new all the time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from adversaries import Flood, some_roots
from contest import claimed, contest, is_in_quarantine
from validator_net import GENESIS, NETUID, TEMPO, TestMiner, sealed, subnet

from tensorage import commitment as commitments
from tensorage import merkle
from tensorage.commitment import Commitment
from tensorage.receipts import Verdict
from tensorage.validator.parameters import MAX_BETWEEN

CLAIM = 16


def commitment_to(miner: TestMiner, entries: list[tuple[int, bytes]], count: int) -> Commitment:
    """A first commitment to any entries in any order, and to any count of them."""
    root = merkle.root([commitments.capacity_leaf(*entry) for entry in entries])
    return Commitment(GENESIS, NETUID, miner.key.public_key, 1, bytes(32), 0, count, root, 90)


def one_many_times(own):
    return own * CLAIM, own * CLAIM


def shorter_listing(own):
    return own, own


def roots_of_nothing(own):
    return own + some_roots(CLAIM)[1:], own + some_roots(CLAIM)[1:]


def another_listing(own):
    return own * CLAIM, own + some_roots(CLAIM)[1:]


@pytest.mark.parametrize(
    ("overclaim", "reason"),
    [
        (one_many_times, "ascend"),
        (shorter_listing, "got 0"),
        (another_listing, "listing has the root"),
    ],
    ids=["one index many times", "a shorter listing", "another listing"],
)
async def test_a_count_that_its_listing_does_not_bear_out_is_wrong_and_never_taken(
    tmp_path, overclaim, reason
):
    """Keeps one sector and claims sixteen. Hopes to be paid by the count."""
    adversary, honest = TestMiner("Overclaim", [0]), TestMiner("Honest", range(CLAIM))
    committed, listed = overclaim(adversary.entries())
    adversary.publish(commitment_to(adversary, committed, CLAIM), listed)
    honest.commit(90)
    assert claimed(adversary) == claimed(honest)
    async with subnet(tmp_path, adversary, honest) as net:
        ended = await contest(net, adversary, honest)
        assert (ended.share, set(ended.verdicts)) == (0, {Verdict.WRONG})
        assert reason in ended.last.reason
        assert adversary.asked == []
        assert net.of(adversary).commitment is None


async def test_sectors_that_were_never_made_cannot_be_opened(tmp_path):
    """Keeps one sector, and lists it with fifteen roots of nothing. Hopes to be asked about the one."""
    adversary, honest = TestMiner("Overclaim", [0]), TestMiner("Honest", range(CLAIM))
    committed, listed = roots_of_nothing(adversary.entries())
    adversary.publish(commitment_to(adversary, committed, CLAIM), listed)
    honest.commit(90)
    async with subnet(tmp_path, adversary, honest) as net:
        ended = await contest(net, adversary, honest)
        assert (ended.share, set(ended.verdicts)) == (0, {Verdict.REFUSED})
        assert "is not here" in ended.last.reason


async def test_two_commitments_of_one_number_cost_everything(tmp_path):
    """Keeps two sectors, shows a commitment to them, then another of the same number to four.

    Hopes to be taken at whichever word is larger.
    """
    adversary, honest = TestMiner("TwoFaced", range(2)), TestMiner("Honest", range(2))
    for miner in (adversary, honest):
        miner.commit(90)
    async with subnet(tmp_path, adversary, honest) as net:
        before = await contest(net, adversary, honest)
        assert before.share == pytest.approx(1, rel=0.01)
        for index in (2, 3):
            adversary.disk[index] = sealed(adversary.key.public_key, index)
        entries = adversary.entries()
        second = replace(
            commitments.first_commitment(GENESIS, NETUID, adversary.key.public_key, 0, entries, 90),
            block_number=net.chain.height,
        )
        adversary.publish(second, entries)
        ended = await contest(net, adversary, honest, 2)
        assert (ended.share, ended.last.verdict) == (0, Verdict.WRONG)
        assert "two stories" in ended.last.reason
        assert is_in_quarantine(net, adversary)
        forks = await net.book.run(net.book.ledger.forks)
        assert [fork[0] for fork in forks] == [adversary.key.ss58]


async def test_a_flood_of_commitments_costs_one_listing_a_tempo_and_gains_nothing(tmp_path):
    adversary, honest = Flood("Flood", range(4)), TestMiner("Honest", range(4))
    for miner in (adversary, honest):
        miner.commit(90)
    rounds, blocks, new_ones = 16, 5, 4
    async with subnet(tmp_path, adversary, honest) as net:
        for _ in range(rounds):
            await net.round(blocks=blocks)
            for _ in range(new_ones):
                adversary.commit(net.chain.height)
        assert adversary.listings_served <= 1 + rounds * blocks // TEMPO
        # The newest each round; once a tempo those between, which are 300 bytes each.
        assert adversary.commitments_served <= rounds * (1 + new_ones)
        # It is asked in every round but the first all the same: about the one before where need be.
        assert len(adversary.asked) == rounds - 1
        ended = await contest(net, adversary, honest, 1)
        assert set(ended.verdicts) == {Verdict.PASSED}
        assert ended.share <= 1 + 1e-9


async def test_a_flood_too_long_to_be_followed_starts_from_zero(tmp_path):
    adversary, honest = Flood("Flood", range(4)), TestMiner("Honest", range(4))
    for miner in (adversary, honest):
        miner.commit(90)
    async with subnet(tmp_path, adversary, honest) as net:
        before = await contest(net, adversary, honest, 4)
        assert before.share == pytest.approx(1, rel=0.01)
        for _ in range(MAX_BETWEEN + 1):
            adversary.commit(net.chain.height)
        served = adversary.commitments_served
        ended = await contest(net, adversary, honest, 1)
        assert adversary.commitments_served == served + 1  # not one of those between
        assert net.of(adversary).standing.credited_bytes == 0
        assert ended.share == 0
