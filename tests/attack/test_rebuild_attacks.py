"""Attacks that drop leaves of a sector of 1 GiB and seal it again when one is asked for: they are late.

The lateness is that of the real deadline against the real cost of a seal; nothing is simulated. Should a
machine seal in less than 10 s, the deadline of these tests shrinks with it (`conftest.big`). What a core that
seals within the deadline of 4 s could do is in `docs/proof.md`.
"""

from __future__ import annotations

import pytest
from big_sector import ADVERSARY, YARDSTICK, BigMiner, Contest, RebuildsOnDemand, SeedsOnly, round_that
from contest import claimed, outcome
from validator_net import subnet

from tensorage import seal
from tensorage.receipts import Receipt, Verdict


def assert_late_for_rebuilding(receipt: Receipt, adversary: RebuildsOnDemand, big: Contest) -> None:
    assert receipt.verdict is Verdict.LATE
    assert "asked twice" in receipt.reason
    assert receipt.elapsed_ms >= 1000 * big.deadline - 1
    # It did seal, for two deadlines, and had to stop before the last pass.
    assert 0 < adversary.passes_done < seal.PASSES


@pytest.mark.parametrize("fraction", [0.9, 0.5, 0.0, None], ids=["0.9", "0.5", "0", "seeds only"])
async def test_whoever_seals_again_on_demand_is_late(tmp_path, big: Contest, fraction: float | None):
    """At 0.9 one challenge in thirty meets no dropped leaf; the round is one of the others."""
    adversary = (
        SeedsOnly(ADVERSARY, big.adversary)
        if fraction is None
        else RebuildsOnDemand(ADVERSARY, big.adversary, fraction)
    )
    honest = BigMiner(YARDSTICK, big.yardstick)
    for miner in (honest, adversary):
        miner.commit(90)
    assert claimed(adversary) == claimed(honest) == 1 << 30
    big.ledger_for(tmp_path)
    async with subnet(tmp_path, honest, adversary, parameters=big.parameters) as net:
        net.chain.height = 200
        await net.round()  # it is seen for the first time
        await round_that(net, adversary, big.parameters.hops, meets_missing=True)
        ended = await outcome(net, adversary, honest, repeat_seals=False)
        assert (ended.share, ended.verdicts) == (0, [Verdict.LATE])
        assert_late_for_rebuilding(ended.last, adversary, big)
        assert set(net.of(honest).counts) == {Verdict.PASSED}


async def test_who_drops_one_leaf_in_a_hundred_passes_some_challenges_and_loses_more_than_it_saves(
    tmp_path, big: Contest
):
    adversary = RebuildsOnDemand(ADVERSARY, big.adversary, 0.99)
    honest = BigMiner(YARDSTICK, big.yardstick)
    for miner in (honest, adversary):
        miner.commit(90)
    big.ledger_for(tmp_path)
    hops = big.parameters.hops
    async with subnet(tmp_path, honest, adversary, parameters=big.parameters) as net:
        net.chain.height = 200
        await net.round()
        await round_that(net, adversary, hops, meets_missing=False)  # and its seal is audited: it is sealed
        await round_that(net, adversary, hops, meets_missing=True)
        late = (await outcome(net, adversary, honest, repeat_seals=False)).last
        assert_late_for_rebuilding(late, adversary, big)
        await round_that(net, adversary, hops, meets_missing=False)
        ended = await outcome(net, adversary, honest, repeat_seals=False)
        assert ended.verdicts == [Verdict.PASSED, Verdict.PASSED, Verdict.LATE, Verdict.PASSED]
        assert [receipt.is_audit for receipt in ended.receipts] == [False, True, False, False]
        # One miss in three here; one in four in the long run, see test_refusal_attacks.
        assert 0 < ended.share < 0.7 < adversary.fraction
