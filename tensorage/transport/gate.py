"""The outermost layer of an axon's application: what holds for every request, before any route.

In this order: the rate of the sender's address, the size of its headers, then the whole time of the request.
Whatever goes wrong inside leaves as JSON: a refusal with its status, anything unexpected as a bare 500 whose
traceback is for the operator only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio
from starlette.responses import Response

from ..errors import ChainError, ProofError, RequestError, TensorageError
from .limits import Limits, TokenBuckets, address_key
from .metrics import Metrics
from .refusals import HttpRefusal, RateLimited, RefusalLog, error_body, error_headers

logger = logging.getLogger("tensorage.transport")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Key of the verified caller's hotkey or key, of the route's template, of the `Time` that is left, of whether
#: the body is the handler's to take, and of the connection that it comes on, in the ASGI scope.
CALLER = "tensorage.caller"
ROUTE = "tensorage.route"
TIME = "tensorage.time"
STREAMED = "tensorage.streamed"
CONNECTION = "tensorage.connection"


def as_refusal(error: TensorageError) -> RequestError:
    """What the peer is told of an error: its own fault in full, ours only as far as it matters to it."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, ProofError):
        return RequestError("malformed", error.message)
    if isinstance(error, ChainError):
        return RequestError("unready", "the chain is out of reach, so nobody can be admitted")
    return HttpRefusal(500, "internal error")


class Refusals:
    """Turns errors into answers, and logs them."""

    def __init__(self, log: RefusalLog, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock

    def answer(self, scope: Scope, error: TensorageError) -> Response:
        """The response to a request that ended in `error`; logged here, once."""
        refusal = as_refusal(error)
        if error is not refusal and refusal.http_status == 500:
            logger.error("request failed: %s", error, exc_info=logger.isEnabledFor(logging.DEBUG))
        self._log.refused(
            refusal,
            self._clock(),
            address=address_of(scope),
            caller=scope.get(CALLER),
            request=f"{scope['method']} {scope['raw_path'].decode('ascii', 'replace')}",
        )
        return Response(error_body(refusal), refusal.http_status, error_headers(refusal))


class Time:
    """How long a request may take in all: the limits' time, until its route allows another."""

    def __init__(self, seconds: float, scope: anyio.CancelScope) -> None:
        self.seconds = seconds
        self._started = anyio.current_time()
        self._scope = scope

    def allow(self, seconds: float) -> None:
        """Give the request so many seconds, from its start on."""
        self.seconds = seconds
        self._scope.deadline = self._started + seconds


class Gate:
    """ASGI application around another one; see the module."""

    def __init__(
        self,
        app: App,
        limits: Limits,
        refusals: Refusals,
        *,
        metrics: Metrics | None,
        clock: Callable[[], float],
    ) -> None:
        self._app = app
        self._limits = limits
        self._refusals = refusals
        self._metrics = metrics
        self._clock = clock
        self._addresses = TokenBuckets(limits.per_address)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(send)
        started = time.perf_counter()
        error: TensorageError | None = None
        try:
            self._admit(scope)
            with anyio.fail_after(self._limits.total_seconds) as cancelling:
                scope[TIME] = Time(self._limits.total_seconds, cancelling)
                await self._app(scope, receive, exchange.send)
        except TimeoutError:
            error = RequestError("unready", "no answer in time")
        except TensorageError as refusal:
            error = refusal
        except Exception:  # the boundary: a fault of ours must not end the service
            logger.exception("unexpected error while answering %s %s", scope["method"], scope.get(ROUTE, "-"))
            error = HttpRefusal(500, "internal error")
        # Once an answer has begun nothing can be added to it; uvicorn then closes the connection, so that
        # the answer stays visibly incomplete.
        if error is not None and not exchange.status:
            await self._refusals.answer(scope, error)(scope, receive, exchange.send)
        if self._metrics is not None:
            seconds = time.perf_counter() - started
            self._metrics.answered(scope.get(ROUTE, "-"), scope["method"], exchange.status, seconds)

    def _admit(self, scope: Scope) -> None:
        wait = self._addresses.spend(address_of(scope), self._clock())
        if wait:
            raise RateLimited("too many requests from your address", wait)
        size = len(scope["raw_path"]) + len(scope["query_string"])
        size += sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if size > self._limits.max_headers:
            raise HttpRefusal(431, f"request line and headers are over {self._limits.max_headers} bytes")


def address_of(scope: Scope) -> str:
    """The key of the sender's address."""
    client = scope.get("client")
    return address_key(client[0]) if client else ""


class _Exchange:
    """One request and its answer, with the status that was sent (0: none yet)."""

    def __init__(self, send: Send) -> None:
        self.status = 0
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)
