"""Bodies that are taken piece by piece by whoever has judged the request's headers.

Nothing is read before the handler asks for it, beyond what the connection buffers (64 KiB and one read of
the socket). What follows of a body with a declared length goes from the socket straight into buffers of
`STEP` bytes: at the pace of storage, all that a parser does for each of many small reads is what takes the
time. From then on the upload counts against the caps, of all and of its address, until it is answered;
it ends when nothing comes for `idle_seconds`, when it grows over the handler's limit, and when the request's
time is up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from fastapi import Request

from ..direct import Pages
from ..errors import RequestError
from .gate import CONNECTION, STREAMED, address_of
from .limits import Limits
from .refusals import HttpRefusal

if TYPE_CHECKING:
    from .protocol import AxonProtocol

#: Bytes in which a body is taken.
STEP = 512 << 10
_BUFFERS = Pages(STEP, keep=16)


class Uploads:
    """The uploads of one axon that are being taken."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_address: Counter[str] = Counter()

    @asynccontextmanager
    async def call(self, request: Request) -> AsyncIterator[StreamCall]:
        """The call of a request whose body nobody has touched."""
        request.scope[STREAMED] = True
        body = _Body(request, self._limits, self._by_address)
        try:
            yield StreamCall(
                {name.lower(): value for name, value in request.headers.items()},
                request.path_params,
                request.query_params,
                body,
            )
        finally:
            body.leave()


@dataclass(frozen=True)
class StreamCall:
    """An upload of which only the headers are there.

    Attributes:
        headers: by lower-case name; of a name given twice, the last value.
        path: the parameters of the route's template, decoded.
        query: the query's parameters, decoded.
    """

    headers: Mapping[str, str]
    path: Mapping[str, str]
    query: Mapping[str, str]
    _body: _Body

    @property
    def length(self) -> int | None:
        """The bytes that the body is declared to have; None when it is not said."""
        return self._body.declared

    def chunks(self, limit: int) -> AsyncGenerator[memoryview, None]:
        """The body in pieces of at most 512 KiB. To be asked for once, and closed.

        Each piece is there until the next but one is asked for, the last two until the call is answered: one
        can be written while the next comes in.

        Args:
            limit: the most bytes that are taken.

        Raises:
            RequestError: while iterating: "too_large", "rate_limited" or "unready" (too many uploads),
                "timeout" (nothing came), "malformed" (the connection closed before the body was whole).
        """
        return self._body.chunks(limit)


class _Body:
    def __init__(self, request: Request, limits: Limits, by_address: Counter[str]) -> None:
        declared = request.headers.get("content-length")
        self.declared = None if declared is None else int(declared)
        self._request = request
        self._limits = limits
        self._by_address = by_address
        self._address = address_of(request.scope)
        self._entered = False
        self._buffers: list[memoryview] = []

    async def chunks(self, limit: int) -> AsyncGenerator[memoryview, None]:
        if self.declared is not None and self.declared > limit:
            raise RequestError("too_large", f"the body has {self.declared} bytes, at most {limit} are taken")
        self._enter()
        connection: AxonProtocol | None = self._request.scope.get(CONNECTION)
        buffers = self._buffers = [_BUFFERS.take(), _BUFFERS.take()]
        size, more = 0, True
        while more:
            left = 0 if self.declared is None else self.declared - size
            if left and connection is not None and connection.is_drained():
                filled = buffers[0][:left]
                await connection.fill(filled)
                size += len(filled)
                more = len(filled) < left
                if not more:
                    connection.filled()
                buffers.reverse()
                yield filled
            else:
                piece, more = await self._receive()
                if connection is not None:
                    connection.flow.pause_reading()  # what comes next is for a buffer
                size += len(piece)
                if size > limit:
                    raise RequestError("too_large", f"the body is over {limit} bytes")
                for at in range(0, len(piece), STEP):
                    yield memoryview(piece)[at : at + STEP]

    async def _receive(self) -> tuple[bytes, bool]:
        """What the connection has parsed, and whether there is more to come."""
        seconds = self._limits.idle_seconds
        message = None
        with anyio.move_on_after(seconds):
            message = await self._request.receive()
        if message is None:
            raise HttpRefusal(408, f"nothing came for {seconds:g} s")
        if message["type"] != "http.request":
            raise RequestError("malformed", "the connection closed before the body was whole")
        return message.get("body", b""), message.get("more_body", False)

    def _enter(self) -> None:
        if self._entered:
            raise RuntimeError("a body can be taken once")
        if self._by_address.total() >= self._limits.max_uploads:
            raise RequestError("unready", "as many uploads are coming in as we can take; try again soon")
        if self._by_address[self._address] >= self._limits.uploads_per_address:
            raise RequestError("rate_limited", "too many uploads from your address at once")
        self._entered = True
        self._by_address[self._address] += 1

    def leave(self) -> None:
        """Count it no longer; nobody uses what came of it any more, or nobody cares."""
        while self._buffers:
            _BUFFERS.give(self._buffers.pop())
        if self._entered:
            self._by_address[self._address] -= 1
            if not self._by_address[self._address]:
                del self._by_address[self._address]
