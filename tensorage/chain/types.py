"""What the rest of tensorage knows of a chain: frozen records, without the SDK.

Hotkeys and coldkeys are SS58 addresses here, as people read them; `Neuron.public_key` gives the 32 bytes that
the protocol hashes. Stakes and emissions are floats in whole tokens (TAO or the subnet's alpha). Scores are
shares between 0 and 1. Heights and ages are in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address
from typing import Literal

from .address import public_key


@dataclass(frozen=True, slots=True)
class BlockRef:
    """One block: its height and its 32-byte hash."""

    number: int
    hash: bytes

    def __repr__(self) -> str:
        return f"BlockRef({self.number}, 0x{self.hash.hex()})"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an axon listens: an IPv4 or IPv6 address in its shortest spelling, and a port.

    Raises:
        ValueError: no address, or no port between 1 and 65535.
    """

    ip: str
    port: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "ip", str(ip_address(self.ip)))
        if not 0 < self.port < 1 << 16:
            raise ValueError(f"port {self.port} is not between 1 and 65535")

    @property
    def host(self) -> str:
        """The address as it stands in a URL: IPv6 in brackets."""
        return f"[{self.ip}]" if ":" in self.ip else self.ip

    @property
    def url(self) -> str:
        return f"http://{self}"

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Endpoint | None:
        """The endpoint in "ip:port", "[ip]:port" or, as the SDK writes IPv6, unbracketed "ip:port".

        None for the address of nowhere (all zeros), for port 0 and for what is no endpoint: a neuron that
        publishes such a record serves nothing.
        """
        ip, _, port = text.rpartition(":")
        try:
            address = ip_address(ip.strip("[]"))
            return None if address.is_unspecified else cls(str(address), int(port))
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Neuron:
    """One uid of a subnet, as of the block of the metagraph that it stands in.

    `last_update` and `registered_at` are block heights, `emission` is in alpha a tempo.
    """

    uid: int
    hotkey: str
    coldkey: str
    endpoint: Endpoint | None
    validator_permit: bool
    active: bool
    tao_stake: float
    total_stake: float
    alpha_stake: float
    last_update: int
    registered_at: int
    incentive: float
    dividends: float
    consensus: float
    emission: float

    @property
    def public_key(self) -> bytes:
        """The 32 bytes of the hotkey."""
        return public_key(self.hotkey)


@dataclass(frozen=True)
class Metagraph:
    """All neurons of a subnet at one block, in the order of their uids."""

    netuid: int
    block: BlockRef
    tempo: int
    owner_hotkey: str
    neurons: tuple[Neuron, ...] = field(repr=False)

    @cached_property
    def _by_hotkey(self) -> dict[str, Neuron]:
        return {neuron.hotkey: neuron for neuron in self.neurons}

    @cached_property
    def _by_uid(self) -> dict[int, Neuron]:
        return {neuron.uid: neuron for neuron in self.neurons}

    def by_hotkey(self, hotkey: str) -> Neuron | None:
        """The neuron of an SS58 hotkey, or None when it is not registered."""
        return self._by_hotkey.get(hotkey)

    def by_uid(self, uid: int) -> Neuron | None:
        return self._by_uid.get(uid)

    @property
    def validators(self) -> tuple[Neuron, ...]:
        """The neurons that may validate: a permit, and stake to weigh it with."""
        return tuple(n for n in self.neurons if n.validator_permit and n.total_stake > 0)


@dataclass(frozen=True, slots=True)
class Epoch:
    """Where `block` stands in the subnet's tempo. `index` counts epochs, where the chain counts them."""

    block: int
    tempo: int
    last_epoch_block: int
    next_epoch_block: int
    index: int | None = None


@dataclass(frozen=True, slots=True)
class SubnetParameters:
    """The hyperparameters that a neuron acts on. Times are in blocks; `max_weight_limit` is a share.

    `serving_rate_limit` is None where the chain does not tell it.
    """

    tempo: int
    weights_rate_limit: int
    commit_reveal: bool
    min_allowed_weights: int
    max_weight_limit: float
    immunity_period: int
    serving_rate_limit: int | None
    weights_version: int


WeightsStatus = Literal["set", "committed", "rate_limited", "refused", "unknown", "nothing"]


@dataclass(frozen=True, slots=True)
class WeightsOutcome:
    """What became of weights.

    `set` and `committed` are done (`reveal_round`: the drand round at which a commitment opens);
    `rate_limited` may be tried again from height `block` on; `refused` says why in `message`; `unknown` may
    or may not be on the chain yet and must not be sent again before `Chain.set_weights` has found out;
    `nothing` had no weight above zero to set.
    """

    status: WeightsStatus
    message: str
    reveal_round: int | None = None
    block: int | None = None
