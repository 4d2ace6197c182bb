"""`Chain`: everything that tensorage reads from a chain and writes to it.

Rules. Facts about the subnet come from one snapshot of its metagraph, taken on a timer and never for a single
request. While the chain is away or makes no blocks the last snapshot serves until it is `stale_after` seconds
old; then everything that rests on it fails closed with StaleChainError. Writes go one at a time, each under a
policy that allows no spending, a small fee and this subnet only; none is repeated before its fate is known.
Finney, a local node and the devnet differ in the settings alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping

from bittensor import Client, calls, storage

from ..errors import ChainError
from . import convert
from .connection import Connection, OnConnection
from .network import ChainSettings, Opener, open_chain
from .serving import AxonPublisher
from .snapshots import Snapshots
from .types import BlockRef, Endpoint, Epoch, Metagraph, Neuron, SubnetParameters, WeightsOutcome
from .wallet import Hotkey
from .weight_setter import WeightSetter
from .writer import INCLUDED, Writer, narrow_policy

__all__ = ["Chain", "ChainSettings"]

STALE_AFTER = 600.0  # seconds
COMMITMENT_SIZE = 128  # bytes, of one Raw field

_state = storage.SubtensorModule


class Chain(OnConnection):
    """A subnet on a chain, seen by one hotkey or by nobody. An asynchronous context manager.

    Every method that asks the chain may raise ChainError: it is away, or said what cannot be read.

    Args:
        hotkey: signs what is written; without one the chain is read only.
        patient: whether entering waits for ever for a chain that is away (a service), or raises UsageError
            (a command).
        stale_after: seconds for which a snapshot may be acted on.
        clock: seconds, monotonic.
        opener: makes the SDK's access to the chain.
    """

    def __init__(
        self,
        settings: ChainSettings,
        hotkey: Hotkey | None = None,
        *,
        patient: bool = False,
        stale_after: float = STALE_AFTER,
        clock: Callable[[], float] = time.monotonic,
        opener: Opener = open_chain,
    ) -> None:
        super().__init__(
            Connection(settings, policy=narrow_policy(settings.netuid), clock=clock, opener=opener)
        )
        self.netuid = settings.netuid
        self._patient = patient
        self._clock = clock
        self._snapshots = Snapshots(self._connection, stale_after=stale_after, clock=clock)
        self._writer = Writer(self._connection, hotkey)
        self._axon = AxonPublisher(self._connection, self._writer)
        self._weights = WeightSetter(self._connection, self._writer)
        self._parameters: tuple[float, SubnetParameters] | None = None

    async def _open(self) -> None:
        if self._patient:
            await self._connection.wait_open()
        else:
            await super()._open()

    # The chain

    async def head(self) -> BlockRef:
        """The best block; a reorganisation may still replace it."""
        return await self._connection.block(await self._connection.head())

    async def block_hash(self, number: int) -> bytes:
        """The 32-byte hash of the block at a height; ChainError when there is no such block."""
        return (await self._connection.block(number)).hash

    def heads(self, stall_after: float | None = None) -> AsyncGenerator[BlockRef, None]:
        """New best blocks for ever, heights rising; after an outage it goes on with the then newest.

        Args:
            stall_after: seconds without a block after which another connection is opened; by default
                ten block times, at least 30.
        """
        return self._connection.heads(stall_after)

    # The subnet

    async def metagraph(self, *, max_age: float) -> Metagraph:
        """The neurons of the subnet, fetched at most `max_age` seconds ago where the chain answers.

        Raises:
            StaleChainError: the chain has been away for longer than a snapshot may be acted on.
            UsageError: there is no such subnet.
        """
        return await self._snapshots.get(max_age)

    def metagraph_now(self) -> Metagraph:
        """The last snapshot, without asking the chain.

        Raises:
            StaleChainError: there is none, or none that may be acted on.
        """
        return self._snapshots.now()

    async def keep_fresh(self, interval: float) -> None:
        """Fetches a snapshot every `interval` seconds until cancelled, through any outage."""
        await self._snapshots.keep_fresh(interval)

    async def require_registered(self) -> Neuron:
        """Our neuron, from a snapshot taken now.

        Raises:
            NotRegisteredError: the hotkey is not on the subnet; the remedy is the command for it.
            UsageError: there is no such subnet.
        """
        hotkey = self._writer.hotkey.ss58
        neuron = (await self._snapshots.with_hotkey(hotkey)).by_hotkey(hotkey)
        if neuron is None:
            raise self._writer.not_registered()
        return neuron

    async def epoch(self) -> Epoch:
        """Where the subnet stands in its tempo; ChainError when it runs no epochs."""
        status = await self._connection.read(
            "the epoch", lambda client: client.read("epoch_status", netuid=self.netuid)
        )
        if status["next_epoch_start_block"] is None:
            raise ChainError(f"subnet {self.netuid} has tempo 0 and runs no epochs")
        return Epoch(
            block=status["block"],
            tempo=status["tempo"],
            last_epoch_block=status["last_epoch_block"],
            next_epoch_block=status["next_epoch_start_block"],
            index=status["epoch_index"],
        )

    async def parameters(self, *, max_age: float = 60.0) -> SubnetParameters:
        """The hyperparameters of the subnet, read at most `max_age` seconds ago."""
        if self._parameters is None or self._clock() - self._parameters[0] > max_age:
            read = await self._connection.read("the hyperparameters", self._read_parameters)
            self._parameters = (self._clock(), read)
        return self._parameters[1]

    async def commitments(self) -> dict[str, bytes]:
        """What the hotkeys of the subnet published in the clear: SS58 hotkey to bytes."""
        found = await self._connection.read(
            "the commitments", lambda client: client.subnets.commitments(self.netuid)
        )
        raw = {hotkey: convert.raw_commitment(entry.fields) for hotkey, entry in found.items()}
        return {hotkey: data for hotkey, data in raw.items() if data is not None}

    async def balance(self, ss58: str) -> float:
        """The free TAO of a coldkey."""
        free = await self._connection.read("a balance", lambda client: client.balances.get(ss58))
        return convert.tokens(free)

    # Writing

    async def serve_axon(self, endpoint: Endpoint) -> bool:
        """Publishes where our axon listens; True when that changed the chain, False when it had it already.

        Waits for a chain that is away and for the serving rate limit: a service calls it in its own task.

        Raises:
            NotRegisteredError: the hotkey is not on the subnet.
            UsageError: the chain does not take such an address.
        """
        return await self._axon.publish(endpoint)

    async def set_weights(self, weights: Mapping[int, float], version_key: int) -> WeightsOutcome:
        """Sets our weights (uid: any share, made to add up to 1), or commits them where the subnet says so.

        Sends nothing when all are zero, nothing before the rate limit allows it, and nothing while earlier
        weights may still land: when those turn out to be on the chain, theirs is the outcome. Any outcome but
        "set" and "committed" may be followed by another call later.

        Raises:
            ChainError: the chain is away, and nothing was sent.
            NotRegisteredError: the hotkey is not on the subnet.
            ValueError: a weight is negative or no number.
        """
        return await self._weights.set(weights, version_key)

    async def set_commitment(self, data: bytes) -> None:
        """Publishes up to 128 bytes under our hotkey in the commitments pallet, in place of what was there.

        Raises:
            ChainError: refused, or not known to have landed; sending the same again does no harm.
            NotRegisteredError: the hotkey is not on the subnet.
            ValueError: more bytes than a field takes.
        """
        if len(data) > COMMITMENT_SIZE:
            raise ValueError(f"a commitment has at most {COMMITMENT_SIZE} bytes, not {len(data)}")
        call = calls.Commitments.set_commitment(
            netuid=self.netuid, info={"fields": [[{f"Raw{len(data)}": bytes(data)}]]}
        )
        key = self._writer.hotkey.ss58
        uid = await self._connection.read("our uid", lambda client: client.neurons.uid(key, self.netuid))
        if uid is None:
            raise self._writer.not_registered()
        sent = await self._writer.send(
            lambda client, key: client.submit_call(call, key, signer="hotkey", **INCLUDED)
        )
        if sent.status != "done":
            raise ChainError(f"the commitment was not published ({sent.status}): {sent.message}")

    async def _read_parameters(self, client: Client) -> SubnetParameters:
        view = await client.at()
        items = (
            _state.Tempo,
            _state.WeightsSetRateLimit,
            _state.CommitRevealWeightsEnabled,
            _state.MinAllowedWeights,
            _state.MaxWeightsLimit,
            _state.ImmunityPeriod,
            _state.ServingRateLimit,
            _state.WeightsVersionKey,
        )
        tempo, rate, reveal, least, most, immunity, serving, version = await asyncio.gather(
            *(view.query(item, [self.netuid]) for item in items)
        )
        return SubnetParameters(
            tempo=int(tempo or 0),
            weights_rate_limit=int(rate or 0),
            commit_reveal=bool(reveal),
            min_allowed_weights=int(least or 0),
            max_weight_limit=(0xFFFF if most is None else int(most)) / 0xFFFF,
            immunity_period=int(immunity or 0),
            serving_rate_limit=None if serving is None else int(serving),
            weights_version=int(version or 0),
        )
