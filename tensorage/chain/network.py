"""Which chain is meant, and how to reach it.

    finney, test, local   the SDK's networks, with the SDK's public fallback and archive endpoints
    ws:// or wss://       that node and no other, whether it is given as the network or as the endpoint
    devnet, sqlite://     the local chain of tensorage.chain.devnet

An endpoint wins over a network, as on the command line.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from bittensor import RpcSubstrate, Substrate
from bittensor.settings import (
    NETWORKS,
    default_archive_endpoints,
    default_fallback_endpoints,
    resolve_endpoint,
)

from ..errors import UsageError
from .devnet import NETWORK, is_devnet, locate, open_substrate

__all__ = ["ChainSettings", "Opener", "open_chain"]


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """The chain and the subnet that an operator names with --subtensor.network, .chain_endpoint and --netuid.

    Raises:
        UsageError: the network is unknown, or the endpoint is no URL of a node.
    """

    network: str
    endpoint: str | None
    netuid: int

    def __post_init__(self) -> None:
        if self.is_devnet:
            locate(self.label)
            return
        if self.endpoint and not self.endpoint.startswith(("ws://", "wss://")):
            raise UsageError(
                f"chain endpoint {self.endpoint!r} is no URL of a node",
                remedy="Write it like ws://127.0.0.1:9944 or sqlite:///path/of/devnet.sqlite",
            )
        if not self.endpoint:
            try:
                resolve_endpoint(self.network)
            except ValueError as error:
                raise UsageError(
                    f"there is no network {self.network!r}",
                    remedy="Take finney, test, local, devnet, or give a ws:// endpoint",
                ) from error

    @property
    def is_devnet(self) -> bool:
        return is_devnet(self.network, self.endpoint)

    @property
    def is_local(self) -> bool:
        """Whether the chain is a devnet or its node is on this machine; that node may follow any chain."""
        if self.is_devnet or (self.network == "local" and not self.endpoint):
            return True
        return urlsplit(self.label).hostname in ("localhost", "127.0.0.1", "::1")

    @property
    def label(self) -> str:
        """What to call the chain in a message, and what `btcli -n` takes."""
        return self.endpoint or self.network

    @property
    def devnet_flag(self) -> str:
        """How `tensorage devnet` is told which file, with a space in front; empty for the default one."""
        return "" if self.label == NETWORK else f" --path {shlex.quote(str(locate(self.label)))}"

    @property
    def sdk_network(self) -> str:
        """A name that the SDK accepts; on a devnet it labels nothing."""
        return "local" if self.is_devnet else self.label


Opener = Callable[[ChainSettings], Substrate]


def open_chain(settings: ChainSettings) -> Substrate:
    """The SDK's access to the chain, not yet connected."""
    if settings.is_devnet:
        return open_substrate(settings.label)
    _, url = resolve_endpoint(settings.label)
    named = not settings.endpoint and settings.network in NETWORKS
    fallbacks = default_fallback_endpoints(settings.network) if named else []
    archives = default_archive_endpoints(settings.network) if named else []
    return RpcSubstrate(
        url, fallback_endpoints=[other for other in fallbacks if other != url], archive_endpoints=archives
    )
