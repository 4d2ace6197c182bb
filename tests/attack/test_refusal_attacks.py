"""Attacks by silence: to answer only when the walk meets nothing but what is kept, to refuse otherwise."""

from __future__ import annotations

import pytest
from adversaries import Partial, asked
from contest import claimed, contest
from validator_net import TestMiner, subnet

from tensorage import challenge as challenges
from tensorage import seal
from tensorage.encoding import sha256, u64
from tensorage.receipts import Verdict
from tensorage.transport.messages import ChallengeMessage
from tensorage.validator import scoring, standing
from tensorage.validator.judge import Attempt, Judgement
from tensorage.validator.scoring import Standing
from tensorage.validator.standing import Miner

ROUNDS = 2000  # a week of rounds of 300 s
DEADLINE = challenges.DEADLINE


async def test_refusing_what_it_does_not_keep_loses_more_weight_than_it_saves_disk(tmp_path):
    sectors = range(2)
    adversary, honest = Partial("Refuser", sectors, 0.9), TestMiner("Honest", sectors)
    for miner in (adversary, honest):
        miner.commit(90)
    assert claimed(adversary) == claimed(honest)
    async with subnet(tmp_path, adversary, honest) as net:
        ended = await contest(net, adversary, honest, 14)
        assert set(ended.verdicts) == {Verdict.PASSED, Verdict.REFUSED}
        refusals = [receipt for receipt in ended.receipts if receipt.verdict is Verdict.REFUSED]
        assert all("just a moment (asked twice" in receipt.reason for receipt in refusals)
        assert ended.share < 0.7 < adversary.fraction
        assert net.of(adversary).standing.integrity == 1.0  # silence is no lie; it is not paid either


def long_run(fraction: float, *, rebuilds_for_the_second_asking: bool) -> float:
    """The score after `ROUNDS` real walks over a sector, as a share of that of who keeps everything."""
    miner = Partial("Refuser", range(1), fraction)
    commitment = miner.commit(90).commitment
    size = seal.DEV.size
    scores = []
    for honest in (False, True):
        known = Miner(
            miner.key.ss58, miner.key.public_key, 1, 1, Standing(credited_bytes=size), miner.chain[0]
        )
        for now in range(1, ROUNDS + 1):
            message = ChallengeMessage(
                commitment=commitment.hash,
                block_number=100 + now,
                block_hash=sha256(u64(100 + now)),
                round=now,
                hops=challenges.HOPS,
            )
            known = standing.judged(
                known,
                judged(miner, message, honest=honest, rebuilds=rebuilds_for_the_second_asking),
                now,
                DEADLINE,
            )
        scores.append(scoring.score(known.standing))
    assert scores[1] > 0.99 * size
    return scores[0] / scores[1]


def judged(miner: Partial, message: ChallengeMessage, *, honest: bool, rebuilds: bool) -> Judgement:
    """What a challenge comes to, by where its walk goes."""
    passed = Attempt(Verdict.PASSED, "", "", 0.1 * DEADLINE, leaves=message.hops)
    state, data = asked(miner, message).nonce, miner.disk[0]
    for _ in range(message.hops):
        leaf = challenges.leaf_index(state, seal.DEV.leaves)
        if not honest and not miner.keeps(0, leaf):
            if rebuilds:
                return Judgement(passed, second=True)
            return Judgement(Attempt(Verdict.REFUSED, "unready", "just a moment"), second=True)
        state = challenges.next_state(state, data[leaf * seal.LEAF_SIZE : (leaf + 1) * seal.LEAF_SIZE])
    return Judgement(passed)


@pytest.mark.parametrize(("fraction", "most"), [(0.99, 0.76), (0.9, 0.06), (0.5, 0.0)])
def test_in_the_long_run_refusing_costs_more_than_it_saves(fraction, most):
    share = long_run(fraction, rebuilds_for_the_second_asking=False)
    assert share <= most < fraction


@pytest.mark.parametrize(("fraction", "most"), [(0.99, 0.84), (0.9, 0.06), (0.5, 0.0)])
def test_so_does_refusing_once_even_with_a_core_that_seals_within_two_deadlines(fraction, most):
    share = long_run(fraction, rebuilds_for_the_second_asking=True)
    assert share <= most < fraction
