"""The one tree of errors.

An error says what was wrong and which value, and, where there is one, the remedy: what to do about it. A
command prints `str(error)` on one line and exits with `exit_code`; an axon answers `http_status`. Nothing
that a peer can cause leaves this tree.
"""

from __future__ import annotations


class TensorageError(Exception):
    """Base of every error that tensorage raises on purpose.

    Args:
        message: what was wrong, with the value that was.
        remedy: what to do, as an imperative sentence; empty when there is nothing to do.
    """

    exit_code = 1
    http_status = 500

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}" if self.remedy else self.message


class UsageError(TensorageError):
    """A flag, a file or the machine is not as the command needs it; the command ends with exit code 2."""

    exit_code = 2


class ProofError(TensorageError):
    """Bytes from a peer do not prove what they should (verdict `wrong`)."""

    http_status = 400


class ChainError(TensorageError):
    """The chain did not answer, or refused; the caller may try again later."""

    http_status = 503


class StaleChainError(ChainError):
    """What is known of the chain is too old to act on; nothing is permitted until it is fresh."""


class NotRegisteredError(UsageError):
    """The hotkey is not registered on the subnet."""


class StorageError(TensorageError):
    """A database or a sector file cannot be read, written or trusted."""


class RequestError(TensorageError):
    """A request that is refused. `kind` is the stable word for machines, the message is for people.

    Kinds and their HTTP status: malformed 400, unauthenticated 401, forbidden 403, unknown 404, conflict 409,
    too_large 413, rate_limited 429, unready 503, full 507.
    """

    STATUS = {  # noqa: RUF012 - a constant
        "malformed": 400,
        "unauthenticated": 401,
        "forbidden": 403,
        "unknown": 404,
        "conflict": 409,
        "too_large": 413,
        "rate_limited": 429,
        "unready": 503,
        "full": 507,
    }

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.http_status = self.STATUS[kind]
