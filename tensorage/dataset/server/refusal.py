"""What the dataset server refuses a request with: the kinds, and the HTTP status of each.

The body is {"error": kind, "message": one line for people}; programs go by the kind.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import RequestError

#: Kind -> HTTP status, of all refusals that have to do with datasets. Those of the connection itself
#: (too_large, timeout, rate_limited, unready, malformed) are the transport's.
KINDS = {
    "invalid_request": 400,
    "auth_required": 401,
    "owner_required": 401,
    "not_a_member": 403,
    "version_not_entitled": 403,
    "token_expired": 403,
    "token_revoked": 403,
    "not_found": 404,
    "unknown_dataset": 404,
    "unknown_version": 404,
    "artifact_missing": 404,
    "not_anchored": 404,
    "invalid_grant": 404,
    "invalid_code": 404,
    "method_not_allowed": 405,
    "already_used": 409,
    "expired_token": 410,
    "expired_code": 410,
    "precondition_failed": 412,
    "range_not_satisfiable": 416,
    "slow_down": 429,
    "too_many_codes": 429,
    "too_many_downloads": 429,
    "server_error": 500,
    "no_artifacts": 503,
    "paid_join_disabled": 503,
    "log_invalid": 503,
    "server_busy": 503,
}


class Refusal(RequestError):
    """A request that is refused.

    Args:
        kind: one of `KINDS`.
        message: one line for people: what was wrong, and what to do.
        status: where a kind has another status in one place than elsewhere.
        headers: sent with the answer.
    """

    def __init__(
        self, kind: str, message: str, *, status: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__("malformed", message)
        self.kind = kind
        self.http_status = KINDS[kind] if status is None else status
        self.headers = dict(headers or {})
