"""What each route answers. Nobody gets here but through the gate: `gate` says what has been checked."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import anyio.to_thread
from fastapi.responses import JSONResponse, Response

from ...transport.limits import Rate, TokenBuckets
from ...transport.refusals import RateLimited
from .. import wire
from ..entry import SignedHead
from .context import Context
from .desk import SOON, Desk, Edition
from .device import CODE_SECONDS, POLL_SECONDS, Codes
from .gate import Access, Route, Visit
from .ranges import Span, Validators, answer, etag_of
from .refusal import Refusal
from .selling import JOIN_SECONDS
from .sending import BytesResponse, FileResponse, Part, multipart

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/x-ndjson"
#: Downloads, chunk lists and manifests at once: in all, and with one token or from one address. Each takes
#: some 3 MiB of memory.
MAX_DOWNLOADS = 128
MAX_DOWNLOADS_EACH = 16
#: Seconds that hashing an artifact may take before it is served for the first time.
HASHING_SECONDS = 3600.0

_JSON = {"content-type": "application/json", "cache-control": "no-store"}
_CODE_RATE = Rate(per_second=1 / 6, burst=10)
_POLL_RATE = Rate(per_second=2, burst=60)
_JOIN_RATE = Rate(per_second=1, burst=30)
_LOG_RATE = Rate(per_second=5, burst=50)


class Handlers:
    """The routes of one published dataset.

    Args:
        reading: threads that read what is sent.
        clock: seconds, steady; for rates.
    """

    def __init__(
        self, context: Context, desk: Desk, codes: Codes, reading: Executor, clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._polls = TokenBuckets(_POLL_RATE)
        self._context = context
        self._desk = desk
        self._codes = codes
        self._reading = reading
        self._downloads: Counter[bytes | str] = Counter()

    def routes(self) -> tuple[Route, ...]:
        """The whole table."""
        dataset = "/dataset/{id}"
        return (
            Route("GET", "/healthz", Access.ANYONE, self.healthz),
            Route("POST", "/auth/device/code", Access.ANYONE, self.device_code, _CODE_RATE),
            Route("POST", "/auth/device/token", Access.ANYONE, self.device_token),
            Route("POST", "/auth/device/approve", Access.OWNER, self.approve),
            Route("GET", f"{dataset}/versions", Access.ANYONE, self.versions, _LOG_RATE),
            Route("GET", f"{dataset}/head", Access.ANYONE, self.head),
            Route("GET", f"{dataset}/anchor", Access.ANYONE, self.anchor),
            Route("POST", f"{dataset}/join/paid", Access.BUYER, self.join_paid, _JOIN_RATE),
            Route("GET", f"{dataset}/verify", Access.MEMBER, self.verify),
            Route("GET", f"{dataset}/download", Access.VERSION, self.download),
            Route("GET", f"{dataset}/chunks", Access.VERSION, self.chunks),
            Route("GET", f"{dataset}/manifest", Access.VERSION, self.manifest),
            Route("GET", f"{dataset}/sources", Access.VERSION, self.sources),
            Route("GET", f"{dataset}/status", Access.OWNER, self.status),
        )

    async def healthz(self, visit: Visit) -> Response:
        return Response()

    async def device_code(self, visit: Visit) -> Response:
        worker = _field(visit.body, "worker") or ""
        code = self._codes.issue(worker, visit.address)
        logger.info(
            "code issued user_code=%s worker=%r address=%s", code.user_code, code.worker, code.address
        )
        return _json(
            {
                "device_code": code.device_code,
                "user_code": code.user_code,
                "expires_in": CODE_SECONDS,
                "interval": POLL_SECONDS,
            }
        )

    async def device_token(self, visit: Visit) -> Response:
        device_code = _field(visit.body, "device_code")
        # Only strangers' polls are counted: behind a proxy they have the address of everybody.
        if not self._codes.knows(device_code or "") and (
            wait := self._polls.spend(visit.address, self._clock())
        ):
            raise RateLimited("too many polls with no good device code from your address", wait)
        if not device_code:
            raise Refusal("invalid_request", 'send {"device_code": "..."}')
        code = self._codes.poll(device_code)
        if code is None:
            return _json({"status": "authorization_pending"})
        try:
            edition = await self._desk.edition()
            token = await anyio.to_thread.run_sync(self._mint, code.worker, edition.newest)
        except BaseException:
            self._codes.restore(code)
            raise
        return _json({"status": "authorized", "token": token, "group_id": self._context.id})

    def _mint(self, worker: str, version: int) -> str:
        return self._context.store.mint(self._context.id, label=worker or "worker", max_version=version)

    async def approve(self, visit: Visit) -> Response:
        user_code = _field(visit.body, "user_code")
        if not user_code:
            raise Refusal("invalid_request", 'send {"user_code": "..."}')
        code = self._codes.approve(user_code)
        logger.info("code approved user_code=%s worker=%r", code.user_code, code.worker)
        return _json({"status": "approved", "worker": code.worker})

    async def versions(self, visit: Visit) -> Response:
        return BytesResponse(_sound(visit).document, _JSON, visit.alive)

    async def head(self, visit: Visit) -> Response:
        return _json(wire.head_json(_head(_sound(visit))))

    async def anchor(self, visit: Visit) -> Response:
        _sound(visit)
        proof = await anyio.to_thread.run_sync(self._context.store.anchored, self._context.id)
        if proof is None:
            raise Refusal("not_anchored", "the owner has not anchored this dataset on chain")
        return _json(wire.anchor_json(proof))

    async def verify(self, visit: Visit) -> Response:
        edition = _edition(visit)
        found: dict[str, Any] = {
            "valid": edition.fault is None,
            "head": edition.newest,
            "owner": edition.log.owner,
        }
        return _json(found if edition.fault is None else found | {"error": edition.fault})

    async def status(self, visit: Visit) -> Response:
        context = self._context
        count = await anyio.to_thread.run_sync(context.store.count_members, context.id, context.clock())
        return _json(
            {
                "id": context.id,
                "groupID": context.id,
                "membership": context.membership,
                "versions": _edition(visit).newest,
                "entitlements": count,
                "codes": len(self._codes),
            }
        )

    async def chunks(self, visit: Visit) -> Response:
        edition, version = _sound(visit), _version(visit)
        leave = self._enter(visit)
        try:
            artifact = await self._desk.artifact(version)
            leaves = await self._desk.leaves(artifact)
        except BaseException:
            leave()
            raise
        headers = _version_headers(edition, version) | {"content-type": "application/octet-stream"}
        return BytesResponse(leaves, headers, visit.alive, leave)

    async def manifest(self, visit: Visit) -> Response:
        edition, version = _sound(visit), _version(visit)
        leave = self._enter(visit)
        try:
            document = await self._desk.manifest(version)
        except BaseException:
            leave()
            raise
        return BytesResponse(document, _version_headers(edition, version) | _JSON, visit.alive, leave)

    async def sources(self, visit: Visit) -> Response:
        edition, version = _sound(visit), _version(visit)
        link = await self._desk.link(edition.entry(version))
        places = {"mirrors": list(self._context.mirrors), "subnet": link}
        return _json(places, _version_headers(edition, version))

    async def join_paid(self, visit: Visit) -> Response:
        edition, version, sale = _sound(visit), _version(visit), self._context.sale
        if sale is None:
            raise RuntimeError("the gate lets nobody buy where nothing is sold")
        visit.more_time(JOIN_SECONDS)
        found = await sale.join(visit.headers, edition.log, edition.entry(version), _head(edition))
        return _json(found.body, found.headers, found.status)

    async def download(self, visit: Visit) -> Response:
        edition, version = _sound(visit), _version(visit)
        entry = edition.entry(version)
        validators = Validators(etag_of(entry.file_hash), entry.time)
        found = answer(visit.headers, entry.size, validators)
        headers = _version_headers(edition, version) | {
            "accept-ranges": "bytes",
            "etag": validators.etag,
            "last-modified": validators.last_modified,
        }
        if found.status == 304:
            return Response(None, 304, headers)
        if visit.member is not None and self._desk.is_behind:
            raise Refusal("server_busy", "too many downloads wait to be noted; try again soon", headers=SOON)
        leave = self._enter(visit)
        try:
            visit.more_time(HASHING_SECONDS)
            _, file = await self._desk.open(edition, version)
        except BaseException:
            leave()
            raise
        visit.alive()

        def ended(sent: list[Span]) -> None:
            leave()
            if visit.member is not None and sent:
                self._desk.log_download(visit.member, version, sent)

        content_type, parts = CONTENT_TYPE, list[Part](found.spans)
        if len(found.spans) > 1:
            boundary = self._context.rng(24).hex()
            content_type = f"multipart/byteranges; boundary={boundary}"
            parts = multipart(found.spans, entry.size, CONTENT_TYPE, boundary)
        elif found.status == 206:
            headers["content-range"] = found.spans[0].content_range(entry.size)
        return FileResponse(
            file,
            parts,
            status_code=found.status,
            headers=headers | {"content-type": content_type},
            reading=self._reading,
            alive=visit.alive,
            ended=ended,
            still=visit.still,
        )

    def _enter(self, visit: Visit) -> Callable[[], None]:
        """Count a download; returns what takes it off the count.

        Raises:
            Refusal: `too_many_downloads`.
        """
        token = b"owner" if visit.member is None else visit.member.hash
        who: tuple[bytes | str, ...] = (token, visit.address)
        if max(self._downloads[each] for each in who) >= MAX_DOWNLOADS_EACH:
            raise Refusal(
                "too_many_downloads",
                "too many downloads at once with this token, or from your address",
                headers=SOON,
            )
        if self._downloads.total() >= len(who) * MAX_DOWNLOADS:
            raise Refusal(
                "too_many_downloads", "too many downloads at once; try again soon", status=503, headers=SOON
            )
        self._downloads.update(who)

        def leave() -> None:
            self._downloads.subtract(who)
            for each in who:
                if not self._downloads[each]:
                    del self._downloads[each]

        return leave


def _json(body: Any, headers: dict[str, str] | None = None, status: int = 200) -> Response:
    return JSONResponse(body, status, {"cache-control": "no-store", **(headers or {})})


def _field(body: bytes, name: str) -> str | None:
    """A text in the JSON object of a body; None when the body is none, or has no such text."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def _edition(visit: Visit) -> Edition:
    if visit.edition is None:
        raise RuntimeError("a route about the dataset has no id in its path")
    return visit.edition


def _sound(visit: Visit) -> Edition:
    """The edition, if its log holds."""
    edition = _edition(visit)
    if edition.fault is not None:
        raise Refusal("log_invalid", "the owner's version log does not verify; nothing of it is served")
    return edition


def _head(edition: Edition) -> SignedHead:
    if edition.head is None:
        raise RuntimeError("an edition without a head statement is at fault")
    return edition.head


def _version(visit: Visit) -> int:
    if visit.version is None:
        raise RuntimeError("the gate of this route finds no version")
    return visit.version


def _version_headers(edition: Edition, version: int) -> dict[str, str]:
    entry = edition.entry(version)
    return {
        "x-dataset-version": str(version),
        "x-dataset-manifest-hash": entry.manifest_hash.hex(),
        "x-dataset-file-hash": entry.file_hash.hex(),
    }
