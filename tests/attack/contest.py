"""An attack as a contest: an adversary and an honest miner of the same claim, judged by one validator."""

from __future__ import annotations

from dataclasses import dataclass

from validator_net import Subnet, TestMiner

from tensorage.chain.auth import verify
from tensorage.receipts import Receipt, Verdict
from tensorage.validator import export, scoring, standing
from tensorage.validator.weights import shares


@dataclass(frozen=True)
class Outcome:
    """What an attack ended with.

    Attributes:
        share: its weight as a share of the honest miner's of the same claim.
        receipts: all that the validator wrote about the adversary, oldest first.
    """

    share: float
    receipts: list[Receipt]

    @property
    def last(self) -> Receipt:
        return self.receipts[-1]

    @property
    def verdicts(self) -> list[Verdict]:
        return [receipt.verdict for receipt in self.receipts]


async def outcome(
    net: Subnet, adversary: TestMiner, honest: TestMiner, *, repeat_seals: bool = True
) -> Outcome:
    """What it came to, by the weights that the validator would set now. The honest miner must have one.

    Every receipt that can be repeated from what the ledger keeps is repeated too, as anybody could.
    """
    now = await net.book.run(net.book.ledger.last_round)
    weights = shares(standing.scores(net.book.miners.values(), now), net.chain.metagraph_now())
    ours, theirs = (weights.get(net.of(miner).uid, 0.0) for miner in (adversary, honest))
    assert theirs > 0
    page, _ = await net.book.run(net.book.ledger.receipts, 0, 10_000, adversary.key.public_key)
    export.check(export.export(net.book.ledger.path), verify, seal_audits=repeat_seals)
    return Outcome(ours / theirs, [receipt for receipt, _ in page])


async def contest(net: Subnet, adversary: TestMiner, honest: TestMiner, rounds: int = 4) -> Outcome:
    """Some rounds with their audits, and what they came to."""
    for _ in range(rounds):
        await net.round()
    return await outcome(net, adversary, honest)


def claimed(miner: TestMiner) -> int:
    """Bytes of a miner's newest commitment."""
    return miner.chain[-1].commitment.size


def is_in_quarantine(net: Subnet, miner: TestMiner) -> bool:
    """Whether the validator does not even ask it any more."""
    known = net.of(miner).standing
    return scoring.quarantined(known, known.round + 1)
