"""The listening socket: connections are counted as they are accepted, before anything is spent on them.

`transport.protocol` counts a connection when it can be spoken on, which with TLS is after the handshake.
Until then whoever says nothing would hold a descriptor for as long as a handshake may take. Here one that is
too many is closed at once. A few more are let through than the protocol serves: those get an answer.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from ...transport.limits import Limits, Rate, TokenBuckets, address_key

logger = logging.getLogger(__name__)

#: Connections beyond the limits that are accepted and told so: of one address, and in all.
SPARE_EACH = 8
SPARE = 64
#: Descriptors for all else: downloads, the database, what is being hashed.
_OWN_DESCRIPTORS = 320
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_SCARCE_RATE = Rate(per_second=1 / 60, burst=1)


class Door(socket.socket):
    """A listening socket that closes what an address, or everybody, has too many of.

    Args:
        listener: what listens; the door takes its place.
    """

    def __init__(self, listener: socket.socket, limits: Limits) -> None:
        super().__init__(listener.family, listener.type, listener.proto, fileno=listener.detach())
        wanted = limits.max_connections + SPARE
        room = _descriptors(wanted + _OWN_DESCRIPTORS) - _OWN_DESCRIPTORS
        if room < wanted:
            room = max(room, SPARE)
            logger.warning("at most %d connections at once: raise the limit of open files", room)
        self._most = min(wanted, room)
        self._most_each = limits.connections_per_address + SPARE_EACH
        self._open = 0
        self._by_address: Counter[str] = Counter()

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection.

        Raises:
            ConnectionAbortedError: it was one too many, and is closed.
            OSError: as of any socket.
        """
        accepted, address = super().accept()
        key = address_key(address[0])
        if self._open >= self._most or self._by_address[key] >= self._most_each:
            accepted.close()
            raise ConnectionAbortedError(f"too many connections, or too many of {key}")
        self._open += 1
        self._by_address[key] += 1
        return _Counted(accepted, lambda: self._left(key)), address

    def _left(self, key: str) -> None:
        self._open -= 1
        self._by_address[key] -= 1
        if not self._by_address[key]:
            del self._by_address[key]


class _Counted(socket.socket):
    """A connection that says when it is closed."""

    def __init__(self, accepted: socket.socket, left: Callable[[], None]) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self._on_close: Callable[[], None] | None = left

    def close(self) -> None:
        left, self._on_close = self._on_close, None
        super().close()
        if left is not None:
            left()


def _descriptors(wanted: int) -> int:
    """How many descriptors this process may have, raised to `wanted` as far as it is let."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if raised > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return raised


class Quiet:
    """Tells once a minute that nothing can be accepted, where asyncio would tell 100 times a second.

    Args:
        clock: seconds, steady.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._scarce = TokenBuckets(_SCARCE_RATE, max_keys=1)

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception handler of the event loop; hands on whatever else goes wrong."""
        error = context.get("exception")
        if "accept" not in context["message"] or getattr(error, "errno", None) not in _SCARCE:
            loop.default_exception_handler(context)
        elif not self._scarce.spend("", self._clock()):
            logger.error("no connection can be accepted reason=%r", str(error))
