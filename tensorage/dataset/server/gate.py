"""Who may ask for what: every route has a gate, and nothing is served but through it.

    ANYONE    no token; never the bytes of an artifact
    OWNER     the owner token of this publishing
    MEMBER    a member's token, whatever version it opens, or the owner's; judged before the id
    VERSION   the id, then a token at all, then the version, then whether the token opens it; or the owner's
    BUYER     whether anything is sold, the id, the version; what is paid is judged by the till

The order of the checks is part of the protocol: it decides which of several faults a client hears of. A route
that names no gate cannot be made, and the application takes no endpoint that was not made from a `Route`.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal
from weakref import WeakSet

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from ...errors import RequestError
from ...transport.gate import TIME, Message, Scope, address_of
from ...transport.limits import Limits, Rate, TokenBuckets
from ...transport.refusals import HttpRefusal, RateLimited
from ..members import Denied, Member
from .context import Context
from .desk import Desk, Edition
from .refusal import Refusal

#: Key of the head statement in the ASGI scope: goes with every answer about the dataset from
#: there on where the id was found right, refusals included.
HEAD = "tensorage.dataset.head"
#: The largest body of a request, in bytes.
MAX_BODY = 64 * 1024
#: Seconds in which a peer must take the next piece of an answer.
PIECE_SECONDS = 60.0

_VERSION = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)
_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([\x21-\x7e]{1,256})")


class Access(Enum):
    """What a caller must be; see the module."""

    ANYONE = "anyone"
    OWNER = "owner"
    MEMBER = "member"
    VERSION = "version"
    BUYER = "buyer"


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that the gate let through.

    Attributes:
        headers: by lower-case name, in their order.
        address: the key under which the sender's address is counted.
        body: what came with a POST.
        edition: the dataset as it is now; with a route that names an id.
        version: the one that is asked for; with VERSION and BUYER.
        member: whose token it is; None for the owner, and where none is asked for.
        more_time: gives the answer `PIECE_SECONDS` from now on, or so many.
        still: raises Refusal when the token does not open this any more; asked while a long answer is sent.
    """

    headers: Mapping[str, Sequence[str]]
    address: str
    body: bytes
    edition: Edition | None
    version: int | None
    member: Member | None
    more_time: Callable[[float], None]
    still: Callable[[], Awaitable[None]]

    def alive(self) -> None:
        """A piece of the answer has left."""
        self.more_time(PIECE_SECONDS)


Handler = Callable[[Visit], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """One route: there is none without a gate.

    Attributes:
        rate: what one address may ask of it, where that is less than what it may ask in all.
    """

    method: Literal["GET", "POST"]
    path: str
    access: Access
    handler: Handler
    rate: Rate | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.access, Access):
            raise TypeError(f"{self.method} {self.path} names no gate")

    @property
    def names_dataset(self) -> bool:
        """Whether its path has the id of a dataset."""
        return "{id}" in self.path


class Gatekeeper:
    """Lets requests through to the handlers of a table of routes.

    Args:
        clock: seconds, steady; for rates.
    """

    def __init__(self, context: Context, desk: Desk, limits: Limits, clock: Callable[[], float]) -> None:
        self._context = context
        self._desk = desk
        self._limits = limits
        self._clock = clock

    def guarded(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of a route."""
        buckets = None if route.rate is None else TokenBuckets(route.rate)

        async def endpoint(request: Request) -> Response:
            address = address_of(request.scope)
            if buckets is not None and (wait := buckets.spend(address, self._clock())):
                raise RateLimited("too many requests of this kind from your address", wait)
            visit = await self._admit(route, request, address)
            response = await route.handler(visit)
            response.headers.update(head_header(request.scope))
            return response

        _guarded.add(endpoint)
        return endpoint

    async def _admit(self, route: Route, request: Request, address: str) -> Visit:
        token = bearer(request.headers.getlist("authorization"))
        member: Member | None = None
        if route.access is Access.OWNER:
            self._check_owner(token)
        if route.access is Access.MEMBER:
            member = await self._member(self._present(token), None)
        edition, version = None, None
        if route.names_dataset:
            if route.access is Access.BUYER and self._context.sale is None:
                raise Refusal("paid_join_disabled", "nothing is sold here; ask the owner for an invitation")
            self._check_id(request.path_params["id"])
            if route.access is Access.VERSION:
                token = self._present(token)
            edition, version = await self._edition(route, request)
        if route.access is Access.VERSION and token is not None:
            member = await self._member(token, version)

        async def still() -> None:
            if member is not None and token is not None:
                await self._member(token, version)

        body = await self._body(request) if route.method == "POST" else b""
        more_time = _more_time(request)
        return Visit(_headers(request), address, body, edition, version, member, more_time, still)

    async def _edition(self, route: Route, request: Request) -> tuple[Edition, int | None]:
        """The dataset as it is now, and the version of it that is asked for, where the route has one."""
        edition = await self._desk.edition()
        request.scope[HEAD] = edition.head_header
        if route.access not in (Access.VERSION, Access.BUYER):
            return edition, None
        asked = request.query_params.getlist("version")
        version = edition.newest
        if asked:
            good = len(asked) == 1 and _VERSION.fullmatch(asked[0])
            version = int(asked[0]) if good else 0
        if not 1 <= version <= edition.newest:
            raise Refusal(
                "unknown_version",
                f"no such version; there are 1 to {edition.newest}",
                status=400 if route.access is Access.BUYER else None,
            )
        return edition, version

    def _check_id(self, id: str) -> None:
        if id != self._context.id:
            raise Refusal("unknown_dataset", "no such dataset here")

    def _is_owner(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._context.owner_token.encode())

    def _check_owner(self, token: str | None) -> None:
        if token is None or not self._is_owner(token):
            raise Refusal("owner_required", "this is for the owner", headers=_CHALLENGE)

    def _present(self, token: str | None) -> str:
        if token is None:
            raise Refusal(
                "auth_required", "send the token of a member: Authorization: Bearer ...", headers=_CHALLENGE
            )
        return token

    async def _member(self, token: str, version: int | None) -> Member | None:
        """The member whose token it is; None for the owner."""
        if self._is_owner(token):
            return None
        store, id, now = self._context.store, self._context.id, self._context.clock()
        try:
            return await anyio.to_thread.run_sync(store.check_token, token, id, version, now)
        except Denied as error:
            raise Refusal(error.kind, error.message) from error

    async def _body(self, request: Request) -> bytes:
        body, more, seconds = b"", True, self._limits.idle_seconds
        declared = request.headers.get("content-length", "0")  # digits: h11 has looked
        if int(declared) > MAX_BODY:
            raise RequestError("too_large", f"a body may have {MAX_BODY} bytes")
        while more:
            message: Message | None = None
            with anyio.move_on_after(seconds):
                message = await request.receive()
            if message is None:
                raise HttpRefusal(408, f"nothing came for {seconds:g} s")
            if message["type"] != "http.request":
                raise RequestError("malformed", "the connection closed before the body was whole")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_BODY:
                raise RequestError("too_large", f"a body may have {MAX_BODY} bytes")
        return body


class _GatedRoute(APIRoute):
    """A route of the application; refuses endpoints that no `Gatekeeper` made."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if endpoint not in _guarded:
            raise TypeError(f"the endpoint of {path} has no gate")
        super().__init__(path, endpoint, **options)


_guarded: WeakSet[Callable[[Request], Awaitable[Response]]] = WeakSet()
_CHALLENGE = {"www-authenticate": "Bearer"}


def add_routes(app: FastAPI, keeper: Gatekeeper, routes: Sequence[Route]) -> None:
    """Serve these routes, each through its gate, and no others: GET answers HEAD too."""
    app.router.route_class = _GatedRoute
    for route in routes:
        methods: list[str] = ["GET", "HEAD"] if route.method == "GET" else [route.method]
        app.add_api_route(route.path, keeper.guarded(route), methods=methods, response_model=None)


def head_header(scope: Scope) -> dict[str, str]:
    """The header with the head statement, once a request was found to be about the dataset."""
    head: str | None = scope.get(HEAD)
    return {} if head is None else {"x-dataset-head": head}


def bearer(values: Sequence[str]) -> str | None:
    """The token of the Authorization header; None when there is none, or more than one."""
    found = _BEARER.fullmatch(values[0].strip()) if len(values) == 1 else None
    return None if found is None else found[1]


def _headers(request: Request) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in request.headers.items():
        headers.setdefault(name.lower(), []).append(value)
    return headers


def _more_time(request: Request) -> Callable[[float], None]:
    started = anyio.current_time()
    time = request.scope[TIME]

    def more(seconds: float) -> None:
        time.allow(anyio.current_time() - started + seconds)

    return more
