"""The gateway: the validator that hands out tickets for an account's shards, and how it is found and asked.

With an address and an API key, no chain is touched: the key names the validator's hotkey, so that whoever
answers at the address cannot use what is sent to it. Without an address, the validators that the chain knows
are asked in the order of their stake. Whoever answers falsely wins nothing: a miner stores by the ticket of a
validator with a permit only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from socket import SOCK_STREAM
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import anyio

from ..chain.address import public_key
from ..chain.types import Endpoint
from ..errors import TensorageError, UsageError
from ..gateway.accounts import ApiKey
from ..keyauth import SigningKey
from ..transport.addresses import is_public
from ..transport.dendrite import Dendrite, Late, Peer, PeerError, Refused, Unreachable
from ..transport.file_calls import GatewayCalls
from ..transport.file_messages import GatewayInfo

if TYPE_CHECKING:
    from ..chain.network import ChainSettings
    from ..chain.wallet import Hotkey

DEADLINE = 20.0  # seconds for a call
CHAIN_SECONDS = 60.0
#: Seconds for which a gateway that does not answer is asked again, since a validator may be restarted.
PATIENCE = 45.0
_AGAIN = ("rate_limited", "unready")

T = TypeVar("T")


class GatewayError(TensorageError):
    """The gateway is away, or refuses."""


@dataclass(frozen=True, slots=True)
class Access:
    """What the flags say about which gateway to use, and as whom.

    Attributes:
        url: of the gateway; None when it is to be found.
        wallet: name, hotkey, path; used where there is no API key.
        chain: makes the chain's settings; called only where a chain is needed.
        local: whether the flags name a devnet or a local node.
    """

    url: str | None
    api_key: ApiKey | None
    wallet: tuple[str, str, Path]
    chain: Callable[[], ChainSettings]
    local: bool

    def signer(self) -> Hotkey | SigningKey:
        """Who we are; UsageError when there is neither key nor wallet."""
        if self.api_key is not None:
            return self.api_key.key
        from ..chain.wallet import load_hotkey  # noqa: PLC0415 - the chain's SDK, where it is needed

        name, hotkey, path = self.wallet
        try:
            return load_hotkey(name, hotkey, path)
        except UsageError as error:
            raise UsageError(
                error.message, remedy="Name an API key with --api_key or TENSORAGE_API_KEY, or a wallet"
            ) from error


def may_dial_private(access: Access, gateway_ip: str | None = None) -> bool:
    """Whether addresses that are not globally routable are dialled.

    They are on a devnet or a local node's network, and where the user named the gateway by such an address.

    Args:
        gateway_ip: of the gateway that a file was put through, as this client's own catalog has it.
    """
    named = urlsplit(_with_scheme(access.url)).hostname if access.url else gateway_ip
    return access.local or named == "localhost" or (named is not None and _is_private(named))


def _is_private(ip: str) -> bool:
    try:
        return not is_public(str(Endpoint(ip, 1).ip))
    except ValueError:
        return False  # a name


def _with_scheme(url: str) -> str:
    return url if "//" in url else "http://" + url


async def address_of(url: str) -> Endpoint:
    """The address that --gateway names.

    Raises:
        UsageError: it names none.
    """
    refusal = UsageError(
        f"{url!r} is no address of a gateway", remedy="Write it like http://203.0.113.7:8091"
    )
    parts = urlsplit(_with_scheme(url))
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        raise refusal from None
    if parts.scheme != "http" or not host or not port or parts.path not in ("", "/"):
        raise refusal
    try:
        found = await anyio.getaddrinfo(host, port, type=SOCK_STREAM)
    except OSError as error:
        raise refusal from error
    return Endpoint(str(found[0][4][0]), port)


class Gateway:
    """One gateway, asked as `key`; calls are repeated while it is away, for up to `PATIENCE` seconds."""

    def __init__(self, dendrite: Dendrite, peer: Peer, key: Hotkey | SigningKey | None) -> None:
        self.peer = peer
        self.calls = GatewayCalls(dendrite, key)

    @property
    def endpoint(self) -> Endpoint:
        """Where it serves."""
        assert self.peer.endpoint is not None  # checked where it is made
        return self.peer.endpoint

    @property
    def public_key(self) -> bytes:
        """Of the validator's hotkey."""
        return public_key(self.peer.hotkey)

    async def ask(self, call: Callable[[], Awaitable[T]], *, patience: float = PATIENCE) -> T:
        """What `call` returns; it may be called several times.

        Raises:
            GatewayError: it does not answer, or refuses.
        """
        end = time.monotonic() + patience
        pause = 0.25
        while True:
            try:
                return await call()
            except Refused as error:
                if error.kind not in _AGAIN or time.monotonic() + pause > end:
                    raise self._refused(error) from error
            except (Unreachable, Late) as error:
                if time.monotonic() + pause > end:
                    raise GatewayError(
                        f"the gateway is away: {error}",
                        remedy="Try again later, or name another with --gateway; what was done is kept",
                    ) from error
            except PeerError as error:
                raise GatewayError(f"the gateway {self.endpoint} answers wrongly: {error}") from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _refused(self, error: Refused) -> GatewayError:
        remedy = ""
        if "over quota" in str(error):
            remedy = "Remove files with: tensorage rm, or ask the validator for more"
        elif error.status in (401, 403):
            remedy = "Check the API key, or the hotkey that the validator has an account for"
        elif error.status == 404 and "no such path" in str(error):
            remedy = f"{self.endpoint} is no gateway: name a validator's with --gateway"
        elif "have room" in str(error):
            remedy = "Try again in a few minutes, or take fewer with --data-shards and --parity-shards"
        return GatewayError(f"the gateway refuses: {error}", remedy=remedy)


async def find(access: Access, dendrite: Dendrite) -> tuple[Peer, GatewayInfo]:
    """The gateway to use for new files, and what it says of itself.

    Raises:
        UsageError: none was named, and none is found.
        GatewayError: it does not answer.
    """
    if access.url is not None:
        endpoint = await address_of(access.url)
        named = access.api_key.validator if access.api_key else None
        info = await _info(dendrite, endpoint)
        if named is not None and info.hotkey != named:
            raise UsageError(
                f"the gateway at {endpoint} is {info.hotkey}'s, the API key is for {named}",
                remedy="Name the gateway of that validator with --gateway",
            )
        return Peer(info.hotkey, endpoint), info
    wanted = access.api_key.validator if access.api_key else None
    for hotkey, endpoint in await _validators(access):
        if wanted not in (None, hotkey):
            continue
        try:
            info = await _info(dendrite, endpoint, patience=0.0)
        except GatewayError:
            continue
        if info.hotkey == hotkey:
            return Peer(hotkey, endpoint), info
    raise UsageError(
        f"validator {wanted} serves no gateway now"
        if wanted
        else "no validator of the subnet serves a gateway",
        remedy="Name one with --gateway http://ip:port",
    )


async def _info(dendrite: Dendrite, endpoint: Endpoint, *, patience: float = 5.0) -> GatewayInfo:
    gateway = Gateway(dendrite, Peer("", endpoint), None)
    return await gateway.ask(
        lambda: gateway.calls.info(gateway.peer, deadline=DEADLINE if patience else 5.0), patience=patience
    )


async def _validators(access: Access) -> list[tuple[str, Endpoint]]:
    """Validators with a permit that serve somewhere, the highest stake first."""
    from ..chain.client import Chain  # noqa: PLC0415 - the chain's SDK, where it is needed

    settings = access.chain()
    try:
        with anyio.fail_after(CHAIN_SECONDS):
            async with Chain(settings) as chain:
                metagraph = await chain.metagraph(max_age=60.0)
    except TimeoutError as error:
        raise UsageError(
            f"chain {settings.label} did not answer within {CHAIN_SECONDS:.0f} s",
            remedy="Name a gateway with --gateway http://ip:port and an --api_key, which need no chain",
        ) from error
    permitted = [neuron for neuron in metagraph.neurons if neuron.validator_permit]
    permitted.sort(key=lambda neuron: -neuron.total_stake)
    return [(neuron.hotkey, neuron.endpoint) for neuron in permitted if neuron.endpoint is not None]
