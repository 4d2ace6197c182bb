"""A subnet of real processes to store files in: a chain, validators with their gateways, and many miners.

Each neuron has a coldkey of its own, so that a stripe can be spread over all miners, and each can be killed,
stopped, held and started again while the others run. What it is for: tests of files and their benchmark.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType

from ..allocator.layout import DATABASE
from ..chain.client import Chain
from ..chain.devnet import faucet, location
from ..chain.devnet.producer import is_producing
from ..chain.network import ChainSettings
from ..chain.types import Endpoint
from ..errors import StorageError, TensorageError, UsageError
from ..seal import DEV
from ..validator.status import MinerStatus, read_status
from .processes import Child, Processes
from .stage import HOTKEY, NETUID, Stage, make_wallets, register, start_devnet

_GIB = 1 << 30
_POLL_SECONDS = 0.2
_STAKE = 100_000.0  # TAO of each validator, so that what miners earn hardly counts beside it


@dataclass(frozen=True)
class Shape:
    """What a network consists of.

    Attributes:
        chunks: of 4 MiB that each miner keeps.
        block_seconds, tempo: of the chain; a miner may commit anew once a tempo.
        round_seconds: between two rounds of a validator.
        plan_seconds: between two looks of a miner at its disk, and at who may use how much of it.
        miner_flags, validator_flags: what each is started with beside its own flags.
    """

    miners: int = 12
    validators: int = 1
    chunks: int = 32
    block_seconds: float = 0.25
    tempo: int = 20
    round_seconds: float = 2.0
    plan_seconds: float = 2.0
    miner_flags: tuple[str, ...] = ()
    validator_flags: tuple[str, ...] = ()


class Network:
    """The running network. A context manager: on the way out every process is gone.

    Args:
        directory: for all that it keeps; an empty one, best on the disk that is to be measured.

    Attributes:
        miners, validators: the neurons' names, which are their wallets' too.
    """

    def __init__(self, directory: Path, shape: Shape | None = None) -> None:
        self.shape = shape or Shape()
        self.stage = Stage(directory)
        self.miners = [f"miner-{number}" for number in range(1, self.shape.miners + 1)]
        self.validators = [f"validator-{number}" for number in range(1, self.shape.validators + 1)]
        self._processes = Processes(self.stage.logs)
        self._running: dict[str, Child] = {}
        self._hotkeys: dict[str, str] = {}

    def __enter__(self) -> Network:
        self._processes.__enter__()
        try:
            self._set_up()
        except BaseException:
            self._processes.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._processes.stop()

    def _set_up(self) -> None:
        shape, names = self.shape, [*self.validators, *self.miners]
        start_devnet(self.stage, self._processes, block_time=shape.block_seconds, tempo=shape.tempo)
        self.wait("the chain", lambda: is_producing(self.stage.devnet), 60)
        make_wallets(self.stage, names)
        wallets = {n: faucet.open_wallet(n, HOTKEY, self.stage.wallets, create=False) for n in names}
        self._hotkeys = {name: wallet.hotkeypub.ss58_address for name, wallet in wallets.items()}
        asyncio.run(register(self.stage, names, dict.fromkeys(self.validators, _STAKE)))
        for name in self.miners:
            self.start(name)
        # A gateway asks a miner for room once a minute: what is there at first is what it counts on.
        for name in self.miners:
            self.wait(f"{name}'s disk", partial(self._shared_out, name), 600)
        for name in self.validators:
            self.start(name)

    # Processes

    def start(self, name: str, *flags: str) -> None:
        """Start a neuron, or start it again where it left off."""
        shape = self.shape
        common = [
            *self.stage.flags(name),
            "--axon.port=0",
            "--axon.external_ip=127.0.0.1",
            "--workers=1",
            f"--logging.logging_dir={self.stage.logs / name}",
        ]
        if name in self.miners:
            size = f"--size_in_gb={shape.chunks * DEV.size / _GIB}"
            plan = f"--seconds_per_reallocate={shape.plan_seconds}"
            command = ["miner", *common, size, plan, *shape.miner_flags]
        else:
            command = ["validator", *common, f"--round_seconds={shape.round_seconds}", *shape.validator_flags]
        self._running[name] = self._processes.start(name, ["-m", "tensorage", *command, *flags])

    def stop(self, name: str) -> None:
        """End a neuron as an operator does, by SIGTERM."""
        self._processes.end(self._running.pop(name), signal.SIGTERM)

    def kill(self, name: str) -> None:
        """End a neuron and its workers by SIGKILL."""
        self._processes.end(self._running.pop(name), signal.SIGKILL)

    def restart(self, name: str, *flags: str) -> None:
        """Stop it and start it again."""
        self.stop(name)
        self.start(name, *flags)

    def hold(self, name: str) -> None:
        """Let a neuron do nothing (SIGSTOP), while its connections stay open, until `go_on`."""
        self._running[name].process.send_signal(signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """Let a neuron go on."""
        self._running[name].process.send_signal(signal.SIGCONT)

    def pid(self, name: str) -> int:
        """The process of a neuron that runs."""
        return self._running[name].process.pid

    def log(self, name: str) -> str:
        """All that a neuron has said, before and after it was started again."""
        return (self.stage.logs / f"{name}.log").read_text(errors="replace")

    # What the network knows

    def hotkey(self, name: str) -> str:
        """A neuron's address."""
        return self._hotkeys[name]

    def root(self, name: str) -> Path:
        """The `--db_root_path` of a neuron."""
        return self.stage.root(name)

    @property
    def chain_flags(self) -> list[str]:
        """The flags that name this chain."""
        return [f"--subtensor.network={location.url(self.stage.devnet)}", f"--netuid={NETUID}"]

    def endpoints(self) -> dict[str, Endpoint | None]:
        """Where each neuron serves, by name, as the chain has it."""
        return asyncio.run(self._endpoints())

    async def _endpoints(self) -> dict[str, Endpoint | None]:
        settings = ChainSettings("finney", location.url(self.stage.devnet), NETUID)
        async with Chain(settings, None) as chain:
            graph = await chain.metagraph(max_age=0)
        neurons = {neuron.hotkey: neuron for neuron in graph.neurons}
        return {name: neurons[hotkey].endpoint for name, hotkey in self._hotkeys.items() if hotkey in neurons}

    def endpoint(self, name: str, seconds: float = 60) -> Endpoint:
        """Where a neuron serves, once it has told the chain."""
        found: list[Endpoint] = []

        def published() -> bool:
            endpoint = self.endpoints().get(name)
            found[:] = [endpoint] if endpoint else []
            return bool(found)

        self.wait(f"the endpoint of {name}", published, seconds)
        return found[0]

    def status(self, validator: str) -> dict[str, MinerStatus]:
        """What a validator thinks of the miners, by name; nothing before it knows anything."""
        ledger = self.stage.ledger(validator)
        if ledger is None:
            return {}
        try:
            known = {status.hotkey: status for status in read_status(ledger)}
        except (StorageError, UsageError):  # it is being made
            return {}
        return {name: known[self._hotkeys[name]] for name in self.miners if self._hotkeys[name] in known}

    def wait_until_proven(self, names: Sequence[str] | None = None, seconds: float = 240) -> None:
        """Wait until every validator has seen the whole disk of every miner, or of those named, proven."""
        wanted = self.miners if names is None else list(names)
        for validator in self.validators:
            self.wait(f"{validator}'s proofs", partial(self._proven, validator, wanted), seconds)

    def _shared_out(self, name: str) -> bool:
        """Whether a miner is full, and every validator has its part of that."""
        for path in self.root(name).glob(f"*/{DATABASE}"):
            try:
                with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                    quotas = dict(db.execute("SELECT * FROM quotas").fetchall())
            except sqlite3.Error:  # it is being made
                return False
            mine = [quotas.get(self._hotkeys[validator], 0) for validator in self.validators]
            return sum(quotas.values()) == self.shape.chunks and all(mine)
        return False

    def _proven(self, validator: str, names: Sequence[str]) -> bool:
        status = self.status(validator)
        size = self.shape.chunks * DEV.size
        return all(n in status and status[n].committed_bytes == size and status[n].score > 0 for n in names)

    def wait_for_room(self, miners: int | None = None, seconds: float = 240) -> None:
        """Wait until every gateway knows of room on so many miners; on all, if no number is given."""
        wanted = len(self.miners) if miners is None else miners
        for validator in self.validators:
            self.wait(f"{validator}'s room", partial(self._has_room, validator, wanted), seconds)

    def _has_room(self, validator: str, wanted: int) -> bool:
        endpoint = self.endpoint(validator)
        connection = HTTPConnection(endpoint.ip, endpoint.port, timeout=10)
        with closing(connection):
            try:
                connection.request("GET", "/v1/gateway")
                answer = connection.getresponse()
                return answer.status == 200 and int(json.loads(answer.read())["coldkeys"]) >= wanted
            except (OSError, HTTPException):  # it is being started
                return False

    def wait(self, what: str, holds: Callable[[], bool], seconds: float) -> None:
        """Wait until `holds`, while every process that was not ended runs.

        Raises:
            ProcessEndedError: one of them does not.
            TensorageError: it does not hold within `seconds`; `what` names it.
        """
        deadline = time.monotonic() + seconds
        while not holds():
            self._processes.check()
            if time.monotonic() > deadline:
                raise TensorageError(f"{what} took more than {seconds:g} s", remedy=f"See {self.stage.logs}")
            time.sleep(_POLL_SECONDS)
