"""Attacks over clients' slots: to be paid for chunks that are neither filler nor a client's."""

from __future__ import annotations

import pytest
from contest import Outcome, claimed, contest, is_in_quarantine
from slot_adversaries import (
    COLLUDER,
    EndlessSlots,
    Inflated,
    NamesWhenAsked,
    OldCommitmentOnly,
    OldDisk,
    StopsNaming,
    Tickets,
    TinyShard,
    Unnamed,
    ended,
    for_another,
    forged,
    of_another_subnet,
    one_for_all,
    signed_by_colluder,
    without_permit,
)
from slots_net import Keeper
from validator_net import TEMPO, Subnet, TestMiner, sealed, subnet

from tensorage.receipts import Verdict
from tensorage.validator import exchange, slots

SECTORS = range(3)


def pair(adversary: Keeper) -> tuple[Keeper, TestMiner]:
    """An adversary, and an honest miner of the same claim; both have committed."""
    honest = TestMiner("Honest", range(len(adversary.disk)))
    for miner in (adversary, honest):
        miner.commit(90)
    assert claimed(adversary) == claimed(honest)
    return adversary, honest


async def trusted(net: Subnet, adversary: Keeper) -> None:
    """Rounds until it has all its credit, as an honest miner would."""
    for _ in range(3):
        await net.round()
    assert len(net.of(adversary).credited) == len(adversary.disk)


async def turned(net: Subnet, adversary: Keeper, honest: TestMiner, rounds: int = 4) -> Outcome:
    """It commits to what it has become, and what that comes to."""
    net.chain.advance(TEMPO)
    adversary.commit(net.chain.height)
    return await contest(net, adversary, honest, rounds)


async def test_garbage_in_a_slot_with_a_forged_ticket_is_fraud(tmp_path):
    adversary, honest = pair(Tickets("Slots", SECTORS, forged))
    async with subnet(tmp_path, adversary, honest) as net:
        await trusted(net, adversary)
        adversary.turn(1)
        outcome = await turned(net, adversary, honest)
        assert (outcome.share, outcome.last.verdict) == (0, Verdict.WRONG)
        assert "1 of 1 chunks of sector 1 are not the sealed ones" in outcome.last.reason
        assert is_in_quarantine(net, adversary)


async def test_so_is_a_client_s_shard_that_is_not_named(tmp_path):
    adversary, honest = pair(Unnamed("Slots", SECTORS))
    async with subnet(tmp_path, adversary, honest) as net:
        await trusted(net, adversary)
        adversary.turn(1)
        outcome = await turned(net, adversary, honest)
        assert (outcome.share, outcome.last.verdict) == (0, Verdict.WRONG)
        assert is_in_quarantine(net, adversary)


@pytest.mark.parametrize(
    ("issue", "paid", "reason"),
    [
        (for_another, 1, "is for another miner"),
        (of_another_subnet, 1, "another chain or subnet"),
        (ended, 1, "has ended"),
        (without_permit, 1, "has no validator permit"),
        (one_for_all, 2, "takes more than one slot"),
    ],
    ids=["another miner's", "another subnet's", "ended", "signed by nobody", "one for many"],
)
async def test_a_sector_with_a_ticket_that_is_not_good_has_no_credit(tmp_path, issue, paid, reason):
    """Two of its three sectors are slots. It is paid for the others, and is no fraud: it may be deceived."""
    adversary, honest = pair(Tickets("Slots", SECTORS, issue))
    async with subnet(tmp_path, adversary, honest) as net:
        await trusted(net, adversary)
        adversary.turn(0, 1)
        outcome = await turned(net, adversary, honest)
        assert outcome.share == pytest.approx(paid / 3, rel=0.02)
        (refusal,) = [r for r in outcome.receipts if r.verdict is Verdict.REFUSED]
        assert reason in refusal.reason
        assert Verdict.WRONG not in outcome.verdicts


async def test_a_validator_that_colludes_can_give_away_its_share_and_a_tenth_of_that(tmp_path):
    adversary, honest = pair(Tickets("Slots", range(20), signed_by_colluder))
    async with subnet(tmp_path, adversary, honest) as net:
        net.chain.stakes[COLLUDER] = net.chain.stakes[next(iter(net.chain.stakes))]
        await trusted(net, adversary)
        adversary.turn(*range(20))
        outcome = await turned(net, adversary, honest)
        assert outcome.share == pytest.approx(12 / 20, rel=0.02)  # half, a tenth of that, and one
        refusal = next(r for r in outcome.receipts if r.verdict is Verdict.REFUSED)
        assert "no credit for 8 sectors" in refusal.reason
        assert "is over the share of" in refusal.reason


async def test_sectors_of_zeros_that_should_widen_that_share_are_fraud(tmp_path):
    adversary, honest = Inflated("Slots", range(2)), TestMiner("Honest", range(22))
    for miner in (adversary, honest):
        miner.commit(90)
    async with subnet(tmp_path, adversary, honest) as net:
        net.chain.stakes[COLLUDER] = 1000.0
        await trusted(net, adversary)
        adversary.turn()
        assert len(adversary.disk) == len(honest.disk)
        outcome = await turned(net, adversary, honest)
        assert (outcome.share, outcome.last.verdict) == (0, Verdict.WRONG)
        assert is_in_quarantine(net, adversary)


@pytest.mark.parametrize("own_hashes", [False, True], ids=["the filler's hashes", "the garbage's hashes"])
async def test_a_tiny_shard_does_not_cover_the_rest_of_its_chunk(tmp_path, own_hashes):
    adversary, honest = pair(TinyShard("Slots", SECTORS, own_hashes=own_hashes))
    async with subnet(tmp_path, adversary, honest) as net:
        await trusted(net, adversary)
        adversary.turn(1)
        outcome = await turned(net, adversary, honest, 1)
        assert 1 not in net.of(adversary).credited  # the change was not believed
        outcome = await contest(net, adversary, honest, 3)
        assert (outcome.share, outcome.last.verdict) == (0, Verdict.WRONG)
        assert "nor what ticket 1 makes of it" in outcome.last.reason
        assert is_in_quarantine(net, adversary)


async def test_garbage_is_fraud_though_it_is_named_as_soon_as_it_is_drawn(tmp_path):
    adversary, honest = pair(NamesWhenAsked("Slots", SECTORS))
    async with subnet(tmp_path, adversary, honest) as net:
        await trusted(net, adversary)
        adversary.turn(1)
        outcome = await turned(net, adversary, honest, 2)
        draw = net.of(adversary).draw
        assert draw is not None and draw.sector == 1
        assert outcome.share == 0  # no credit while it owes that
        adversary.name_it(1)
        outcome = await turned(net, adversary, honest)
        assert net.of(adversary).barred == set()
        assert (outcome.share, outcome.last.verdict) == (0, Verdict.WRONG)
        assert is_in_quarantine(net, adversary)


async def test_a_ticket_that_has_ended_costs_its_sector_whether_it_is_named_or_not(tmp_path):
    adversary, honest = pair(StopsNaming("Slots", SECTORS))
    async with subnet(tmp_path, adversary, honest) as net:
        await trusted(net, adversary)
        adversary.turn(1)
        outcome = await turned(net, adversary, honest, 2)
        assert outcome.share == pytest.approx(1, rel=0.02)
        net.chain.unix = adversary.slots[1].ticket.expires + slots.GRACE_SECONDS + 1
        adversary.hide()
        outcome = await turned(net, adversary, honest)
        assert outcome.share == pytest.approx(2 / 3, rel=0.02)
        refusal = next(r for r in outcome.receipts if r.verdict is Verdict.REFUSED)
        assert "chunk 0 of sector 1: ticket 1 has ended 8 days ago" in refusal.reason


async def test_answering_about_the_commitment_before_does_not_do(tmp_path):
    adversary, honest = pair(OldCommitmentOnly("Slots", SECTORS))
    async with subnet(tmp_path, adversary, honest) as net:
        await trusted(net, adversary)
        adversary.put(1, adversary.ticket(1))
        outcome = await turned(net, adversary, honest, 12)
        assert outcome.share < 0.4  # of 15 challenges it answered 4, and it answers no more
        assert outcome.verdicts[-11:] == [Verdict.REFUSED] * 11


async def test_a_disk_of_yesterday_is_found_by_its_leaves(tmp_path):
    adversary, honest = pair(OldDisk("Slots", range(1)))
    async with subnet(tmp_path, adversary, honest) as net:
        await trusted(net, adversary)
        adversary.put(0, adversary.ticket(1))
        outcome = await turned(net, adversary, honest, 3)
        assert (outcome.share, outcome.last.verdict) == (0, Verdict.WRONG)


async def test_a_disk_of_yesterday_that_commits_again_tells_two_stories(tmp_path):
    """It has lost that it took a shard, and its second commitment; it grows by a sector and commits."""
    adversary, honest = pair(Keeper("Slots", SECTORS))
    async with subnet(tmp_path, adversary, honest) as net:
        await trusted(net, adversary)
        adversary.put(1, adversary.ticket(1))
        outcome = await turned(net, adversary, honest, 2)
        assert outcome.share == pytest.approx(1, rel=0.02)
        adversary.give_back(1)
        adversary.chain.pop()
        outcome = await contest(net, adversary, honest, 1)  # the old one is shown: nothing is taken back
        assert outcome.last.verdict is Verdict.REFUSED
        index = len(adversary.disk)
        adversary.disk[index] = adversary.filler[index] = sealed(adversary.key.public_key, index)
        outcome = await turned(net, adversary, honest)
        assert (outcome.share, outcome.last.verdict) == (0, Verdict.WRONG)
        assert "two stories" in outcome.last.reason
        assert is_in_quarantine(net, adversary)


async def test_slots_without_end_are_cut_off_and_others_pass_in_the_same_round(tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "MOST_SLOTS", 5_000)
    adversary, honest = pair(EndlessSlots("Slots", SECTORS))
    async with subnet(tmp_path, adversary, honest) as net:
        outcome = await contest(net, adversary, honest)
        assert adversary.pages <= 4 * (5_000 // 1024 + 1)
        assert outcome.share == 0
        assert "over 5000 slots" in outcome.last.reason
        assert net.of(adversary).commitment is None
        assert Verdict.PASSED in net.of(honest).counts
