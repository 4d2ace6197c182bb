"""Setting the stage: where everything of one demo lies, wallets, registrations, stakes, filled disks."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from ..allocator.layout import SECTORS
from ..chain.devnet import faucet, location
from ..errors import TensorageError
from ..seal import DEV
from ..validator.ledger import LEDGER_NAME
from .cast import MINERS, VALIDATOR_STAKES, VALIDATORS, Miner
from .processes import Child, Processes

NAMES = (*VALIDATORS, *(miner.name for miner in MINERS))
STAKES = dict(zip(VALIDATORS, VALIDATOR_STAKES, strict=True))
NETUID = 1
FUNDS = 50.0  # TAO for a registration, and what the faucet likes to leave an account
HOTKEY = "default"
_GIB = 1 << 30
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Stage:
    """The directory of one demo."""

    directory: Path

    @property
    def devnet(self) -> Path:
        return self.directory / "devnet.sqlite"

    @property
    def wallets(self) -> Path:
        return self.directory / "wallets"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    def root(self, name: str) -> Path:
        """The `--db_root_path` of a neuron."""
        return self.directory / "data" / name

    def ledger(self, validator: str) -> Path | None:
        """The receipts of a validator, None before there are any."""
        return next(iter(sorted(self.root(validator).glob(f"sn*/{LEDGER_NAME}"))), None)

    def places(self) -> dict[str, str | list[str]]:
        """Where to look afterwards: directories and files, of the receipts one for each validator."""
        ledgers = [ledger for name in VALIDATORS if (ledger := self.ledger(name)) is not None]
        return {
            "logs": str(self.logs),
            "receipts": [str(ledger) for ledger in ledgers],
            "databases": str(self.directory / "data"),
            "devnet": str(self.devnet),
        }

    def remove_sectors(self) -> None:
        """Free what the sectors take up; logs, receipts and databases stay."""
        for path in self.directory.glob(f"data/*/sn*/{SECTORS}"):
            shutil.rmtree(path)

    def flags(self, name: str) -> list[str]:
        """The flags that say which chain and which wallet, and where the data are, for one neuron."""
        return [
            f"--subtensor.network={location.url(self.devnet)}",
            f"--netuid={NETUID}",
            f"--wallet.name={name}",
            f"--wallet.hotkey={HOTKEY}",
            f"--wallet.path={self.wallets}",
            f"--db_root_path={self.root(name)}",
        ]


def start_devnet(stage: Stage, processes: Processes, *, block_time: float, tempo: int) -> Child:
    """Start the chain."""
    return processes.start(
        "devnet",
        [
            *("-m", "tensorage", "devnet", "up"),
            f"--path={stage.devnet}",
            f"--block-time={block_time}",
            f"--tempo={tempo}",
            "--weights-rate-limit=2",
            "--serving-rate-limit=2",
        ],
    )


async def wait_for(what: str, ready: Callable[[], bool], processes: Processes, deadline: float) -> None:
    """Wait until `ready`, watching over the processes.

    Raises:
        ProcessEndedError: one of them failed.
        TensorageError: it was not ready by `deadline`, in seconds of the monotonic clock.
    """
    while not ready():
        processes.check()
        if time.monotonic() > deadline:
            raise TensorageError(f"{what} took too long", remedy="Give more time with --seconds")
        await anyio.sleep(_POLL_SECONDS)


async def register(
    stage: Stage, names: Sequence[str] = NAMES, stakes: Mapping[str, float] = STAKES
) -> dict[str, int]:
    """Register every neuron and stake for the validators; name to uid. The wallets must be there."""
    uids: dict[str, int] = {}
    async with faucet.client(stage.devnet) as chain:
        wallets = {name: faucet.open_wallet(name, HOTKEY, stage.wallets, create=False) for name in names}
        # The faucet's transfers follow one another, as those of any one account must.
        for name, wallet in wallets.items():
            await faucet.fund(chain, wallet.coldkeypub.ss58_address, FUNDS + stakes.get(name, 0))

        async def enter(name: str, wallet: Any) -> None:
            uids[name] = await faucet.register(chain, wallet, NETUID)
            if name in stakes:
                await faucet.stake(chain, wallet, NETUID, stakes[name])

        async with anyio.create_task_group() as group:
            for name, wallet in wallets.items():
                group.start_soon(enter, name, wallet)
    return uids


def make_wallets(stage: Stage, names: Sequence[str] = NAMES) -> None:
    """Make a wallet, without a password, for every neuron."""
    for name in names:
        faucet.open_wallet(name, HOTKEY, stage.wallets, create=True)


def start_allocation(stage: Stage, processes: Processes, miners: Sequence[Miner]) -> list[Child]:
    """Fill each miner's share of the disk with the command that operators use."""
    return [
        processes.start(
            f"allocate-{miner.name}",
            [
                *("-m", "tensorage", "allocate", "--disable_prompt", "--workers=1"),
                *size_flags(miner),
                *stage.flags(miner.name),
            ],
        )
        for miner in miners
    ]


def size_flags(miner: Miner) -> list[str]:
    """The flags that say how much a miner keeps."""
    return [f"--size_in_gb={miner.sectors * DEV.size / _GIB}"]
