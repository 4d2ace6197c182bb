"""Repair: shards that are lost are made anew on other miners, and shards of miners that leave are moved.

    lost     no miner has it: made anew as soon as there is a miner for it
    failed   its miner does not answer: made anew when the stripe is below its threshold, K + ceil(M / 2)
    leaving  its miner says that it leaves: copied to another one first, and only then removed there; where
             nobody else is to be had for long, the stripe does without it down to its threshold

Rules. One stripe at a time, a few shards of it at a time. The ticket of a new shard is in the database before
its miner hears of it; with the miner's receipt it takes the old one's place in one transaction, which also
notes that the old miner is to be told. So whenever the process is killed the stripe is as good as before, the
next attempt goes on, and a ticket that was not used is taken back. What cannot be done is tried again later
and later.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from .. import shard
from ..errors import ProofError, RequestError
from ..transport.dendrite import PeerError
from .care import Care
from .health import Health
from .placement import Candidate, Taken, choose, network_of
from .rebuild import RebuildError, copy, layered, rebuild
from .rows import FileRow, ShardRow, StripeRow, Wanted

log = logging.getLogger(__name__)

#: Shards that are made at a time: what is held of them in memory.
AT_ONCE = 4
STRIPES = 64
#: Rounds for which a miner that did not take a shard gets no other.
SHUN_ROUNDS = 12.0
_LONGEST_ROUNDS = 12.0
#: Attempts in vain, 15 rounds in all, after which a miner that leaves is not kept waiting for another one.
PATIENCE = 4
_UPLOAD_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Move:
    """A shard that gets another miner. `leaves` is the hotkey of one that has it still, and leaves."""

    number: int
    to: Candidate
    leaves: str | None = None


def plan(
    stripe: StripeRow,
    candidates: Sequence[Candidate],
    leaving: Collection[str],
    network: Callable[[str], str],
    seed: bytes,
) -> list[Move]:
    """What is to be done for a stripe, most urgent first, as far as there are miners for it. Pure.

    Args:
        leaving: hotkeys (SS58) of miners that leave.
        network: of a hotkey; empty when it has none.
        seed: see `placement.choose`.
    """
    stored = {row.number: row for row in stripe.shards if row.state == "stored"}
    ailing = stripe.healthy < stripe.threshold
    failed = [number for number, row in stored.items() if ailing and row.health == "failed"]
    moving = [number for number, row in stored.items() if row.hotkey in leaving and number not in failed]
    numbers = [*stripe.missing, *failed, *moving]
    known = {row.hotkey for row in stripe.shards} | set(leaving)
    fit = [candidate for candidate in candidates if candidate.hotkey not in known]
    taken = {number: Taken(row.coldkey, network(row.hotkey)) for number, row in stored.items()}
    # What is not moved in the end stays where it is, so that its owner is out; but an owner may take over
    # from itself.
    chosen = dict(zip(numbers, choose(fit, list(taken.values()), len(numbers), seed), strict=False))
    for number in numbers:
        if number in stored and number not in chosen:
            others = [place for other, place in taken.items() if other != number]
            others += [Taken(one.coldkey, one.network) for one in chosen.values()]
            used = {one.hotkey for one in chosen.values()}
            chosen.update(
                (number, one) for one in choose((c for c in fit if c.hotkey not in used), others, 1, seed)
            )
    return [
        Move(number, chosen[number], stored[number].hotkey if number in moving else None)
        for number in numbers
        if number in chosen
    ]


def spared(stripe: StripeRow, leaving: Collection[str], moves: Sequence[Move]) -> list[ShardRow]:
    """The shards of miners that leave which nobody takes over, and the stripe can do without. Pure.

    Every owner with room may have a shard of the stripe already: a miner would wait for ever.
    """
    moved = {move.number for move in moves}
    held = [row for row in stripe.shards if row.state == "stored" and row.hotkey in leaving]
    return [row for row in held if row.number not in moved][: max(0, stripe.healthy - stripe.threshold)]


class Repairer:
    """Repairs what needs it, for ever."""

    def __init__(self, care: Care, health: Health) -> None:
        self._care = care
        self._health = health
        self._shunned: dict[str, float] = {}
        self._later: dict[tuple[bytes, int], _Wait] = {}

    async def run(self) -> float:
        """Repair what is due; the seconds until the next look.

        Raises:
            StaleChainError: it is not known who is registered.
        """
        care = self._care
        rest = max(care.settings.repair_pause, care.settings.round_seconds / 10)
        for stripe in await self._due():
            if await self._try(stripe):
                rest = care.settings.repair_pause
        return rest

    async def _due(self) -> list[StripeRow]:
        care, now = self._care, self._care.clock()
        stripes = await care.db(care.store.stripes_to_repair, STRIPES + len(self._later))
        due = {(stripe.file.id, stripe.number): stripe for stripe in stripes}
        for hotkey in care.market.leaving():
            for stripe in await care.db(care.store.stripes_of_miner, hotkey, STRIPES + len(self._later)):
                due.setdefault((stripe.file.id, stripe.number), stripe)
        known = self._later
        self._later = {key: wait for key, wait in known.items() if key in due}
        return [
            stripe for key, stripe in due.items() if key not in self._later or self._later[key].until <= now
        ]

    async def _try(self, known: StripeRow) -> bool:
        """Do what can be done for a stripe now; whether anything was."""
        care, key = self._care, (known.file.id, known.number)
        stripe = await self._asked_again(known)
        if stripe is None or stripe.file.expires <= care.clock():
            return False
        moves = plan(
            stripe, self._candidates(), care.market.leaving(), self._network, secrets.token_bytes(32)
        )
        done = 0
        try:
            for at in range(0, len(moves), AT_ONCE):
                done += await self._move(stripe, moves[at : at + AT_ONCE])
        except RebuildError as error:
            self._put_off(key, error.message)
        except RequestError as error:  # the file is gone meanwhile, or its ticket
            log.debug("repair given up file=%s reason=%r", stripe.file.id.hex(), error.message)
        else:
            if done:
                self._later.pop(key, None)
            else:
                self._put_off(key, "" if moves else "there is no miner for it")
                if self._later[key].times >= PATIENCE:
                    await self._let_go(stripe, moves)
        return done > 0

    async def _let_go(self, stripe: StripeRow, moves: Sequence[Move]) -> None:
        care = self._care
        for row in spared(stripe, care.market.leaving(), moves):
            await care.db(care.store.let_go, row.ticket, care.now())
            log.info(
                "shard let go of a leaving miner file=%s stripe=%d number=%d hotkey=%s",
                *(stripe.file.id.hex(), stripe.number, row.number, row.hotkey),
            )

    async def _asked_again(self, stripe: StripeRow) -> StripeRow | None:
        """The stripe after those that failed were asked once more, if they would be replaced for it.

        When it was our own network that was away, all is well again by now.
        """
        failed = [row for row in stripe.shards if (row.state, row.health) == ("stored", "failed")]
        if not failed or stripe.healthy >= stripe.threshold:
            return stripe
        for row in failed:
            await self._health.check(row)
        return await self._care.db(self._care.store.stripe, stripe.file.id, stripe.number)

    async def _move(self, stripe: StripeRow, moves: Sequence[Move]) -> int:
        care = self._care
        shards: dict[int, bytearray] = {}
        for move in moves:
            if move.leaves is not None:
                row = next(
                    row for row in stripe.shards if row.number == move.number and row.state == "stored"
                )
                copied = await copy(care, stripe, row) if row.health != "failed" else None
                if copied is not None:
                    shards[move.number] = copied
        missing = [move.number for move in moves if move.number not in shards]
        if missing:
            shards |= await rebuild(care, stripe, missing)
        done = 0
        for move in moves:
            done += await self._bring(stripe, move, shards.pop(move.number))
        return done

    async def _bring(self, stripe: StripeRow, move: Move, inner: bytearray) -> bool:
        """Put a shard onto its new miner; whether it took it.

        Raises:
            RequestError: the shard is not wanted any more.
        """
        care, store, file = self._care, self._care.store, stripe.file
        neuron = care.neuron(move.to.hotkey)
        if neuron is None:
            return False
        async with care.quiet.aside():
            data, root = await care.compute(_layered, file, stripe.number, move, inner)
        wanted = Wanted(move.number, move.to.hotkey, root)
        signed = await care.db(
            store.issue_repair,
            file.id,
            stripe.number,
            stripe.leaves,
            wanted,
            move.to.coldkey,
            care.sign,
            care.now(),
        )
        try:
            async with care.quiet.aside():
                stored = await care.calls.put_shard(neuron, signed, data, deadline=_UPLOAD_SECONDS)
                await care.compute(stored.check, neuron.public_key, care.verify)
        except (PeerError, ProofError) as error:
            self._shunned[move.to.hotkey] = care.clock() + SHUN_ROUNDS * care.settings.round_seconds
            log.info("a miner did not take a shard hotkey=%s reason=%r", move.to.hotkey, error.message)
            await care.db(store.give_up, signed.ticket.hash, care.now())
            return False
        await care.db(store.replace_shard, file.id, stripe.number, move.number, signed, stored, care.now())
        log.info(
            "shard %s file=%s stripe=%d number=%d to=%s",
            "moved" if move.leaves else "repaired",
            file.id.hex(),
            stripe.number,
            move.number,
            move.to.hotkey,
        )
        return True

    def _candidates(self) -> list[Candidate]:
        now = self._care.clock()
        self._shunned = {hotkey: until for hotkey, until in self._shunned.items() if until > now}
        return [one for one in self._care.market.candidates() if one.hotkey not in self._shunned]

    def _network(self, hotkey: str) -> str:
        neuron = self._care.neuron(hotkey)
        return network_of(neuron.endpoint.ip) if neuron is not None and neuron.endpoint is not None else ""

    def _put_off(self, key: tuple[bytes, int], reason: str) -> None:
        """Try a stripe again later; the wait doubles."""
        before = self._later.get(key, _Wait(0, 0.0, ""))
        rounds = min(_LONGEST_ROUNDS, math.ldexp(1.0, min(before.times, 16)))
        until = self._care.clock() + rounds * self._care.settings.round_seconds
        if reason and reason != before.reason:
            log.warning("stripe not repaired file=%s stripe=%d reason=%r", key[0].hex(), key[1], reason)
        self._later[key] = _Wait(before.times + 1, until, reason or before.reason)


@dataclass(frozen=True, slots=True)
class _Wait:
    """How often a stripe was tried in vain, until when it waits, and why."""

    times: int
    until: float
    reason: str


def _layered(file: FileRow, stripe: int, move: Move, inner: bytearray) -> tuple[bytes, bytes]:
    data = layered(file, stripe, move.number, move.to.hotkey, inner)
    return data, shard.shard_root(data)
