"""Health: every stored shard is challenged again and again, at a steady and bounded rate.

Rules. A challenge is a walk through the shard from a salt that nobody foresees, so that whoever answers has
the bytes. Bytes that are not the shard's fail it at once: it is lost, and the miner's standing hears of it.
No answer, or a refusal, is asked for again a while later, and counts from the second time on: the stripe then
has one healthy shard less, and after `lost_after` askings the shard is lost. A miner that says twice that it
has not the shard is believed. One that is not registered any more is gone, and all its shards with it.

A miner that cannot be reached is asked once for all its shards of a batch.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Literal

from .. import shard
from ..chain.types import Neuron
from ..challenge import WrongAnswerError
from ..transport.dendrite import PeerError
from ..validator.together import together
from .care import Care, is_passing, says
from .rows import ShardRow
from .serving import Wrong

log = logging.getLogger(__name__)

#: A round's checks are spread over so many batches.
BATCHES = 10

Kind = Literal["ok", "wrong", "denied", "away", "gone"]
Fate = Literal["ok", "asked again", "failed", "lost"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What asking for one shard brought.

    Attributes:
        kind: "wrong": other bytes; "denied": the miner says it has not the shard, or answers nonsense;
            "away": anything that may pass; "gone": the miner is not registered.
        reason: one line; empty when all is well.
    """

    kind: Kind
    reason: str = ""


def fate(kind: Kind, failures: int, lost_after: int) -> Fate:
    """What a finding makes of a shard.

    Args:
        failures: how often in a row it was not answered for before.
    """
    if kind == "ok":
        return "ok"
    if kind in ("wrong", "gone"):
        return "lost"
    if failures == 0:
        return "asked again"
    if kind == "denied" or failures + 1 >= lost_after:
        return "lost"
    return "failed"


class Health:
    """Challenges shards and writes down what came of it."""

    def __init__(self, care: Care) -> None:
        self._care = care

    async def run(self) -> float:
        """Check what is due; the seconds until the next batch.

        Raises:
            StaleChainError: it is not known who is registered.
        """
        care, settings = self._care, self._care.settings
        now = care.now()
        rows = await care.db(
            care.store.due_for_check,
            max(1, settings.checks // BATCHES),
            now - int(settings.recheck_rounds * settings.round_seconds),
            now - int(settings.again_rounds * settings.round_seconds),
        )
        rows.sort(key=lambda row: row.hotkey)
        by_miner = {hotkey: list(of) for hotkey, of in groupby(rows, key=lambda row: row.hotkey)}
        jobs = {hotkey: partial(self._check_all, of) for hotkey, of in by_miner.items()}
        await together(jobs, settings.at_once)
        return settings.round_seconds / BATCHES

    async def check(self, row: ShardRow) -> Finding:
        """Challenge one shard now, and write down what came of it.

        Raises:
            StaleChainError: it is not known who is registered.
        """
        neuron = self._care.neuron(row.hotkey)
        finding = Finding("gone", "its miner is not on the subnet any more")
        if neuron is not None:
            async with self._care.quiet.aside():
                finding = await self._ask(row, neuron)
        await self._note(row, finding)
        return finding

    async def _check_all(self, rows: list[ShardRow]) -> None:
        away: Finding | None = None
        for row in rows:
            if away is not None:
                await self._note(row, away)
                continue
            finding = await self.check(row)
            if finding.kind == "away":
                away = finding

    async def _ask(self, row: ShardRow, neuron: Neuron) -> Finding:
        care, hops = self._care, self._care.settings.hops
        salt = secrets.token_bytes(shard.SALT_SIZE)
        try:
            answer, _ = await care.calls.challenge(
                neuron, row.ticket, salt, hops, row.leaves, deadline=care.settings.deadline
            )
        except PeerError as error:
            return Finding("away" if is_passing(error) else "denied", says(error))
        nonce = shard.nonce(salt, care.public_key, neuron.public_key, row.ticket)
        try:
            await care.compute(
                shard.verify_answer, nonce, hops, row.root, row.leaves, neuron.public_key, answer, care.verify
            )
        except WrongAnswerError as error:
            return Finding("wrong", error.message)
        return Finding("ok")

    async def _note(self, row: ShardRow, finding: Finding) -> None:
        care = self._care
        now = care.now()
        becomes = fate(finding.kind, row.failures, care.settings.lost_after)
        if becomes == "ok":
            await care.db(care.store.checked, row.ticket, True, "", now)
            return
        if finding.kind == "wrong":
            await report_wrong(care, row, finding.reason)
        else:
            await care.db(care.store.unanswered, row.ticket, finding.reason, now)
            if becomes == "lost":
                await care.db(care.store.mark_lost, row.ticket, finding.reason, now)
        if row.state == "lost" and becomes == "lost":
            return  # said when it was lost
        log.log(
            logging.INFO if becomes == "asked again" else logging.WARNING,
            "shard %s file=%s stripe=%d number=%d hotkey=%s reason=%r",
            becomes,
            row.file.hex(),
            row.stripe,
            row.number,
            row.hotkey,
            finding.reason,
        )


async def report_wrong(care: Care, row: ShardRow, reason: str) -> None:
    """A miner gave other bytes than those of a shard: it is lost, and the standing hears of it."""
    now = care.now()
    if row.state == "stored":  # else it was told of when it was lost
        await care.db(care.store.add_wrong, Wrong(row.ticket, row.hotkey, now, reason[:200]))
    await care.db(care.store.checked, row.ticket, False, reason, now)
    await care.db(care.store.mark_lost, row.ticket, reason, now)
