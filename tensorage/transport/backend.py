"""The network below the dendrite, with a cap on the head of an answer.

An HTTP client reads any number of informational responses (1xx) before the one that it waits for, and each
costs as much as a whole answer. A peer that sends nothing else would have all of our event loop until its
deadline, and the answers of others would come late by our own doing.

And whoever refuses an upload early is heard early, instead of being sent the rest of it.
"""

from __future__ import annotations

import select
import ssl
import time
from collections import OrderedDict
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

#: Bytes in which the status line and headers must have come, all that stands before them included.
HEAD_BYTES = 16 * 1024
#: Bytes that are read at once of a body. An HTTP client asks for 64 KiB; what the event loop has read beyond
#: that is then copied for every piece that is handed out.
_READ_BYTES = 256 * 1024
#: How large a part of a request must be for an earlier answer to be looked for.
_EARLY_BYTES = 16 * 1024


@dataclass
class Head:
    """How much of the head of one answer may still come; `whole` once it is there."""

    left: int = HEAD_BYTES
    whole: bool = False


#: The answer that the current task reads.
HEAD: ContextVar[Head | None] = ContextVar("head", default=None)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._poll: select.poll | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        head = HEAD.get()
        if head is None or head.whole:
            return await self._inner.read(max(max_bytes, _READ_BYTES), timeout)
        if head.left <= 0:
            raise httpcore.RemoteProtocolError(f"no answer in the first {HEAD_BYTES} bytes")
        data = await self._inner.read(min(max_bytes, head.left), timeout)
        head.left -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # An answer before the end of a large body says that the rest is not wanted: it is read instead.
        if len(buffer) >= _EARLY_BYTES and self._is_readable():
            raise httpcore.WriteError("the answer came before the request was whole")
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._is_readable() if info == "is_readable" else self._inner.get_extra_info(info)

    def _is_readable(self) -> bool:
        """What httpcore finds out by asking for all that there is to know of the socket, each time."""
        if self._poll is None:
            sock = self._inner.get_extra_info("socket")
            if sock is None or sock.fileno() < 0:
                return True  # closed: what is read next is the end
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)
        return bool(self._poll.poll(0))


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self) -> None:
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        inner = await self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(inner)

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Pools(httpcore.AsyncConnectionPool):
    """A pool of connections for each origin, forgotten when it has not been used for a while.

    A pool of httpcore's looks at each of its connections, and then at each of them again for every idle one,
    whenever a request begins or ends: with one pool for many peers, transfers spend their time with that.
    """

    def __init__(self, limits: httpx.Limits) -> None:
        super().__init__()
        self._limits = limits
        self._pools: OrderedDict[tuple[bytes, bytes, int], httpcore.AsyncConnectionPool] = OrderedDict()
        self._used: dict[tuple[bytes, bytes, int], float] = {}

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        await self._close_unused()
        origin = request.url.origin
        key = (origin.scheme, origin.host, origin.port)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = httpcore.AsyncConnectionPool(
                max_connections=self._limits.max_connections,
                max_keepalive_connections=self._limits.max_keepalive_connections,
                keepalive_expiry=self._limits.keepalive_expiry,
                network_backend=_Backend(),
            )
        self._use(key)
        return await pool.handle_async_request(request)

    def _use(self, key: tuple[bytes, bytes, int]) -> None:
        self._pools.move_to_end(key)
        self._used[key] = time.monotonic()

    async def _close_unused(self) -> None:
        before = time.monotonic() - (self._limits.keepalive_expiry or 0.0)
        while self._pools:
            key, pool = next(iter(self._pools.items()))
            if self._used[key] > before:
                return
            if all(connection.is_idle() or connection.is_closed() for connection in pool.connections):
                del self._pools[key], self._used[key]
                await pool.aclose()
            else:
                self._use(key)

    async def aclose(self) -> None:
        for pool in list(self._pools.values()):
            await pool.aclose()
        self._pools.clear()
        self._used.clear()


class Transport(httpx.AsyncHTTPTransport):
    """httpx's transport over such a network: plain HTTP/1.1, no proxy. The limits are for each origin.

    httpx does not let its pool be given, so it is replaced here.
    """

    def __init__(self, limits: httpx.Limits) -> None:
        nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # to read certificates takes 20 ms, for nothing
        super().__init__(verify=nobody, trust_env=False, limits=limits)
        self._pool = _Pools(limits)
