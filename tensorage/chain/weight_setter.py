"""Setting weights with the SDK, by the decisions of `weights`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bittensor import Client, ErrorCode, storage
from bittensor.intents import SetWeights

from ..errors import ChainError
from .connection import Connection
from .extrinsics import Sent
from .types import WeightsOutcome
from .weights import ERA, Attempt, allowed_from, fate, normalised
from .writer import INCLUDED, Writer

log = logging.getLogger(__name__)
_state = storage.SubtensorModule


@dataclass(frozen=True, slots=True)
class _State:
    """What the chain knows of our weights at height `head`; `commits` are heights."""

    head: int
    last_update: int
    rate_limit: int
    commits: list[int]


class WeightSetter:
    """Sets the weights of one validator, and remembers those whose fate is not known."""

    def __init__(self, connection: Connection, writer: Writer) -> None:
        self._connection = connection
        self._writer = writer
        self._netuid = connection.settings.netuid
        self._setting = asyncio.Lock()
        self._attempt: Attempt | None = None

    async def set(self, weights: Mapping[int, float], version_key: int) -> WeightsOutcome:
        """As `Chain.set_weights`."""
        shares = normalised(weights)
        async with self._setting:
            if self._attempt is not None and (known := await self._resolve(self._attempt)) is not None:
                return known
            if not shares:
                return WeightsOutcome("nothing", "no weight is above zero")
            state = await self._read()
            start = allowed_from(state.last_update, state.rate_limit)
            if state.head < start:
                return WeightsOutcome(
                    "rate_limited", f"weights may be set again from block {start}", block=start
                )
            intent = SetWeights(
                netuid=self._netuid,
                uids=list(shares),
                weights=list(shares.values()),
                version_key=version_key,
            )
            # Noted before it is sent: what interrupts us then, cancellation too, leaves it to be resolved.
            self._attempt = Attempt(state.head)
            sent = await self._writer.send(
                lambda client, key: client.execute(intent, key, period=ERA, **INCLUDED)
            )
            if sent.status != "unknown":
                self._attempt = None
            return self._outcome(sent, state.head)

    async def _resolve(self, attempt: Attempt) -> WeightsOutcome | None:
        """What became of earlier weights; None when they are lost and others may be sent."""
        state = await self._read(commits=True)
        verdict = fate(attempt, head=state.head, last_update=state.last_update, commits=state.commits)
        if verdict == "pending":
            return WeightsOutcome(
                "unknown",
                f"weights signed at block {attempt.height} may land until block {attempt.expires}",
                block=attempt.expires + 1,
            )
        self._attempt = None
        if verdict == "lost":
            log.warning("weights were lost signed_at=%d expired_at=%d", attempt.height, attempt.expires)
            return None
        committed = [height for height in state.commits if height > attempt.height]
        landed = max([state.last_update, *committed])
        return WeightsOutcome(
            "committed" if committed else "set",
            f"weights signed at block {attempt.height} had landed at block {landed}",
            block=landed,
        )

    def _outcome(self, sent: Sent, head: int) -> WeightsOutcome:
        if sent.status == "done":
            reveal = sent.data.get("reveal_round")
            return WeightsOutcome(
                "set" if reveal is None else "committed",
                sent.message,
                reveal_round=None if reveal is None else int(reveal),
                block=sent.block,
            )
        if sent.status == "unknown":
            return WeightsOutcome("unknown", sent.message, block=head + ERA + 1)
        if sent.code is ErrorCode.NOT_REGISTERED:
            raise self._writer.not_registered()
        if sent.code is ErrorCode.RATE_LIMITED:
            return WeightsOutcome("rate_limited", sent.message)
        if sent.code in (None, ErrorCode.UNKNOWN) and sent.status == "unsent":
            raise ChainError(f"weights were not sent: {sent.message}")
        return WeightsOutcome("refused", sent.message, block=sent.block)

    async def _read(self, *, commits: bool = False) -> _State:
        """The state at the head.

        Raises:
            ChainError: the chain is away.
            NotRegisteredError: the hotkey is not on the subnet.
        """
        key = self._writer.hotkey.ss58

        async def ask(client: Client) -> tuple[int, Any, Any, Any, Any]:
            view = await client.at()
            uid, updates, limit = await asyncio.gather(
                view.query(_state.Uids, [self._netuid, key]),
                view.query(_state.LastUpdate, [self._netuid]),
                view.query(_state.WeightsSetRateLimit, [self._netuid]),
            )
            pending = await view.read("timelocked_weight_commits", netuid=self._netuid) if commits else {}
            return view.block, uid, updates, limit, pending

        head, uid, updates, limit, pending = await self._connection.read("the state of our weights", ask)
        if uid is None:
            raise self._writer.not_registered()
        return _State(
            head=head,
            last_update=int(updates[int(uid)]) if updates and int(uid) < len(updates) else 0,
            rate_limit=int(limit or 0),
            commits=[
                int(entry["commit_block"])
                for row in pending.values()
                for entry in row
                if entry["hotkey"] == key
            ],
        )
