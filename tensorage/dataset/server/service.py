"""Runs the application: one listening socket, plain or with TLS, and the limits of every connection.

The protocol, its phases and its caps are those of an axon (`transport.protocol`): uvicorn's h11, which is as
fast as any for answers in large pieces. A TLS handshake has a time too, and connections are counted before it
(`door`).

Behind a tunnel every connection comes from this machine. What cloudflared says of the sender's address counts
then, so that limits for an address are limits for a person and not for everybody at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import uvicorn

from ...errors import TensorageError, UsageError
from ...transport.gate import App, Gate, Receive, Refusals, Scope, Send
from ...transport.limits import Limits, Rate
from ...transport.listening import listen
from ...transport.protocol import AxonProtocol, Connections
from ...transport.refusals import RefusalLog
from .app import create_app
from .context import Context
from .desk import Desk
from .door import Door, Quiet

logger = logging.getLogger(__name__)

LIMITS = Limits(
    header_seconds=10.0, idle_seconds=10.0, max_uploads=128, per_address=Rate(per_second=200, burst=1000)
)
#: Where all connections come from this machine, an address has as many as there are.
TUNNELLED = replace(LIMITS, connections_per_address=LIMITS.max_connections)
_HANDSHAKE_SECONDS = 10.0
_REAP_SECONDS = 0.25
_READERS = 16
_FORWARDED = b"cf-connecting-ip"


class Service:
    """A published dataset on a port.

    Args:
        port: 0 for any free one; `port` tells which after `start`.
        tls: None for plain HTTP.
        tunnelled: connections come through a tunnel that ends on this machine.
    """

    def __init__(
        self,
        context: Context,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        tunnelled: bool = False,
        limits: Limits = LIMITS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = host
        self.port = port
        self._tls = tls
        self._limits = limits
        self._quiet = Quiet(clock)
        log = RefusalLog()
        refusals = Refusals(log, clock)
        self._connections = Connections(limits, log)
        self._reading = ThreadPoolExecutor(_READERS, thread_name_prefix="reader")
        self.desk = Desk(context)
        self.app = create_app(
            context, self.desk, reading=self._reading, limits=limits, refusals=refusals, clock=clock
        )
        gate = Gate(self.app, limits, refusals, metrics=None, clock=clock)
        self._outermost: App = _Forwarded(gate) if tunnelled else gate
        self._server: _Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            UsageError: the address or port cannot be had.
        """
        listener = Door(listen(self.host, self.port, flag="--port"), self._limits)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._outermost,
            http=partial(AxonProtocol, shared=self._connections),  # type: ignore[arg-type] # a factory will do
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=self._limits.keep_alive_seconds,
            h11_max_incomplete_event_size=self._limits.max_headers,
        )
        self._server = _Server(config, self._tls)
        asyncio.get_running_loop().set_exception_handler(self._quiet)
        serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="dataset-server")
        self._tasks = [serving, asyncio.create_task(self._reap(), name="dataset-reaper")]
        while not self._server.started:
            if serving.done():
                serving.result()
                raise TensorageError("the server ended while it was starting")
            await asyncio.sleep(0.005)

    async def drain(self, seconds: float) -> None:
        """Stop listening, let running requests finish for at most `seconds`, then drop what is left."""
        if self._server is not None:
            self._server.should_exit = True
            await asyncio.wait(self._tasks[:1], timeout=seconds)
            for request in list(self._server.server_state.tasks):
                request.cancel()
            self._connections.abort()
            await asyncio.wait(self._tasks[:1], timeout=0.5)
            for task in self._tasks:
                task.cancel()
            for result in await asyncio.gather(*self._tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    logger.error("the server ended with an error: %s", result)
            loop = asyncio.get_running_loop()
            if loop.get_exception_handler() is self._quiet:
                loop.set_exception_handler(None)
        self._server, self._tasks = None, []
        self._reading.shutdown(wait=False)
        self.desk.close()

    async def _reap(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_REAP_SECONDS)
            self._connections.reap(loop.time())


class _Forwarded:
    """Counts a request to the address that the tunnel had it from."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = [value for name, value in scope.get("headers", ()) if name == _FORWARDED]
        if len(found) == 1:
            with contextlib.suppress(ValueError):  # no address: it stays the tunnel's own
                scope["client"] = (str(ip_address(found[0].decode("latin-1"))), 0)
        await self._app(scope, receive, send)


class _Server(uvicorn.Server):
    """uvicorn's server, with a time for TLS handshakes; it leaves the process's signals to the command."""

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._tls = tls

    async def startup(self, sockets: Any = None) -> None:
        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state={}
            )
            return made

        await self.lifespan.startup()
        loop = asyncio.get_running_loop()
        seconds = None if self._tls is None else _HANDSHAKE_SECONDS
        self.servers = [
            await loop.create_server(protocol, sock=listener, ssl=self._tls, ssl_handshake_timeout=seconds)
            for listener in sockets
        ]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer with a PEM certificate (its chain behind it) and its key.

    Raises:
        UsageError: they cannot be read, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise UsageError(
            f"{certificate} and {key} cannot be used for TLS: {reason}",
            remedy="Name a PEM certificate with --tls-cert and its key, without a password, with --tls-key",
        ) from error
    return context
