"""Refusals: the JSON a peer gets, and the one line the operator gets.

A refusal costs the sender. The answer is {"error": kind, "message": one line} and names nothing of ours; the
log has at most one line for each, and so few a second that no flood of bad requests can fill a disk: the
lines left out are counted in the next one.
"""

from __future__ import annotations

import json
import logging
import math

from ..errors import RequestError
from .limits import Rate, TokenBuckets

logger = logging.getLogger("tensorage.transport")

#: Kinds that only the transport has, beside those of `RequestError`.
HTTP_KINDS = {
    404: "unknown",
    405: "unknown",
    408: "timeout",
    413: "too_large",
    431: "too_large",
    500: "internal",
}

_PER_ADDRESS = Rate(per_second=0.2, burst=5)
_IN_ALL = Rate(per_second=1, burst=60)


class HttpRefusal(RequestError):
    """A refusal whose status is HTTP's own matter: 405, 408, 431 and the like.

    Args:
        status: the HTTP status; its kind is the one of `HTTP_KINDS`, else "malformed".
        message: one line for people.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__("malformed", message)
        self.kind = HTTP_KINDS.get(status, "malformed")
        self.http_status = status


class RateLimited(RequestError):
    """Too many requests; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__("rate_limited", message)
        self.retry_after = retry_after


def one_line(text: str, limit: int = 200) -> str:
    """`text` as one printable line of at most `limit` characters, safe for a log and a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def error_body(error: RequestError) -> bytes:
    """The JSON of a refusal."""
    return json.dumps({"error": error.kind, "message": one_line(str(error))}).encode("ascii")


def error_headers(error: RequestError) -> dict[str, str]:
    """Headers that go with a refusal, beside the length."""
    headers = {"content-type": "application/json"}
    if isinstance(error, RateLimited):
        headers["retry-after"] = str(math.ceil(error.retry_after))
    return headers


class RefusalLog:
    """Logs refusals as key=value lines, a few from each address and a few in all."""

    def __init__(self) -> None:
        self._by_address = TokenBuckets(_PER_ADDRESS, max_keys=1_000)
        self._in_all = TokenBuckets(_IN_ALL, max_keys=1)
        self._left_out = 0

    def refused(
        self, error: RequestError, now: float, *, address: str, caller: str | None, request: str
    ) -> None:
        """One refusal.

        Args:
            now: seconds of a steady clock.
            address: where it came from, as `limits.address_key` writes it.
            caller: the hotkey, when the signature proved it.
            request: method and path.
        """
        if self._by_address.spend(address, now) or self._in_all.spend("", now):
            self._left_out += 1
            return
        left_out, self._left_out = self._left_out, 0
        logger.warning(
            "refused status=%d error=%s address=%s hotkey=%s request=%r reason=%r left_out=%d",
            error.http_status,
            error.kind,
            address,
            caller or "-",
            one_line(request, 120),
            one_line(str(error)),
            left_out,
        )
