"""Rounds over real sockets: what honest and dishonest miners come to."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from validator_net import (
    GENESIS,
    NETUID,
    PARAMETERS,
    TEMPO,
    VALIDATOR,
    TestMiner,
    sealed,
    subnet,
    with_parameters,
)

from tensorage import commitment as commitments
from tensorage import seal
from tensorage.chain.auth import verify
from tensorage.chain.types import Endpoint
from tensorage.errors import RequestError
from tensorage.hashchain import check_chain
from tensorage.receipts import Verdict
from tensorage.validator import export, scoring
from tensorage.validator.audit import FIRST_ESTIMATE
from tensorage.validator.round import NoPermitError
from tensorage.validator.scoring import QUARANTINE_ROUNDS
from tensorage.validator.status import read_status
from tensorage.validator.weights import Weights

SECTOR = seal.DEV.size


def score(net, miner: TestMiner) -> float:
    return scoring.score(net.of(miner).standing)


async def receipts_of(net, miner: TestMiner) -> list:
    page, _ = await net.book.run(net.book.ledger.receipts, 0, 1000, miner.key.public_key)
    return [receipt for receipt, _ in page]


async def test_an_honest_miner_is_audited_then_credited_and_its_score_grows_with_evidence(tmp_path):
    miner = TestMiner("Honest")
    miner.commit(90)
    async with subnet(tmp_path, miner) as net:
        first = await net.round()
        assert (first.verdicts, miner.asked) == ({}, [])  # no block is younger than our first sight of it
        assert net.of(miner).standing.credited_bytes == 0
        second = await net.round(audit=False)
        assert second.verdicts == {Verdict.PASSED: 1}
        assert score(net, miner) == 0  # proven to be kept, but not yet to be sealed
        await net.round()
        assert net.of(miner).standing.credited_bytes == 2 * SECTOR
        before = score(net, miner)
        await net.round()
        assert 0 < before < score(net, miner) < 2 * SECTOR
        status = read_status(tmp_path / "validator.sqlite")
        assert [(row.uid, row.committed_bytes, row.weight, row.verdict) for row in status] == [
            (1, 2 * SECTOR, 1.0, "passed")
        ]
        assert status[0].score == pytest.approx(score(net, miner))
        assert await check_ledger(net) == 4  # three challenges and one audit


async def check_ledger(net) -> int:
    """The number of receipts, after checking that they are one signed chain."""
    page, _ = await net.book.run(net.book.ledger.receipts, 0, 1000)
    last = check_chain(page, VALIDATOR.public_key, verify)
    assert last is not None
    assert last.seq == len(page)
    return len(page)


async def test_a_challenge_never_uses_a_block_that_the_miner_could_have_known(tmp_path):
    miner = TestMiner("Backdated")
    miner.commit(1)  # its own word; we see it at height 105
    async with subnet(tmp_path, miner) as net:
        await net.round()
        await net.round(blocks=0)
        assert miner.asked == []
        await net.round(blocks=1)
        assert [message.block_number for message in miner.asked] == [106]


async def test_scores_of_one_two_four_sectors_become_weights_of_one_two_four(tmp_path):
    miners = [TestMiner(f"Size{n}", range(n)) for n in (1, 2, 4)]
    for miner in miners:
        miner.commit(90)
    async with subnet(tmp_path, *miners) as net:
        for _ in range(3):
            await net.round()
        weights = Weights(net.chain, net.book)
        await weights.run()
        assert net.chain.weights == [
            {1: pytest.approx(1 / 7), 2: pytest.approx(2 / 7), 3: pytest.approx(4 / 7)}
        ]
        await weights.run()
        assert len(net.chain.weights) == 1  # once a tempo


async def test_a_sector_that_is_listed_twice_is_refused_and_wrong(tmp_path):
    miner = TestMiner("Overclaim", [3])
    root = miner.entries()[0][1]
    doubled = [(3, root), (3, root)]
    leaves = [commitments.capacity_leaf(*entry) for entry in doubled]
    claim = commitments.Commitment(
        GENESIS, NETUID, miner.key.public_key, 1, bytes(32), 0, 2, commitments.merkle.root(leaves), 90
    )
    miner.publish(claim, doubled)
    async with subnet(tmp_path, miner) as net:
        await net.round()
        await net.round()
        known = net.of(miner)
        assert known.commitment is None
        assert known.counts == {Verdict.WRONG: 2}
        assert "sector" in known.reason
        assert score(net, miner) == 0


async def test_zeros_are_fraud_and_the_receipt_proves_it_to_anybody(tmp_path):
    miner = TestMiner("Zeros", range(3))
    miner.disk = {index: bytes(SECTOR) for index in range(3)}
    miner.commit(90)
    async with subnet(tmp_path, miner) as net:
        await net.round()
        report = await net.round()
        assert report.verdicts == {Verdict.PASSED: 1}  # it does keep what it committed to
        known = net.of(miner)
        assert known.verdict is Verdict.WRONG
        assert known.standing.quarantined_until == report.number + QUARANTINE_ROUNDS
        asked = len(miner.asked)
        await net.round()
        assert (len(miner.asked), score(net, miner)) == (asked, 0)  # not even asked
        document = export.export(tmp_path / "validator.sqlite")
        found = export.check(document, verify)
        assert (found.receipts, found.repeated, found.unproven) == (2, 1, 0)
        assert read_status(tmp_path / "validator.sqlite")[0].quarantined


async def test_a_disk_of_which_half_is_overwritten_earns_nothing(tmp_path):
    miner = TestMiner("Half", range(4))
    miner.commit(90)
    for index in (1, 3):
        miner.disk[index] = bytes(SECTOR)
    async with subnet(tmp_path, miner) as net:
        for _ in range(3):
            await net.round()
        assert net.of(miner).counts[Verdict.WRONG] == 2
        assert score(net, miner) == 0
        assert "not the one committed to" in net.of(miner).reason


async def test_two_commitments_with_one_number_are_fraud_and_both_are_kept(tmp_path):
    miner = TestMiner("TwoFaced")
    first = miner.commit(90)
    async with subnet(tmp_path, miner) as net:
        for _ in range(3):
            await net.round()
        assert score(net, miner) > 0
        other = replace(first.commitment, block_number=91)
        second = miner.publish(other, miner.entries())
        await net.round()
        assert score(net, miner) == 0
        assert net.of(miner).standing.quarantined_until > 0
        forks = await net.book.run(net.book.ledger.forks)
        assert [
            (hotkey, first.commitment.hash.hex() in a, second.commitment.hash.hex() in b)
            for hotkey, a, b in forks
        ] == [(miner.key.ss58, True, True)]


async def test_a_broken_link_among_skipped_commitments_is_fraud(tmp_path):
    miner = TestMiner("Rewriter", [0])
    miner.commit(90)
    async with subnet(tmp_path, miner) as net:
        await net.round()
        # Publishes 2 and 3 while nobody looks, 2 following another 1 than the one that was shown.
        false_second = replace(miner.chain[0].commitment, seq=2, prev_hash=bytes([9]) * 32, block_number=110)
        miner.publish(false_second, miner.entries())
        miner.commit(120)
        await net.round(blocks=TEMPO)
        assert net.of(miner).standing.quarantined_until > 0
        assert len(await net.book.run(net.book.ledger.forks)) == 1


async def test_skipped_commitments_are_caught_up_with(tmp_path):
    miner = TestMiner("Busy", [0])
    miner.commit(90)
    async with subnet(tmp_path, miner) as net:
        await net.round()
        for index in (1, 2):
            miner.disk[index] = sealed(miner.key.public_key, index)
            miner.commit(105 + index)
        await net.round(blocks=TEMPO)
        known = net.of(miner)
        assert known.commitment is not None
        assert known.commitment.commitment.seq == 3
        assert known.standing.quarantined_until == 0


async def test_growth_waits_for_an_audit_of_what_is_new_and_dilutes_what_was_sampled(tmp_path):
    miner = TestMiner("Grower", [0, 1])
    miner.commit(90)
    async with subnet(tmp_path, miner) as net:
        for _ in range(6):
            await net.round()
        sampled = net.of(miner).standing.sampled
        for index in (2, 3):
            miner.disk[index] = sealed(miner.key.public_key, index)
        first, second = miner.chain[-1], miner.commit(net.chain.height)
        miner.asked.clear()
        await net.round(audit=False)
        # The new one cannot be asked about yet; the old one is part of it and still is.
        assert [message.commitment for message in miner.asked] == [first.commitment.hash]
        known = net.of(miner)
        assert known.pending == [2, 3]
        assert known.standing.credited_bytes == 2 * SECTOR
        assert known.standing.sampled == pytest.approx(sampled / 2 + PARAMETERS.hops, rel=0.01)
        miner.roots_served.clear()
        await net.round()
        assert miner.asked[-1].commitment == second.commitment.hash
        assert miner.roots_served[0] in (2, 3)
        assert net.of(miner).standing.credited_bytes == 4 * SECTOR


async def test_shrinking_takes_the_credit_away_at_once(tmp_path):
    miner = TestMiner("Shrinker", range(4))
    miner.commit(90)
    async with subnet(tmp_path, miner) as net:
        for _ in range(3):
            await net.round()
        assert net.of(miner).standing.credited_bytes == 4 * SECTOR
        del miner.disk[2]
        miner.commit(net.chain.height)
        await net.round(blocks=TEMPO, audit=False)
        assert net.of(miner).standing.credited_bytes == 3 * SECTOR
        await net.round()
        assert net.of(miner).standing.credited_bytes == 3 * SECTOR
        assert net.of(miner).counts.get(Verdict.REFUSED, 0) == 0


async def test_a_flood_of_commitments_does_not_get_a_miner_out_of_being_asked(tmp_path):
    miner = TestMiner("Flood", range(4))
    miner.commit(90)
    async with subnet(tmp_path, miner) as net:
        for _ in range(3):
            await net.round()
        for _ in range(3):
            miner.disk.pop(max(miner.disk))
            miner.commit(net.chain.height)
            await net.round(blocks=1)
        known = net.of(miner)
        assert known.commitment is not None
        assert known.commitment.commitment.seq == 1  # one a tempo is taken
        assert known.counts[Verdict.REFUSED] >= 2  # and that one is asked about
        assert scoring.availability(known.standing) < 1


async def test_what_failed_once_is_asked_again_with_the_same_nonce_and_forgiven(tmp_path):
    miner = TestMiner("Hiccup")
    miner.commit(90)
    async with subnet(tmp_path, miner) as net:
        for _ in range(2):
            await net.round()
        before = net.of(miner).standing
        miner.asked.clear()

        async def once(self, commitment, message):
            if len(self.asked) == 1:
                raise RequestError("unready", "just a moment")
            return await self.honest(commitment, message)

        miner.intercept = once
        report = await net.round()
        assert report.verdicts == {Verdict.PASSED: 1}
        assert miner.asked[0] == miner.asked[1]
        after = net.of(miner).standing
        assert scoring.availability(after) == 1.0
        assert after.sampled < before.sampled  # the leaves are no evidence
        assert "second asking" in (await receipts_of(net, miner))[-1].reason


async def test_who_is_late_twice_is_late_and_loses_availability_not_integrity(tmp_path):
    miner = TestMiner("Slow")
    miner.commit(90)
    async with subnet(tmp_path, miner, parameters=with_parameters(deadline=1.0)) as net:
        for _ in range(3):
            await net.round()

        async def slowly(self, commitment, message):
            await asyncio.sleep(2)
            return await self.honest(commitment, message)

        miner.intercept = slowly
        report = await net.round()
        assert report.verdicts == {Verdict.LATE: 1}
        standing = net.of(miner).standing
        assert (standing.integrity, scoring.availability(standing)) == (1.0, pytest.approx(2 / 3, rel=0.02))
        receipt = (await receipts_of(net, miner))[-1]
        assert receipt.elapsed_ms >= 1000
        assert "asked twice" in receipt.reason


async def test_a_validator_that_stands_still_calls_nobody_late(tmp_path):
    miner = TestMiner("Patient")
    miner.commit(90)
    async with subnet(tmp_path, miner, parameters=with_parameters(deadline=1.0)) as net:
        for _ in range(2):
            await net.round()
        before = net.of(miner).standing

        async def blocking(self, commitment, message):
            time.sleep(1.5)  # noqa: ASYNC251 - the validator's own loop stands still, as it is the same one
            return await self.honest(commitment, message)

        miner.intercept = blocking
        report = await net.round()
        assert report.verdicts == {Verdict.VALIDATOR_FAULT: 1}
        after = net.of(miner).standing
        assert (after.integrity, after.missed) == (before.integrity, 0)


@pytest.mark.parametrize(
    "cheat",
    ["empty", "short", "long", "endless", "replayed", "another key"],
)
async def test_an_answer_that_is_no_answer_is_wrong(tmp_path, cheat):
    miner = TestMiner("Forger")
    other = TestMiner("Someone")
    miner.commit(90)
    replay: list[bytes] = []

    async def forge(self, commitment, message):
        right = await self.honest(commitment, message)
        replay.append(right)
        if cheat == "another key":
            return right[:-64] + other.key.sign(b"whatever")
        return {
            "empty": b"",
            "short": right[:-1],
            "long": right + b"\0",
            "endless": right * 20,
            "replayed": replay[0],
        }[cheat]

    miner.intercept = forge
    async with subnet(tmp_path, miner) as net:
        await net.round()
        for _ in range(3 if cheat == "replayed" else 1):
            await net.round()
        assert net.of(miner).verdict is Verdict.WRONG
        assert net.of(miner).standing.integrity < 1
        assert score(net, miner) == 0


async def test_when_many_fail_alike_it_is_ours_but_only_as_often_as_the_budget_allows(tmp_path):
    miners = [TestMiner(f"Crowd{n}", [0]) for n in range(4)]
    for miner in miners:
        miner.commit(90)

    async def refuse(self, commitment, message):
        raise RequestError("unready", "gone fishing")

    async with subnet(tmp_path, *miners) as net:
        for _ in range(3):
            await net.round()
        before = [score(net, miner) for miner in miners]
        for miner in miners[:3]:
            miner.intercept = refuse
        for _ in range(3):
            report = await net.round()
            assert report.verdicts == {Verdict.VALIDATOR_FAULT: 3, Verdict.PASSED: 1}
        assert [score(net, miner) for miner in miners[:3]] == pytest.approx(before[:3], rel=0.01)
        report = await net.round()
        assert report.verdicts == {Verdict.REFUSED: 3, Verdict.PASSED: 1}
        assert all(score(net, miner) < 0.9 * old for miner, old in zip(miners[:3], before, strict=False))


async def test_an_audit_that_is_refused_takes_the_credit_until_that_sector_is_shown(tmp_path):
    miner = TestMiner("Shy", range(3))
    miner.commit(90)
    async with subnet(tmp_path, miner) as net:
        miner.refuse_audits = True
        for _ in range(3):
            await net.round()
        known = net.of(miner)
        assert known.standing.credited_bytes == 0
        assert known.counts[Verdict.REFUSED] == 2
        assert len(set(miner.roots_served)) == 1  # the draw stands
        miner.refuse_audits = False
        for _ in range(2):  # who refused twice in a row is left alone for a round
            await net.round()
        assert net.of(miner).standing.credited_bytes == 3 * SECTOR
        # Giving up the sector that was drawn does not help either.
        miner.refuse_audits = True
        for _ in range(13):
            await net.round()
        draw = net.of(miner).draw
        assert draw is not None
        del miner.disk[draw.sector]
        miner.refuse_audits = False
        miner.commit(net.chain.height)
        await net.round(blocks=TEMPO)
        assert net.of(miner).audits_due >= scoring.REAUDIT_SECTORS - 1
        assert net.of(miner).standing.credited_bytes == 0


async def test_who_shows_no_chunk_roots_does_not_keep_others_from_their_audits(tmp_path):
    shy = [TestMiner(f"Shy{number}", range(1)) for number in range(3)]
    honest = TestMiner("Honest", range(1))
    for miner in (*shy, honest):
        miner.refuse_audits = miner is not honest
        miner.commit(90)
    one_a_round = with_parameters(audit_seconds=FIRST_ESTIMATE[0])
    async with subnet(tmp_path, *shy, honest, parameters=one_a_round) as net:
        for _ in range(2):
            await net.round()
        assert net.of(honest).standing.credited_bytes == SECTOR


async def test_a_hotkey_that_is_registered_anew_starts_from_zero(tmp_path):
    miner = TestMiner("Returning")
    miner.commit(90)
    async with subnet(tmp_path, miner) as net:
        for _ in range(3):
            await net.round()
        assert score(net, miner) > 0
        miner.registered_at = net.chain.height
        await net.round(audit=False)
        assert (score(net, miner), net.of(miner).standing.credited_bytes) == (0, 0)


async def test_profile_0_is_refused_where_it_proves_nothing(tmp_path):
    miner = TestMiner("Dev")
    miner.commit(90)
    async with subnet(tmp_path, miner, parameters=with_parameters(profiles=frozenset({1}))) as net:
        for _ in range(2):
            await net.round()
        assert net.of(miner).commitment is None
        assert "profile 0" in net.of(miner).reason


async def test_a_closed_port_and_no_endpoint_are_told_apart_from_wrong_bytes(tmp_path):
    miner = TestMiner("Closed")
    miner.commit(90)
    async with subnet(tmp_path, miner) as net:
        for _ in range(2):
            await net.round()
        assert miner.endpoint is not None
        miner.endpoint = Endpoint("127.0.0.1", 1)
        assert (await net.round()).verdicts == {Verdict.UNREACHABLE: 1}
        miner.endpoint = None
        assert (await net.round()).verdicts == {Verdict.UNREACHABLE: 1}
        assert net.of(miner).standing.integrity == 1.0


async def test_without_a_permit_no_round_is_begun(tmp_path):
    async with subnet(tmp_path, TestMiner("Idle")) as net:
        net.chain.permit = False
        with pytest.raises(NoPermitError, match="stake"):
            await net.round()
        assert await net.book.run(net.book.ledger.last_round) == 0


async def test_a_restart_continues_rounds_scores_and_the_chain_of_receipts(tmp_path):
    miner = TestMiner("Steady")
    miner.commit(90)
    async with subnet(tmp_path, miner) as net:
        for _ in range(3):
            await net.round()
        before = net.of(miner)
    async with subnet(tmp_path, miner) as net:
        assert net.of(miner) == before
        net.chain.height = 200
        report = await net.round()
        assert (report.number, report.verdicts) == (4, {Verdict.PASSED: 1})
        assert await check_ledger(net) == 4
