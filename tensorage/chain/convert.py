"""The SDK's values as our records.

A real node and the devnet both answer through the SDK's decoders, so these are the only shapes there are:
hashes as 0x-hex, amounts as `Balance` in rao of TAO or of the subnet's alpha, an axon as "ip:port" in a
metagraph and as a record of integers in storage, None for what was never set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from bittensor import Balance
from bittensor import Metagraph as SdkMetagraph
from bittensor import MetagraphNeuron as SdkNeuron

from ..encoding import HASH_SIZE, fixed
from .types import BlockRef, Endpoint, Metagraph, Neuron

_RAO = 10**9


@dataclass(frozen=True, slots=True)
class AxonRecord:
    """What a neuron published of its axon, and at which height."""

    endpoint: Endpoint | None
    block: int


def block_hash(text: str) -> bytes:
    """The 32 bytes of a 0x-hex hash.

    Raises:
        ValueError: it is no such hash.
    """
    return fixed(bytes.fromhex(text.removeprefix("0x")), HASH_SIZE, "block hash")


def tokens(amount: Balance) -> float:
    """A balance in whole tokens, TAO or alpha alike."""
    return int(amount.rao) / _RAO


def neuron(row: SdkNeuron) -> Neuron:
    """One row of the SDK's metagraph."""
    return Neuron(
        uid=row.uid,
        hotkey=row.hotkey,
        coldkey=row.coldkey,
        endpoint=Endpoint.parse(row.axon) if row.axon else None,
        validator_permit=row.validator_permit,
        active=row.active,
        tao_stake=tokens(row.tao_stake),
        total_stake=tokens(row.total_stake),
        alpha_stake=tokens(row.alpha_stake),
        last_update=row.last_update,
        registered_at=row.block_at_registration,
        incentive=row.incentive,
        dividends=row.dividends,
        consensus=row.consensus,
        emission=tokens(row.emission),
    )


def metagraph(graph: SdkMetagraph, block: BlockRef) -> Metagraph:
    """The SDK's metagraph, read at `block`."""
    return Metagraph(
        netuid=graph.netuid,
        block=block,
        tempo=graph.tempo,
        owner_hotkey=graph.owner_hotkey,
        neurons=tuple(neuron(row) for row in graph.neurons),
    )


def axon_record(value: Any) -> AxonRecord | None:
    """A value of the storage map Axons: {block, ip: integer, port, ip_type: 4 or 6, ...} or None."""
    if not isinstance(value, Mapping):
        return None
    number, port = int(value.get("ip") or 0), int(value.get("port") or 0)
    address = IPv6Address(number) if int(value.get("ip_type") or 4) == 6 else IPv4Address(number)
    endpoint = Endpoint(str(address), port) if number and port else None
    return AxonRecord(endpoint, int(value.get("block") or 0))


def raw_commitment(fields: Iterable[Any]) -> bytes | None:
    """The bytes of a commitment made of Raw fields; None when it holds none (a hash, a timelock).

    Anybody on the subnet can publish anything, so what cannot be read is None too.
    """
    parts = [
        value
        for entry in fields
        if isinstance(entry, Mapping)
        for variant, value in entry.items()
        if variant.startswith("Raw")
    ]
    try:
        return b"".join(map(_data, parts)) if parts else None
    except (TypeError, ValueError):
        return None


def _data(value: Any) -> bytes:
    return bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else bytes(value)
