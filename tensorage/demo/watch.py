"""What stands on the chain and in the validators' ledgers, read while all of them write."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ..chain.devnet import faucet
from ..errors import ChainError, StorageError, UsageError
from ..receipts import Verdict
from ..validator.status import MinerStatus, read_status
from .cast import MINERS, UNIT, VALIDATORS, Miner
from .stage import NETUID, Stage
from .verdict import Row


@dataclass(frozen=True, slots=True)
class View:
    """The table at one block. `epoch` counts the epochs that have ended."""

    block: int
    epoch: int
    rows: tuple[Row, ...]


class Watch:
    """Looks at the subnet. An async context manager.

    Args:
        uids: of every neuron of the demo, by name.
    """

    def __init__(self, stage: Stage, uids: dict[str, int]) -> None:
        self._stage = stage
        self._uids = uids
        self._stack = AsyncExitStack()
        self._chain: Any = None
        self._last: dict[str, dict[int, MinerStatus]] = {}
        self._committed: dict[int, int] = {}
        self._reasons: dict[int, dict[str, str]] = {}

    async def __aenter__(self) -> Watch:
        self._chain = await self._stack.enter_async_context(faucet.client(self._stage.devnet))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def look(self) -> View:
        """The table as it stands now.

        Raises:
            ChainError: the devnet has no such subnet.
        """
        graph = await self._chain.subnets.metagraph(NETUID, commitments=False)
        if graph is None:
            raise ChainError(f"the devnet has no subnet {NETUID}")
        weights = await self._chain.weights.weights(netuid=NETUID)
        epoch = await self._chain.epochs.epoch_status(netuid=NETUID)
        statuses = {name: await asyncio.to_thread(self._status, name) for name in VALIDATORS}
        set_by = {name: weights[uid] for name in VALIDATORS if (uid := self._uids[name]) in weights}
        rows = tuple(self._row(miner, graph, set_by, statuses) for miner in MINERS)
        return View(int(graph.block), int(epoch["epoch_index"]), rows)

    def _status(self, name: str) -> dict[int, MinerStatus]:
        """What a validator knows, by uid; the last that could be read, nothing before the first."""
        ledger = self._stage.ledger(name)
        if ledger is not None:
            try:
                self._last[name] = {status.uid: status for status in read_status(ledger)}
            except (StorageError, UsageError):  # it is being made or written: what was read before serves
                return self._last.get(name, {})
        return self._last.get(name, {})

    def _row(
        self,
        miner: Miner,
        graph: Any,
        set_by: dict[str, dict[int, float]],
        statuses: dict[str, dict[int, MinerStatus]],
    ) -> Row:
        uid = self._uids[miner.name]
        neuron = graph.neuron(uid)
        known = {name: status[uid] for name, status in statuses.items() if uid in status}
        verdicts: dict[str, int] = {}
        reasons = self._reasons.setdefault(uid, {})
        for name, status in known.items():
            self._committed[uid] = max(self._committed.get(uid, 0), status.committed_bytes)
            if status.reason and status.verdict != Verdict.PASSED.word:
                reasons[name] = f"{status.verdict}: {status.reason}"
            for word, count in status.counts.items():
                verdicts[word] = verdicts.get(word, 0) + count
        return Row(
            uid=uid,
            name=miner.name,
            kind=miner.kind,
            hotkey=neuron.hotkey,
            share=miner.sectors / UNIT,
            committed_bytes=self._committed.get(uid, 0),
            proven_bytes={name: status.proven_bytes for name, status in known.items()},
            verdicts=verdicts,
            reasons=dict(reasons),
            scores={name: status.score for name, status in known.items()},
            weights={name: row.get(uid, 0.0) for name, row in set_by.items()},
            incentive=float(neuron.incentive),
            emission=float(neuron.emission.alpha),
        )
