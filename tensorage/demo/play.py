"""The play: from the first process to the verdict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from ..chain.devnet.producer import is_producing
from .cast import MINERS, VALIDATORS
from .display import Display
from .processes import Processes
from .stage import Stage, make_wallets, register, size_flags, start_allocation, start_devnet, wait_for
from .verdict import Judgement, Row, judge
from .watch import View, Watch

BLOCK_SECONDS = 0.5
TEMPO = 10  # blocks
EPOCHS = 2  # in a row that must end as they should
_LOOK_SECONDS = 1.0

_VALIDATOR_FLAGS = ("--round_seconds=2", "--audit_seconds=2")
_MINER_MODULES = {
    "honest": ("-m", "tensorage", "miner"),
    "overwritten": ("-m", "tensorage.demo.cheats", "overwritten"),
    "zeros": ("-m", "tensorage.demo.cheats", "zeros"),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended: the last table and the judgement on it."""

    rows: Sequence[Row]
    block: int
    judgement: Judgement


async def play(stage: Stage, processes: Processes, display: Display, seconds: float) -> Outcome:
    """Play it; leaves the processes running.

    Args:
        seconds: after which it has failed.

    Raises:
        ProcessEndedError: a process failed.
        TensorageError: the stage could not be set in time.
    """
    deadline = time.monotonic() + seconds
    display.say("starting the chain")
    start_devnet(stage, processes, block_time=BLOCK_SECONDS, tempo=TEMPO)
    await wait_for("the chain", lambda: is_producing(stage.devnet), processes, deadline)
    make_wallets(stage)
    display.say("filling the disks, and registering two validators and five miners")
    filling = start_allocation(stage, processes, [miner for miner in MINERS if miner.seals])
    uids = await register(stage)
    start_validators(stage, processes)
    await wait_for(
        "filling the disks", lambda: not any(child.running for child in filling), processes, deadline
    )
    start_miners(stage, processes)
    display.say("all processes run; waiting for proofs, weights and two epochs that pay as they should")
    async with Watch(stage, uids) as watch:
        return await _watch(watch, processes, display, deadline)


def start_validators(stage: Stage, processes: Processes) -> None:
    """Start the validators, each on a port of its own choice."""
    for name in VALIDATORS:
        processes.start(
            name,
            ["-m", "tensorage", "validator", *_service_flags(stage, name), *_VALIDATOR_FLAGS],
        )


def start_miners(stage: Stage, processes: Processes) -> None:
    """Start the miners, honest and other."""
    for miner in MINERS:
        processes.start(
            miner.name,
            [*_MINER_MODULES[miner.kind], *_service_flags(stage, miner.name), *size_flags(miner)],
        )


def _service_flags(stage: Stage, name: str) -> list[str]:
    return [
        *stage.flags(name),
        "--axon.port=0",
        "--axon.external_ip=127.0.0.1",
        "--workers=1",
        f"--logging.logging_dir={stage.logs / name}",
    ]


async def _watch(watch: Watch, processes: Processes, display: Display, deadline: float) -> Outcome:
    epoch, good = -1, 0
    while True:
        processes.check()
        view = await watch.look()
        judgement = judge(view.rows, VALIDATORS)
        ended = view.epoch != epoch
        if ended:
            epoch = view.epoch
            good = good + 1 if judgement.ok else 0
        display.show(view.rows, block=view.block, judgement=judgement, epoch_ended=ended)
        if good >= EPOCHS:
            return _outcome(view, judgement)
        if time.monotonic() > deadline:
            reason = judgement.reason or f"no {EPOCHS} epochs in a row ended as they should"
            return _outcome(view, Judgement(False, f"time is up: {reason}"))
        await anyio.sleep(_LOOK_SECONDS)


def _outcome(view: View, judgement: Judgement) -> Outcome:
    return Outcome(view.rows, view.block, judgement)
