"""Which address others reach us at, and whether they do.

A closed port is found out here, at the start and from then on, and not by a score that falls.
"""

from __future__ import annotations

import socket

from ..chain.types import Endpoint
from ..errors import TensorageError, UsageError
from ..transport.dendrite import Dendrite, Malformed, Peer, PeerError

LOOPBACK = "127.0.0.1"
_ANYWHERE = ("192.0.2.1", 9)  # RFC 5737; a datagram socket that is connected sends nothing
_DEADLINE = 5.0  # seconds


class NotReachableError(TensorageError):
    """Our axon does not answer where the chain says it does."""


def external_endpoint(ip: str | None, port: int, *, local: bool) -> Endpoint:
    """The endpoint to publish.

    Args:
        ip: what the operator says; None to take the address of the interface that leads out.
        port: the port that others reach.
        local: whether all neurons are on this machine (a devnet).

    Raises:
        UsageError: `ip` is no address, or none was given and none can be found.
    """
    try:
        return Endpoint(ip or (LOOPBACK if local else interface_ip()), port)
    except ValueError as error:
        raise UsageError(
            f"{ip!r} is no address of an axon: {error}", remedy="Give an IP address with --axon.external_ip"
        ) from error


def interface_ip() -> str:
    """The address of the interface that leads out.

    Raises:
        UsageError: there is none.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_ANYWHERE)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise UsageError(
            "no network interface leads out, so the address to publish is unknown",
            remedy="Name it with --axon.external_ip",
        ) from error


async def check_reachable(dendrite: Dendrite, hotkey: str, endpoint: Endpoint) -> None:
    """Ask our own axon through its published endpoint who it is.

    Raises:
        NotReachableError: nobody answers there, or somebody else does.
    """
    try:
        ping = await dendrite.ping(Peer(hotkey, endpoint), deadline=_DEADLINE)
    except Malformed as error:
        raise _not_us(endpoint) from error
    except PeerError as error:
        raise NotReachableError(
            f"our axon does not answer at {endpoint}: {error.message}",
            remedy=f"Open TCP port {endpoint.port} in the firewall and forward it to this machine, or give "
            "what others reach with --axon.external_ip and --axon.external_port (a router that does not lead "
            "its own address back inside looks the same from here)",
        ) from error
    if ping.hotkey != hotkey:
        raise _not_us(endpoint)


def _not_us(endpoint: Endpoint) -> NotReachableError:
    return NotReachableError(
        f"somebody else answers at {endpoint}",
        remedy="Give the address and port that lead to this machine with --axon.external_ip and "
        "--axon.external_port",
    )
