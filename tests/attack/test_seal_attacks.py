"""Attacks on the seal: bytes that are kept, but are not what sealing gives. Challenges cannot tell."""

from __future__ import annotations

import pytest
from adversaries import Proxy, SealedInFewerPasses, SecondHotkey, Zeros
from contest import claimed, contest, is_in_quarantine
from validator_net import TestMiner, subnet

from tensorage.receipts import Verdict
from tensorage.validator import scoring

SECTORS = range(3)
FRAUD = [Verdict.PASSED, Verdict.WRONG]  # the challenge, then the audit; after that it is not even asked


@pytest.mark.parametrize("make", [SealedInFewerPasses, Zeros], ids=["4 passes", "zeros"])
async def test_what_was_not_sealed_is_fraud_at_the_first_audit(tmp_path, make):
    adversary, honest = make("NotSealed", SECTORS), TestMiner("Honest", SECTORS)
    for miner in (adversary, honest):
        miner.commit(90)
    assert claimed(adversary) == claimed(honest)
    async with subnet(tmp_path, adversary, honest) as net:
        ended = await contest(net, adversary, honest)
        assert (ended.share, ended.verdicts) == (0, FRAUD)
        assert ended.last.is_audit
        assert "1 of 1 chunks" in ended.last.reason
        assert is_in_quarantine(net, adversary)


async def test_after_its_quarantine_a_fraud_is_caught_again(tmp_path):
    adversary, honest = Zeros("NotSealed", SECTORS), TestMiner("Honest", SECTORS)
    for miner in (adversary, honest):
        miner.commit(90)
    async with subnet(tmp_path, adversary, honest) as net:
        await contest(net, adversary, honest, 2)
        for _ in range(scoring.QUARANTINE_ROUNDS):
            await net.book.run(net.book.ledger.begin_round, net.chain.height)
        ended = await contest(net, adversary, honest)
        assert (ended.share, ended.verdicts) == (0, FRAUD * 2)


async def test_one_copy_does_not_serve_two_hotkeys(tmp_path):
    owner = TestMiner("Owner", SECTORS)
    second = SecondHotkey("Second", owner)
    for miner in (owner, second):
        miner.commit(90)
    async with subnet(tmp_path, second, owner) as net:
        ended = await contest(net, second, owner)
        assert (ended.share, ended.verdicts) == (0, FRAUD)
        assert "chunks of sector" in ended.last.reason
        assert Verdict.WRONG not in net.of(owner).counts


@pytest.mark.parametrize(
    ("own_nonce", "reason"),
    [(False, "hop 0"), (True, "not signed by the miner's hotkey")],
    ids=["the owner's answer", "the owner walks for it"],
)
async def test_the_answer_of_another_hotkey_does_not_serve(tmp_path, own_nonce, reason):
    owner = TestMiner("Owner", SECTORS)
    proxy = Proxy("Second", owner, own_nonce=own_nonce)
    for miner in (owner, proxy):
        miner.commit(90)
    async with subnet(tmp_path, proxy, owner) as net:
        ended = await contest(net, proxy, owner)
        assert (ended.share, set(ended.verdicts)) == (0, {Verdict.WRONG})
        assert reason in ended.last.reason
