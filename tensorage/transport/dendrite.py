"""The dendrite: the HTTP client with which a neuron asks others, one pooled httpx client.

Rules. Every request is signed for its receiver with a fresh nonce, by a hotkey (btauth) or by the key of a
client that has none (keyauth), unless it proves itself otherwise; and sent once: a retry is the caller's
decision and a new signature. Whatever the peer does, a call ends by its deadline, reads no more than its cap,
follows no redirect, decompresses nothing, and fails with a PeerError:

    Unreachable   no connection, or it broke; also an address that must not be dialled
    Late          connected, but the answer was not whole by the deadline
    Refused       an HTTP error, with the peer's kind and one clean line of its message
    Malformed     an answer that is no HTTP, too large, compressed, redirected, or not what was asked for

A peer has few connections of its own, and the pool has room for all peers at once, so a slow one delays only
itself. Waiting for one's turn at a peer is not counted against it: the deadline starts with the attempt.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
import httpx
from pydantic import BaseModel

from ..chain.auth import public_key, sign_request
from ..chain.types import Endpoint
from ..encoding import HASH_SIZE
from ..errors import RequestError, TensorageError
from ..keyauth import SigningKey
from .addresses import is_public
from .backend import HEAD, Head, Transport
from .messages import (
    RECEIPTS_PAGE,
    SECTORS_PAGE,
    ChallengeMessage,
    CommitmentMessage,
    ErrorMessage,
    Ping,
    ReceiptsPage,
    SectorsPage,
    parse,
)
from .refusals import one_line

if TYPE_CHECKING:
    from types import TracebackType

    from ..chain.wallet import Hotkey

# httpx tells every request at level INFO; an operator is told of outcomes, by the service.
logging.getLogger("httpx").setLevel(logging.WARNING)

#: Pieces in which any answer may come, beside one for each 1,024 bytes of the largest.
_PIECES = 1024
_ERROR_BYTES = 4096
#: Bytes of a large body that are sent at once.
_PIECE = 256 * 1024
_JSON_BYTES = 16 * 1024
#: A hash in hex, a decimal u64, quotes and commas: what an entry of a listing takes at most.
_ENTRY_BYTES = 2 * HASH_SIZE + 32
#: A receipt in JSON, at most.
_RECEIPT_BYTES = 4096


class PeerError(TensorageError):
    """A request that did not bring what was asked for, by the doing of the peer or the network."""


class Unreachable(PeerError):
    """No connection, or it broke before the answer was whole."""


class Late(PeerError):
    """The answer was not whole by the deadline."""


class Malformed(PeerError):
    """The answer is not what the protocol says."""


class Refused(PeerError):
    """The peer refused.

    Attributes:
        status: HTTP status, 400 to 599.
        kind: the peer's word for it, as on the wire; empty when it gave none.
    """

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(f"{status} {kind}: {message}" if kind else f"{status}: {message}")
        self.status = status
        self.kind = kind


class Addressed(Protocol):
    """Whom to ask: a `Neuron` of the metagraph, or a `Peer`."""

    @property
    def hotkey(self) -> str: ...
    @property
    def endpoint(self) -> Endpoint | None: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """A hotkey and where it serves."""

    hotkey: str
    endpoint: Endpoint | None


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer with status 200.

    Attributes:
        body: as sent.
        elapsed: seconds from sending the request's first byte to having the answer's last.
    """

    status: int
    body: bytes
    elapsed: float


M = TypeVar("M", bound=BaseModel)


class Dendrite:
    """Asks axons, as `hotkey`. An async context manager, or close it with `aclose`.

    Args:
        hotkey: signs the requests: a hotkey, a client's key, or None for requests that nobody signs.
        allow_private: also dial addresses that are not globally routable (a devnet, a private network).
        deadline: seconds for a call that names none.
        max_connections: calls under way in all; `per_peer` to one endpoint.
    """

    def __init__(
        self,
        hotkey: Hotkey | SigningKey | None,
        *,
        allow_private: bool = False,
        deadline: float = 10.0,
        max_connections: int = 512,
        per_peer: int = 2,
    ) -> None:
        self._key = hotkey
        self._last_nonce = 0
        self._allow_private = allow_private
        self._deadline = deadline
        self._turns = _Turns(per_peer)
        self._all = anyio.Semaphore(max_connections)
        self._client = httpx.AsyncClient(
            timeout=None,  # noqa: S113 - every call has one deadline over all its phases
            transport=Transport(
                httpx.Limits(
                    max_connections=max_connections,
                    max_keepalive_connections=max_connections // 4,
                    keepalive_expiry=5.0,  # shorter than an axon's, so that a reused connection is a live one
                )
            ),
            headers={"accept-encoding": "identity", "user-agent": "tensorage"},
            trust_env=False,
            follow_redirects=False,
        )

    async def __aenter__(self) -> Dendrite:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def request(
        self,
        peer: Addressed,
        method: str,
        path: str,
        *,
        query: Mapping[str, int | str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | memoryview | BaseModel = b"",
        max_bytes: int = _JSON_BYTES,
        deadline: float | None = None,
        key: Hotkey | SigningKey | None = None,
        signed: bool = True,
    ) -> Response:
        """Ask once.

        Args:
            path: not encoded, without query; or with one that is, where `query` is None.
            query: parameters, encoded here.
            headers: to send beside those that sign.
            body: raw bytes, or a model that is sent as JSON.
            max_bytes: largest answer that is taken.
            deadline: seconds from dialling to the last byte.
            key: signs, instead of the dendrite's own.
            signed: False where the request carries its own proof, or needs none.

        Raises:
            PeerError: one of the four above.
        """
        endpoint = self._dialled(peer)
        content = memoryview(body.model_dump_json().encode() if isinstance(body, BaseModel) else body)
        seconds = self._deadline if deadline is None else deadline
        sent = _Sent()
        async with self._turns.at(str(endpoint)), self._all:
            try:
                with anyio.fail_after(seconds):
                    request = self._client.build_request(
                        method,
                        endpoint.url + path,
                        params=dict(query) if query else None,
                        content=_sent_as(content),
                        headers={**(headers or {}), **_length(method, content)},
                        extensions={"trace": sent.trace},
                    )
                    if signed:
                        target = request.url.raw_path.decode("ascii")
                        request.headers.update(
                            self._signature(key or self._key, method, target, content, peer.hotkey)
                        )
                    return await self._exchange(request, sent, max_bytes)
            except TimeoutError as error:
                if sent.at is None:
                    raise Unreachable(f"{endpoint} took no connection within {seconds:g} s") from error
                raise Late(f"{endpoint} had not answered whole after {seconds:g} s") from error
            except httpx.RemoteProtocolError as error:
                if _broke(error):
                    raise Unreachable(f"{endpoint} closed the connection") from error
                raise Malformed(f"{endpoint} answers no HTTP: {one_line(str(error))}") from error
            except httpx.HTTPError as error:
                reason = one_line(str(error)) or type(error).__name__
                raise Unreachable(f"{endpoint} cannot be reached: {reason}") from error

    async def ping(self, peer: Addressed, *, deadline: float | None = None) -> Ping:
        """Who serves there."""
        return answered(Ping, await self.request(peer, "GET", "/v1/ping", deadline=deadline))

    async def commitment(
        self, peer: Addressed, seq: int | None = None, *, deadline: float | None = None
    ) -> CommitmentMessage:
        """The newest commitment, or the one of `seq`; its signature is not checked here."""
        query = None if seq is None else {"seq": seq}
        response = await self.request(peer, "GET", "/v1/commitment", query=query, deadline=deadline)
        message = answered(CommitmentMessage, response)
        if seq is not None and message.seq != seq:
            raise Malformed(f"asked for commitment {seq}, got {message.seq}")
        return message

    async def sectors(
        self, peer: Addressed, sector_count: int, *, deadline: float | None = None
    ) -> list[tuple[int, bytes]]:
        """All `sector_count` entries (index, root) of the newest commitment, in ascending index.

        Whether they are the committed ones is for the caller to check against the capacity root.

        Args:
            deadline: seconds for each page of up to `SECTORS_PAGE` entries.
        """
        entries: list[tuple[int, bytes]] = []
        while len(entries) < sector_count:
            limit = min(SECTORS_PAGE, sector_count - len(entries))
            response = await self.request(
                peer,
                "GET",
                "/v1/sectors",
                query={"from": len(entries), "limit": limit},
                max_bytes=1024 + limit * _ENTRY_BYTES,
                deadline=deadline,
            )
            page = answered(SectorsPage, response)
            if not 0 < len(page.indices) <= limit:
                raise Malformed(f"asked for {limit} sectors from {len(entries)} on, got {len(page.indices)}")
            if entries and page.indices[0] <= entries[-1][0]:
                raise Malformed(f"sector {page.indices[0]} stands after {entries[-1][0]}")
            entries += zip(page.indices, page.roots, strict=True)
        return entries

    async def chunk_roots(
        self, peer: Addressed, index: int, count: int, *, deadline: float | None = None
    ) -> list[bytes]:
        """The `count` chunk roots of sector `index`."""
        size = count * HASH_SIZE
        path = f"/v1/sectors/{index}/chunk-roots"
        body = (await self.request(peer, "GET", path, max_bytes=size, deadline=deadline)).body
        if len(body) != size:
            raise Malformed(f"chunk roots of sector {index} have {len(body)} bytes, not {size}")
        return [body[start : start + HASH_SIZE] for start in range(0, size, HASH_SIZE)]

    async def challenge(
        self, peer: Addressed, challenge: ChallengeMessage, *, max_bytes: int, deadline: float
    ) -> tuple[bytes, float]:
        """The raw answer to a challenge, and the seconds that it took; see `Response.elapsed`.

        Args:
            max_bytes: size of the right answer, or more.
        """
        response = await self.request(
            peer, "POST", "/v1/challenge", body=challenge, max_bytes=max_bytes, deadline=deadline
        )
        return response.body, response.elapsed

    async def receipts(
        self, peer: Addressed, start: int = 0, limit: int = RECEIPTS_PAGE, *, deadline: float | None = None
    ) -> ReceiptsPage:
        """Our own receipts that a validator keeps, from number `start` on."""
        response = await self.request(
            peer,
            "GET",
            "/v1/receipts",
            query={"from": start, "limit": limit},
            max_bytes=1024 + limit * _RECEIPT_BYTES,
            deadline=deadline,
        )
        return answered(ReceiptsPage, response)

    def _signature(
        self, key: Hotkey | SigningKey | None, method: str, target: str, body: memoryview, receiver: str
    ) -> dict[str, str]:
        if key is None:
            return {}
        if not isinstance(key, SigningKey):
            return sign_request(key, method=method, path=target, body=bytes(body), receiver=receiver)
        self._last_nonce = max(time.time_ns(), self._last_nonce + 1)
        return key.sign_request(
            method=method,
            path=target,
            body=bytes(body),
            receiver=public_key(receiver),
            nonce_ns=self._last_nonce,
        )

    def _dialled(self, peer: Addressed) -> Endpoint:
        endpoint = peer.endpoint
        if endpoint is None:
            raise Unreachable(f"hotkey {peer.hotkey} has published no axon")
        if not self._allow_private and not is_public(endpoint.ip):
            raise Unreachable(f"{endpoint} is not dialled: the address is not globally routable")
        return endpoint

    async def _exchange(self, request: httpx.Request, sent: _Sent, max_bytes: int) -> Response:
        response = await self._client.send(request, stream=True)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(response.aclose)
            if response.status_code >= 400:
                raise _refused(response.status_code, await _read(response, _ERROR_BYTES, cut=True))
            if response.status_code != 200:
                raise Malformed(f"status {response.status_code} instead of 200 or an error")
            encoding = response.headers.get("content-encoding", "identity")
            if encoding != "identity":
                raise Malformed(f"content encoding {one_line(encoding, 40)}, which was not accepted")
            body = await _read(response, max_bytes)
            elapsed = time.perf_counter() - (sent.at or 0.0)
        return Response(response.status_code, body, elapsed)


class _Sent:
    """When the request began to be sent, as httpcore's trace tells; None before (dialling).

    It also tells the network below, in the task that makes it, how far the answer is.
    """

    at: float | None = None

    def __init__(self) -> None:
        self._head = Head()
        HEAD.set(self._head)

    async def trace(self, event: str, info: dict[str, Any]) -> None:
        if event == "http11.send_request_headers.started":
            self.at = time.perf_counter()
        elif event == "http11.receive_response_headers.complete":
            self._head.whole = True


class _Turns:
    """A bounded number of concurrent calls for each endpoint; forgets endpoints that are at rest."""

    def __init__(self, per_peer: int) -> None:
        self._per_peer = per_peer
        self._semaphores: OrderedDict[str, anyio.Semaphore] = OrderedDict()
        self._keep = 1024

    def at(self, endpoint: str) -> anyio.Semaphore:
        semaphore = self._semaphores.get(endpoint)
        if semaphore is None:
            semaphore = self._semaphores[endpoint] = anyio.Semaphore(self._per_peer)
            self._forget()
        return semaphore

    def _forget(self) -> None:
        if len(self._semaphores) > self._keep:
            for endpoint, semaphore in list(self._semaphores.items())[:-1]:
                if semaphore.value == self._per_peer:
                    del self._semaphores[endpoint]


def _length(method: str, content: memoryview) -> dict[str, str]:
    return {} if method == "GET" and not content else {"content-length": str(len(content))}


def _sent_as(content: memoryview) -> bytes | AsyncIterator[bytes]:
    """A small body whole, a large one in pieces, so that an answer that comes early is seen early."""
    if len(content) <= _PIECE:
        return bytes(content)

    async def pieces() -> AsyncIterator[Any]:
        for start in range(0, len(content), _PIECE):
            yield content[start : start + _PIECE]  # the one copy is made where it is framed

    return pieces()


async def _read(response: httpx.Response, limit: int, *, cut: bool = False) -> bytes:
    """The raw body, up to `limit` bytes; more is cut off, or Malformed."""
    declared = response.headers.get("content-length", "")
    if not cut and declared.isdecimal() and int(declared) > limit:
        raise Malformed(f"the answer has {declared} bytes, at most {limit} were expected")
    pieces: list[bytes] = []
    size, most = 0, _PIECES + limit // 1024
    async for chunk in response.aiter_raw():
        pieces.append(chunk)
        size += len(chunk)
        if len(pieces) > most:  # each costs our event loop, and all other calls, as much as a large one
            raise Malformed(f"the answer comes in over {most} pieces")
        if size > limit:
            if cut:
                return b"".join(pieces)[:limit]
            raise Malformed(f"the answer is over {limit} bytes")
    return b"".join(pieces)


def _refused(status: int, body: bytes) -> Refused:
    try:
        error = parse(ErrorMessage, body)
    except RequestError:
        return Refused(status, "", one_line(body.decode("utf-8", "replace")) or "without a reason")
    return Refused(status, one_line(error.error, 40), one_line(error.message) or "without a reason")


def answered(model: type[M], response: Response) -> M:
    """The message that an answer holds; Malformed when it holds none."""
    try:
        return parse(model, response.body)
    except RequestError as error:
        raise Malformed(f"the answer is no {model.__name__}: {error}") from error


def _broke(error: httpx.RemoteProtocolError) -> bool:
    """Whether the connection ended, as against bytes that are no HTTP: httpcore has one type for both."""
    text = str(error)
    return "without sending" in text or "closed connection" in text


__all__: Sequence[str] = [
    "Addressed",
    "Dendrite",
    "Late",
    "Malformed",
    "Peer",
    "PeerError",
    "Refused",
    "Response",
    "Unreachable",
    "answered",
]
