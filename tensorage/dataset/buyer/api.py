"""The buyer's questions to a seller's server, except for the file itself.

Rules. An answer is capped, whole by a deadline, not decompressed, and follows no redirect. A token goes only
where `Place.check_private` allows it. What a seller says in words is shown as one clean line.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import anyio
import httpx

from ...coding.manifest import MOST_MANIFEST
from ...encoding import HASH_SIZE
from ...errors import TensorageError
from ...transport.refusals import one_line
from ..chunks import chunk_count
from ..errors import LogError
from ..wire import MAX_LOG_BYTES, strict_json
from .ranged import tls_context
from .urls import Place

logging.getLogger("httpx").setLevel(logging.WARNING)

_SMALL = 64 * 1024
#: A link has 640 bytes for each shard, of which there are 30 for 40 MiB by default: one for each 2,000 bytes.
_LEAST_LINK = 1 << 20
_BYTES_A_LINK_BYTE = 512
_KIND = re.compile(r"[a-z0-9_]{1,64}", re.ASCII)
DEADLINE = 30.0
#: Seconds for what may be large, and for a seller that looks for a payment on chain.
LONG_DEADLINE = 300.0


class SellerError(TensorageError):
    """A seller that cannot be reached, refuses, or answers what it should not.

    Attributes:
        status: of HTTP; 0 where there was no answer.
        kind: the seller's word for it; empty where it gave none.
    """

    def __init__(self, message: str, *, status: int = 0, kind: str = "", remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.status = status
        self.kind = kind


@dataclass(frozen=True)
class Answer:
    """One whole answer; names of headers are in lower case."""

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)

    @property
    def kind(self) -> str:
        """The word for an error, "" where there is none."""
        found = self._document().get("error")
        return found if isinstance(found, str) and _KIND.fullmatch(found) else ""

    @property
    def message(self) -> str:
        """What the seller says of an error, in one clean line."""
        return one_line(str(self._document().get("message", "")))

    def _document(self) -> dict[str, Any]:
        try:
            found = json.loads(self.body[:_SMALL])
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Places:
    """Where else a seller says that a version is: URLs, and the text of a link file; nothing is checked."""

    mirrors: tuple[str, ...]
    subnet: str | None = field(repr=False)


class Seller:
    """A seller's server. An async context manager.

    Args:
        token: what lets this buyer in; may be set later.
    """

    def __init__(self, place: Place, token: str | None = None) -> None:
        self.place = place
        self.token = token
        self._base = place.base
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Seller:
        self._client = httpx.AsyncClient(
            timeout=None,  # noqa: S113 - every call has one deadline over all its phases
            verify=tls_context() if self.place.server.scheme == "https" else False,
            headers={"accept-encoding": "identity", "user-agent": "tensorage"},
            trust_env=False,
            follow_redirects=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def log(self) -> bytes:
        """The log document, as it came. Sellers of format 1 show it to members only.

        Raises:
            SellerError: there is none.
        """
        path = f"/dataset/{self.place.id}/versions"
        answer = await self.ask("GET", path, most=MAX_LOG_BYTES, deadline=LONG_DEADLINE, token=None)
        if answer.status == 401 and self.token is not None:
            answer = await self.ask("GET", path, most=MAX_LOG_BYTES, deadline=LONG_DEADLINE, token=self.token)
        return self._good(answer, "its log").body

    async def anchor(self) -> bytes | None:
        """The path from the dataset's head to the root on chain; None where the seller has none."""
        answer = await self.ask("GET", f"/dataset/{self.place.id}/anchor", token=None)
        return None if answer.status == 404 else self._good(answer, "its anchor").body

    async def chunks(self, version: int, size: int) -> bytes:
        """The chunk list of a version of `size` bytes."""
        most = HASH_SIZE * chunk_count(size)
        path = f"/dataset/{self.place.id}/chunks?version={version}"
        answer = await self.ask("GET", path, most=most, deadline=LONG_DEADLINE, token=self.token)
        return self._good(answer, "its chunk list").body

    async def manifest(self, version: int) -> bytes | None:
        """The manifest of a version; None where the seller has no such route."""
        path = f"/dataset/{self.place.id}/manifest?version={version}"
        answer = await self.ask("GET", path, most=MAX_LOG_BYTES, deadline=LONG_DEADLINE, token=self.token)
        return None if answer.status == 404 else self._good(answer, "its manifest").body

    async def places(self, version: int, size: int) -> Places:
        """Where else a version of `size` bytes is; nowhere, if the seller has no such route, or no sense."""
        most = _SMALL + min(MOST_MANIFEST, _LEAST_LINK + size // _BYTES_A_LINK_BYTE)
        path = f"/dataset/{self.place.id}/sources?version={version}"
        answer = await self.ask("GET", path, most=most, deadline=LONG_DEADLINE, token=self.token)
        if answer.status == 404:
            return Places((), None)
        found = document(self._good(answer, "its sources").body, "the sources", most)
        mirrors, subnet = found.get("mirrors", []), found.get("subnet")
        urls = mirrors[:16] if isinstance(mirrors, list) else []
        return Places(
            tuple(url for url in urls if isinstance(url, str)), subnet if isinstance(subnet, str) else None
        )

    async def join(self, version: int, header: str | None) -> Answer:
        """What the seller says to somebody who wants to buy, with or without a payment."""
        headers = {} if header is None else {"payment-signature": header, "x-payment": header}
        path = f"/dataset/{self.place.id}/join/paid?version={version}"
        return await self.ask("POST", path, headers=headers, deadline=LONG_DEADLINE, token=None)

    async def device_code(self, worker: str) -> dict[str, Any]:
        """A code to be approved by the owner."""
        answer = await self.ask("POST", "/auth/device/code", body={"worker": worker}, token=None)
        return document(self._good(answer, "a code").body, "the code")

    async def device_token(self, code: str) -> Answer:
        """What has become of a code."""
        return await self.ask("POST", "/auth/device/token", body={"device_code": code}, token=None)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str | None,
        body: dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        most: int = _SMALL,
        deadline: float = DEADLINE,
    ) -> Answer:
        """Ask once, whatever the status of the answer.

        Raises:
            SellerError: no answer, no whole one, or too large a one.
        """
        assert self._client is not None, "the seller is a context manager"
        sent = dict(headers or {})
        if token is not None:
            self.place.check_private()
            sent["authorization"] = f"Bearer {token}"
        try:
            with anyio.fail_after(deadline):
                async with self._client.stream(
                    method, self._base + path, headers=sent, json=body
                ) as response:
                    pieces = await self._read(response, max(most, _SMALL))
        except TimeoutError as error:
            raise SellerError(
                f"{self._base} did not answer within {deadline:g} s", remedy="Try again later"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise SellerError(
                f"{self._base} cannot be reached: {one_line(str(error)) or type(error).__name__}",
                remedy="Check the address, or try again later",
            ) from error
        return Answer(response.status_code, pieces, response.headers)

    async def _read(self, response: httpx.Response, most: int) -> bytes:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise SellerError(f"{self._base} answers compressed, which was not asked for")
        if 300 <= response.status_code < 400:
            where = one_line(response.headers.get("location", ""), 100)
            raise SellerError(
                f"{self._base} sends elsewhere ({where}), which is not followed",
                status=response.status_code,
                remedy="Use the new address, if you trust it",
            )
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > most:
                raise SellerError(f"{self._base} answers with more than {most} bytes")
        return bytes(body)

    def _good(self, answer: Answer, what: str) -> Answer:
        if answer.status == 200:
            return answer
        said = answer.message or answer.kind or "no reason given"
        raise SellerError(
            f"{self._base} does not give {what} (HTTP {answer.status}: {said})",
            status=answer.status,
            kind=answer.kind,
            remedy=_REMEDIES.get(answer.kind, ""),
        )


_REMEDIES = {
    "auth_required": "Join first (tensorage dataset join), or pay with --join",
    "not_a_member": "Join first (tensorage dataset join), or pay with --join",
    "version_not_entitled": "Pay for that version with --join, or ask the owner",
    "token_expired": "Join again",
    "token_revoked": "Ask the owner",
    "unknown_dataset": "Check the id in the URL",
}


def document(raw: bytes, what: str, most: int = _SMALL) -> dict[str, Any]:
    """A JSON object of at most `most` bytes.

    Raises:
        SellerError: it is none.
    """
    try:
        found = strict_json(raw, what, most)
    except LogError as error:
        raise SellerError(error.message) from error
    if not isinstance(found, dict):
        raise SellerError(f"{what}: not a JSON object")
    return found


def retry_after(answer: Answer) -> float:
    """Seconds after which the seller wants to be asked again; 0 where it does not say."""
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0.0
