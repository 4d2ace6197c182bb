"""The socket that a server listens on, and what an operator is told when it cannot be had."""

from __future__ import annotations

import errno
import socket

from ..errors import UsageError


def listen(host: str, port: int, *, flag: str = "--axon.port") -> socket.socket:
    """A listening, non-blocking TCP socket; port 0 takes any, "::" serves both families.

    Args:
        flag: what the operator chooses the port with.

    Raises:
        UsageError: the address or the port cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named so that asyncio sets TCP_NODELAY on what is accepted: without it each answer waits
    # 40 ms for the peer's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(1024)
        listener.setblocking(False)
    except (OSError, OverflowError) as error:
        listener.close()
        raise _unavailable(host, port, flag, error) from error
    return listener


def _unavailable(host: str, port: int, flag: str, error: Exception) -> UsageError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return UsageError(
            f"port {port} is in use on {host}",
            remedy=f"Stop the program that listens there, or choose another port with {flag}",
        )
    if number == errno.EACCES:
        return UsageError(f"port {port} needs privileges", remedy=f"Choose one above 1023 with {flag}")
    return UsageError(
        f"cannot listen on {host} port {port}: {error}",
        remedy=f"Check the address, and choose a port between 1 and 65535 with {flag}",
    )
