"""One HTTP/1.1 connection of an axon: uvicorn's, with the limits that it lacks.

uvicorn waits for ever for the headers of a first request, for a peer that does not read its answer, and for
the rest of a body that was refused. Here every connection is in one of four phases, and `reap` (called a
few times a second for all connections) ends the ones that overstay:

    headers   from connecting, or from the first byte after an answer, to the end of a request's headers
    request   from there until the answer has left this machine (`Gate` ends the handler; this, the socket)
    linger    refused while the peer may still be sending: closing at once would reset the connection, and
              the peer would never read why
    idle      between an answer and the next request: uvicorn's own keep-alive timer

It also caps connections, answers in JSON what h11 cannot parse, and keeps garbage out of the log. A body that
comes in crumbs, of which each costs h11 as much as many bytes do, is broken off.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from typing import Any, Literal

import anyio
import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import RequestError
from .gate import CONNECTION, STREAMED, TIME, Time
from .limits import Limits, address_key
from .refusals import HttpRefusal, RefusalLog, error_body, error_headers

# What uvicorn logs for each connection is the peer's doing: refusals are logged by RefusalLog, and failures
# of handlers by Gate.
_silent = logging.getLogger("tensorage.transport.connection")
_silent.setLevel(logging.CRITICAL)

Phase = Literal["headers", "request", "linger", "idle"]

# Pieces in which any body may come, beside one for each so many bytes of it.
_PIECES = 1024
_PIECE_BYTES = 256

# How much longer than the handler's time a socket may live, so that the refusal can still be sent.
_GRACE_SECONDS = 1.0


class Connections:
    """What the connections of one axon share: limits, counts and the refusal log."""

    def __init__(self, limits: Limits, log: RefusalLog) -> None:
        self.limits = limits
        self.log = log
        self.open: set[AxonProtocol] = set()
        self._by_address: Counter[str] = Counter()

    def enter(self, connection: AxonProtocol) -> RequestError | None:
        """Count a connection; the refusal when it is one too many."""
        self.open.add(connection)
        self._by_address[connection.address] += 1
        if len(self.open) > self.limits.max_connections:
            return RequestError("unready", "too many connections; try again soon")
        if self._by_address[connection.address] > self.limits.connections_per_address:
            return RequestError("rate_limited", "too many connections from your address")
        return None

    def leave(self, connection: AxonProtocol) -> None:
        if connection in self.open:
            self.open.discard(connection)
            self._by_address[connection.address] -= 1
            if not self._by_address[connection.address]:
                del self._by_address[connection.address]

    def reap(self, now: float) -> None:
        """End the connections that overstay; `now` in seconds of the event loop's clock."""
        for connection in list(self.open):
            connection.reap(now)

    def abort(self) -> None:
        """Drop every connection at once, sent or not."""
        for connection in list(self.open):
            connection.transport.abort()


def _crumbs() -> RequestError:
    return RequestError("malformed", "the body comes in too many pieces for its size")


def _cut_short() -> RequestError:
    return RequestError("malformed", "the connection closed before the body was whole")


class _CrumbsError(h11.RemoteProtocolError):
    """A body in too many pieces."""


class _Connection(h11.Connection):
    """h11's state machine, which counts the pieces of each body."""

    def __init__(self, role: type[h11.SERVER], max_headers: int) -> None:
        super().__init__(role, max_headers)
        self._pieces = 0
        self._bytes = 0

    def passed(self, size: int) -> None:
        """Have `size` bytes of a body counted that did not come through here.

        Only where the body has a declared length, of which so much is left.
        """
        self._bytes += size
        reader: Any = self._reader
        reader._remaining -= size

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next event; _CrumbsError at a piece of a body that is one too many."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > _PIECES + self._bytes // _PIECE_BYTES:
                raise _CrumbsError("a body in crumbs")
        return event


class _Filling(asyncio.BufferedProtocol):
    """Takes the next bytes of a body straight into a buffer, in place of the connection's own protocol.

    Attributes:
        at: bytes that are in the buffer.
        done: set when it is full, or when nothing more is taken: the connection is `lost`, or sends `crumbs`.
    """

    def __init__(self, connection: AxonProtocol, view: memoryview) -> None:
        self.at = 0
        self.crumbs = False
        self.lost = False
        self.done = asyncio.Event()
        self._connection = connection
        self._view = view
        self._pieces = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self.at :]

    def buffer_updated(self, nbytes: int) -> None:
        self.at += nbytes
        self._pieces += 1
        self.crumbs = self._pieces > _PIECES + self.at // _PIECE_BYTES
        if self.at == len(self._view) or self.crumbs:
            self._connection.flow.pause_reading()
            self.done.set()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.done.set()
        self._connection.connection_lost(exc)


class AxonProtocol(H11Protocol):
    """uvicorn's h11 protocol with phases; see the module."""

    def __init__(self, *, shared: Connections, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self.logger = _silent
        self.access_log = False
        self.address = ""
        self._shared = shared
        self._phase: Phase = "headers"
        self._since = self.loop.time()
        self._deaf = False
        self._parser = self.conn = _Connection(h11.SERVER, shared.limits.max_headers)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = address_key(self.client[0]) if self.client else ""
        refusal = self._shared.enter(self)
        if refusal is not None:
            self._refuse(refusal)
            self.transport.close()  # no lingering: it would hold what there is too little of

    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        before = self.cycle
        if self._phase != "headers" and self._at_rest():
            self._enter("headers")
        super().data_received(data)
        if self.cycle is not before and not self._deaf:
            self._enter("request")

    def is_drained(self) -> bool:
        """Whether all that has come was taken, and the peer waits for nothing."""
        cycle = self.cycle
        return not (cycle.body or cycle.waiting_for_100_continue or self.conn.trailing_data[0])

    async def fill(self, view: memoryview) -> None:
        """Fill `view` with the next bytes of a body, which does not end before, past the parser.

        To be called only when all that has come before was taken.

        Raises:
            RequestError: "timeout" when nothing comes, "malformed" when the connection ends or the body comes
                in crumbs.
        """
        if self.cycle.disconnected or self.transport.is_closing():
            raise _cut_short()
        filling = _Filling(self, view)
        idle = self._shared.limits.idle_seconds
        self.transport.set_protocol(filling)
        try:
            self.flow.resume_reading()
            while not filling.done.is_set():
                before = filling.at
                with anyio.move_on_after(idle):
                    await filling.done.wait()
                if not filling.done.is_set() and filling.at == before:
                    raise HttpRefusal(408, f"nothing came for {idle:g} s")
        finally:
            if not filling.lost:
                self.flow.pause_reading()
                self.transport.set_protocol(self)
                self._parser.passed(filling.at)
        if filling.crumbs:
            raise _crumbs()
        if filling.at < len(view):
            raise _cut_short()

    def filled(self) -> None:
        """Have the parser see that a body has ended of which `fill` has taken the last bytes."""
        self.handle_events()

    def on_response_complete(self) -> None:
        if self.conn.their_state is h11.SEND_BODY:
            if self.scope.get(STREAMED):
                self._end()
                return
            self._enter("linger")
        elif not self.transport.get_write_buffer_size():
            self._enter("idle")
        before = self.cycle
        super().on_response_complete()
        if self.cycle is not before:
            self._enter("request")  # the next one was already there

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP; called while h11's error is being handled."""
        error = sys.exc_info()[1]
        if getattr(error, "error_status_hint", 400) == 431:
            limit = self._shared.limits.max_headers
            self._refuse(HttpRefusal(431, f"request line and headers are over {limit} bytes"))
        elif isinstance(error, _CrumbsError):
            self._refuse(_crumbs())
        else:
            self._refuse(RequestError("malformed", "this is not HTTP/1.1"))

    def reap(self, now: float) -> None:
        """End this connection if its phase has lasted too long."""
        limits = self._shared.limits
        lasted = now - self._since
        if self._phase == "headers" and lasted > limits.header_seconds:
            self._refuse(HttpRefusal(408, f"no whole request within {limits.header_seconds:g} s"))
        elif self._phase == "request" and self._at_rest() and not self.transport.get_write_buffer_size():
            self._enter("idle")
        elif self._phase == "request" and lasted > self._total_seconds() + _GRACE_SECONDS:
            self.transport.abort()
        elif self._phase == "linger":
            if not self._deaf and self.conn.their_state is h11.IDLE:
                self._enter("idle")  # the rest of the body has come
            elif lasted > limits.close_seconds:
                self.transport.abort()

    def _at_rest(self) -> bool:
        """Whether the last request has its whole answer, sent or about to be."""
        return self.cycle is not None and self.cycle.response_complete and self.conn.their_state is h11.IDLE

    def _total_seconds(self) -> float:
        """How long the request may take, as its route says."""
        time = self.scope.get(TIME) if self.scope else None
        return time.seconds if isinstance(time, Time) else self._shared.limits.total_seconds

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._since = self.loop.time()
        if phase == "request":
            scope: Any = self.scope
            scope[CONNECTION] = self

    def _refuse(self, refusal: RequestError) -> None:
        """Write the refusal, unless an answer has begun, and end our side of the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = error_body(refusal)
            headers = {**error_headers(refusal), "content-length": str(len(body)), "connection": "close"}
            lines = [f"HTTP/1.1 {refusal.http_status} Refused", *(f"{k}: {v}" for k, v in headers.items())]
            self.transport.write("\r\n".join([*lines, "", ""]).encode("ascii") + body)
        self._shared.log.refused(
            refusal, self.loop.time(), address=self.address, caller=None, request="(no request)"
        )
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # its handler must neither wait for this peer nor answer it
            self.cycle.message_event.set()
        self._end()

    def _end(self) -> None:
        """End our side, and drop for a moment what the peer still sends, so that it reads our answer."""
        self._deaf = True
        self._enter("linger")
        if not self.transport.can_write_eof():  # TLS: there is no half of a connection to end
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
