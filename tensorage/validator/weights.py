"""Weights: when they are due, and setting them.

Once a tempo, in its second half: late enough to rest on fresh scores, early enough to be tried again. A
validator that comes back after an outage sets them at once. What the chain says to it is logged when it
changes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from .. import SPEC_VERSION
from ..chain.types import Epoch, Metagraph, WeightsOutcome
from . import scoring, standing
from .book import Book

log = logging.getLogger(__name__)

_DONE = ("set", "committed")


class WeightsChain(Protocol):
    """What setting weights needs of a chain."""

    @property
    def block_time(self) -> float: ...
    async def epoch(self) -> Epoch: ...
    def metagraph_now(self) -> Metagraph: ...
    async def set_weights(self, weights: Mapping[int, float], version_key: int) -> WeightsOutcome: ...


def due(epoch: Epoch, last_set: int | None) -> bool:
    """Whether weights are to be set now.

    Args:
        last_set: the height at which they were last set, None for never.
    """
    half = max(1, epoch.tempo // 2)
    window = epoch.next_epoch_block - half
    if epoch.block < window:
        window -= max(1, epoch.tempo)  # not open yet: then they must at least be of the last one
    return last_set is None or last_set < window


def shares(scores: Mapping[str, float], metagraph: Metagraph) -> dict[int, float]:
    """The weight of each uid that has any, of the hotkeys that are on the subnet now."""
    present = {
        neuron.uid: scores[neuron.hotkey] for neuron in metagraph.neurons if scores.get(neuron.hotkey, 0) > 0
    }
    total = sum(present.values())
    return {uid: value / total for uid, value in present.items()}


class Weights:
    """Sets weights when they are due."""

    def __init__(self, chain: WeightsChain, book: Book) -> None:
        self._chain = chain
        self._book = book
        self._said: tuple[str, str] | None = None

    async def run(self) -> float:
        """Set weights if they are due; the seconds until the next look.

        Raises:
            ChainError: the chain is away. NotRegisteredError: the hotkey is not on the subnet.
        """
        book, wait = self._book, max(1.0, 2 * self._chain.block_time)
        epoch = await self._chain.epoch()
        if not due(epoch, await book.run(book.ledger.last_weights_block)):
            return wait
        now = await book.run(book.ledger.last_round)
        metagraph = self._chain.metagraph_now()
        weights = shares(standing.scores(book.miners.values(), now), metagraph)
        if not weights:
            self._say("nothing", "no miner has a score above zero yet")
            return wait
        outcome = await self._chain.set_weights(weights, SPEC_VERSION)
        self._say(outcome.status, outcome.message)
        if outcome.status in _DONE:
            block = outcome.block if outcome.block is not None else epoch.block
            await book.run(book.ledger.weights_set, now, block, outcome.status, outcome.message, weights)
            log.info(
                "weights %s block=%s uids=%d score_version=%d",
                outcome.status,
                block,
                len(weights),
                scoring.SCORE_VERSION,
            )
        elif outcome.block is not None and outcome.status in ("rate_limited", "unknown"):
            return max(wait, min(60.0, (outcome.block - epoch.block) * self._chain.block_time))
        return wait

    def _say(self, status: str, message: str) -> None:
        if (status, message) != self._said and status not in _DONE:
            level = logging.INFO if status == "nothing" else logging.WARNING
            log.log(level, "weights not set status=%s reason=%r", status, message)
        self._said = (status, message)
