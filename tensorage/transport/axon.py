"""The axon: the HTTP server of a miner or validator, FastAPI on uvicorn inside the service's event loop.

What a request goes through, and what it costs the sender to fail there:

    connection   caps in all and for an address, time to send the headers   (protocol.py)   503 429 408 431
    gate         rate of the address, size of the headers, time in all      (gate.py)       429 431 503
    route        unknown path, wrong method                                 (FastAPI)       404 405
    body         cap on what is declared and on what arrives, idle time                     413 408
    admission    signature over the raw bytes, key's rate, registration     (admission.py)  401 429 503 403
    handler      only here is anything parsed                                               400 ...

A handler gets a `Call` and returns a pydantic model (sent as JSON), bytes, or an async iterator of bytes;
it refuses by raising RequestError. Responses are not signed by the axon: what must be proven carries its own
signature.

An upload (`stream`) is the other way round: the handler judges the headers alone, and only then takes the
body, piece by piece. Who is refused before has its connection ended, and its body is not read (`uploads.py`).

    axon = Axon(hotkey.ss58, role="miner", port=8091, metagraph=chain.metagraph_now, nonces=store)
    axon.route("POST", "/v1/challenge", answer, access=Access.VALIDATOR)
    await axon.start()
    ...
    await axon.drain(5)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from functools import partial
from typing import Any, Literal

import anyio
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from .. import SPEC_VERSION, __version__
from ..chain.auth import NonceStore
from ..chain.types import Metagraph, Neuron
from ..errors import RequestError, TensorageError
from .admission import Access, Admission, Client
from .call import Call
from .gate import CALLER, ROUTE, TIME, Gate, Receive, Refusals, Scope, Send
from .limits import Limits
from .listening import listen
from .messages import Ping
from .metrics import Metrics
from .protocol import AxonProtocol, Connections
from .refusals import HttpRefusal, RefusalLog
from .uploads import StreamCall, Uploads

__all__ = ["Access", "Axon", "Call", "Client", "Handler", "Reply", "StreamCall", "StreamHandler"]

logger = logging.getLogger("tensorage.transport")

#: What this axon speaks, as `/v1/ping` lists it.
PROTOCOLS = ("btauth/1", "keyauth/1", "pos/1", "shard/1")

_REAP_SECONDS = 0.25
#: Bytes of an answer that are handed to the socket at once.
_PIECE = 256 * 1024

Reply = BaseModel | bytes | AsyncIterator[bytes]
Handler = Callable[[Call], Awaitable[Reply]]
StreamHandler = Callable[[StreamCall], Awaitable[Reply]]
#: Whether a route for clients knows who signed, given the parameters of its path.
KnowsClient = Callable[[Client, Mapping[str, str]], bool]


class Axon:
    """A neuron's server.

    Args:
        hotkey: our SS58 hotkey; requests must be bound to it.
        role: "miner" or "validator", as ping says it.
        host: address to listen on; an IPv6 one ("::" for both families) works too.
        port: 0 for any free one; `port` tells which after `start`.
        metagraph: the subnet as known now, without I/O; raises StaleChainError when that is too old.
        nonces: where accepted nonces are kept; the axon does not close it.
        ready: why the service is not ready yet, in a few words, or None when it is; for `/healthz`.
        limits: caps and rates.
        metrics: counted there, if given.
        clock: seconds, steady.
    """

    def __init__(
        self,
        hotkey: str,
        *,
        role: Literal["miner", "validator"],
        metagraph: Callable[[], Metagraph],
        nonces: NonceStore,
        ready: Callable[[], str | None] = lambda: None,
        host: str = "0.0.0.0",  # noqa: S104 - peers must reach it
        port: int = 8091,
        limits: Limits | None = None,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = host
        self.port = port
        self._limits = limits or Limits()
        self._ready = ready
        self._draining = False
        log = RefusalLog()
        self._refusals = Refusals(log, clock)
        self._connections = Connections(self._limits, log)
        self._admission = Admission(
            hotkey, metagraph=metagraph, nonces=nonces, rate=self._limits.per_hotkey, clock=clock
        )
        self._uploads = Uploads(self._limits)
        self._app = self._build_app()
        self._gate = Gate(self._app, self._limits, self._refusals, metrics=metrics, clock=clock)
        self._ping = Ping(
            role=role,
            version=__version__,
            spec_version=SPEC_VERSION,
            hotkey=hotkey,
            protocols=list(PROTOCOLS),
        )
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._reaping: asyncio.Task[None] | None = None
        self._app.add_api_route("/healthz", self._healthz, methods=["GET"], response_model=None)
        self.route("GET", "/v1/ping", self._pong, access=Access.REGISTERED)

    def route(
        self,
        method: str,
        path: str,
        handler: Handler,
        *,
        access: Access,
        max_body: int | None = None,
        knows: KnowsClient | None = None,
        total_seconds: float | None = None,
    ) -> None:
        """Serve `method path` (FastAPI's template syntax: `/v1/sectors/{index}/chunk-roots`) by `handler`.

        Args:
            access: what the caller must be.
            max_body: bytes, where it differs from the limits'. A GET takes no body unless this says so.
            knows: with Access.CLIENT, and only there: whether a client whose signature has passed may ask for
                this path. Called in a worker thread; may wait for a disk, and may raise RequestError.
            total_seconds: where it differs from the limits'.
        """
        if (access is Access.CLIENT) != (knows is not None):
            raise ValueError(f"{method} {path}: a route for clients, and no other, says whom it knows")
        if max_body is None:
            max_body = 0 if method == "GET" else self._limits.max_body

        async def endpoint(request: Request) -> Response:
            _begin(request, path, total_seconds)
            body = await self._read_body(request, max_body)
            client, caller = await self._admitted(request, body, access, knows)
            call = Call(caller, request.path_params, request.query_params, body, client)
            return _response(await handler(call))

        self._app.add_api_route(path, endpoint, methods=[method], response_model=None)

    def stream(self, method: str, path: str, handler: StreamHandler, *, total_seconds: float) -> None:
        """Serve uploads: the handler is called once the headers are there, and takes the body itself.

        Anyone may call; the handler must find in the headers what lets it take a body, before it does.

        Args:
            total_seconds: from the headers to the end of the answer.
        """

        async def endpoint(request: Request) -> Response:
            _begin(request, path, total_seconds)
            async with self._uploads.call(request) as call:
                return _response(await handler(call))

        self._app.add_api_route(path, endpoint, methods=[method], response_model=None)

    async def _admitted(
        self, request: Request, body: bytes, access: Access, knows: KnowsClient | None
    ) -> tuple[Client | None, Neuron | None]:
        if access is Access.ANYONE:
            return None, None
        client: Client
        neuron: Neuron | None
        method, target, path = request.method, _target(request), request.path_params
        if knows is not None:
            client, neuron = await self._admission.admit_client(
                request.headers, body, method=method, target=target, knows=lambda who: knows(who, path)
            )
        else:
            client, neuron = await self._admission.admit(
                request.headers, body, method=method, target=target, access=access
            )
        request.scope[CALLER] = client.name
        return client, neuron

    async def start(self) -> None:
        """Listen, and return once requests are answered.

        Raises:
            UsageError: the address or the port cannot be had.
        """
        listener = listen(self.host, self.port)
        self.port = listener.getsockname()[1]
        protocol: Any = partial(AxonProtocol, shared=self._connections)
        config = uvicorn.Config(
            self._gate,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=self._limits.keep_alive_seconds,
            h11_max_incomplete_event_size=self._limits.max_headers,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="axon")
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
                raise TensorageError("the axon ended while it was starting")
            await asyncio.sleep(0.005)
        self._reaping = asyncio.create_task(self._reap(), name="axon-reaper")
        logger.info("axon listening host=%s port=%d", self.host, self.port)

    async def drain(self, seconds: float) -> None:
        """Stop listening, let running requests finish for at most `seconds`, then drop what is left.

        An axon serves once: after this, make another.
        """
        self._draining = True
        if self._server is not None and self._serving is not None and self._reaping is not None:
            self._server.should_exit = True
            await asyncio.wait({self._serving}, timeout=seconds)
            for request in list(self._server.server_state.tasks):
                request.cancel()
            self._connections.abort()
            await asyncio.wait({self._serving}, timeout=0.5)
            tasks = (self._serving, self._reaping)
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    logger.error("the axon ended with an error: %s", result)
            self._server = self._serving = self._reaping = None
        self._admission.close()

    async def stop(self) -> None:
        """Stop at once."""
        await self.drain(0.2)

    async def _reap(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_REAP_SECONDS)
            self._connections.reap(loop.time())

    async def _read_body(self, request: Request, limit: int) -> bytes:
        declared = request.headers.get("content-length", "0")
        if int(declared) > limit:
            raise RequestError("too_large", f"the body has {declared} bytes, at most {limit} are taken")
        body = bytearray()
        more = True
        while more:
            message = None
            with anyio.move_on_after(self._limits.idle_seconds):
                message = await request.receive()
            if message is None:
                raise HttpRefusal(408, f"nothing came for {self._limits.idle_seconds:g} s")
            if message["type"] != "http.request":
                raise RequestError("malformed", "the connection closed before the body was whole")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                raise RequestError("too_large", f"the body is over {limit} bytes")
        return bytes(body)

    async def _healthz(self, request: Request) -> Response:
        request.scope[ROUTE] = "/healthz"
        why = "shutting down" if self._draining else self._ready()
        if why is None:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"error": "unready", "message": why}, status_code=503)

    async def _pong(self, call: Call) -> Reply:
        return self._ping

    def _build_app(self) -> FastAPI:
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)

        @app.exception_handler(TensorageError)
        async def refused(request: Request, error: TensorageError) -> Response:
            return self._refusals.answer(request.scope, error)

        @app.exception_handler(HTTPException)
        async def unrouted(request: Request, error: HTTPException) -> Response:
            message = {404: "no such path", 405: "not with this method"}.get(
                error.status_code, str(error.detail)
            )
            return self._refusals.answer(request.scope, HttpRefusal(error.status_code, message))

        @app.exception_handler(Exception)  # answered here, then raised on to the gate, which logs it
        async def failed(request: Request, error: Exception) -> Response:
            return self._refusals.answer(request.scope, HttpRefusal(500, "internal error"))

        return app


class _Bytes(Response):
    """A body that is handed to the socket as fast as the peer takes it, and not copied whole before."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        view = memoryview(self.body)
        for start in range(0, len(view), _PIECE):
            await send(
                {"type": "http.response.body", "body": view[start : start + _PIECE], "more_body": True}
            )
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves the process's signals to the service."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _begin(request: Request, path: str, total_seconds: float | None) -> None:
    """Say in the scope which route it is, and how long it may take."""
    request.scope[ROUTE] = path
    if total_seconds is not None:
        request.scope[TIME].allow(total_seconds)


def _target(request: Request) -> str:
    """The request target as it was sent: never the decoded path."""
    raw_path: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    return (raw_path + b"?" + query if query else raw_path).decode("ascii")


def _response(reply: Reply) -> Response:
    if isinstance(reply, BaseModel):
        return Response(reply.model_dump_json(), media_type="application/json")
    if isinstance(reply, bytes):
        return _Bytes(reply, media_type="application/octet-stream")
    return StreamingResponse(reply, media_type="application/octet-stream")
