"""Verifying logs of either format with real keys: `log` and `legacy` with `identity` put in."""

from __future__ import annotations

from . import identity
from .errors import LogError
from .legacy import LegacyLog, verify_legacy
from .log import Log, Verified, verify_log


def verify(log: Log | LegacyLog, *, owner: str | None, id: str | None = None) -> Verified:
    """Check a whole log; `owner` and `id` as in `log.verify_log`.

    Raises:
        LogError: the first fault found.
    """
    if isinstance(log, Log):
        return verify_log(log, owner=owner, verify=identity.verify, id=id)
    if id is not None and log.id and log.id != id:
        raise LogError("wrong_id", f"this is the log of {log.id[:80]!r}, not of {id!r}")
    return verify_legacy(log, owner=owner, recover=identity.recover)
