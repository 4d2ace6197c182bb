"""The application: the table of routes behind their gates, and every refusal as JSON."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from ...errors import RequestError, TensorageError
from ...transport.gate import Refusals, Scope
from ...transport.limits import Limits
from ...transport.refusals import RefusalLog
from .context import Context
from .desk import Desk
from .device import Codes
from .gate import Gatekeeper, add_routes, head_header
from .handlers import Handlers
from .refusal import Refusal

logger = logging.getLogger(__name__)


def create_app(
    context: Context,
    desk: Desk,
    *,
    reading: Executor,
    limits: Limits | None = None,
    refusals: Refusals | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """The application of one published dataset; to be run within `transport.gate.Gate`.

    Args:
        reading: threads that read what is sent.
        clock: seconds, steady.
    """
    limits = limits or Limits()
    refusals = refusals or Refusals(RefusalLog(), clock)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)

    def refused(scope: Scope, error: TensorageError) -> Response:
        if not isinstance(error, RequestError):
            logger.error("request failed path=%r reason=%r", scope["path"], str(error))
            error = Refusal("server_error", "the server cannot do this now; try again later")
        response = refusals.answer(scope, error)
        response.headers.update(error.headers if isinstance(error, Refusal) else {})
        response.headers.update(head_header(scope))
        return response

    @app.exception_handler(TensorageError)
    async def wrong(request: Request, error: TensorageError) -> Response:
        return refused(request.scope, error)

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            message = f"not with {request.method}"
            return refused(request.scope, Refusal("method_not_allowed", message, headers=error.headers))
        return refused(request.scope, Refusal("not_found", "no such path"))

    @app.exception_handler(Exception)  # answered here, then raised on to the transport's gate, which logs it
    async def failed(request: Request, error: Exception) -> Response:
        return refused(request.scope, Refusal("server_error", "internal error"))

    keeper = Gatekeeper(context, desk, limits, clock)
    codes = Codes(context.clock, context.rng, is_open=context.membership == "open")
    add_routes(app, keeper, Handlers(context, desk, codes, reading, clock).routes())
    return app
