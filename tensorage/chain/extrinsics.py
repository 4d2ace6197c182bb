"""Sending one extrinsic, and saying truthfully what is known of it afterwards.

    done      it is in a block and did what it should
    failed    the chain refused it: the pool did not take it, or it failed in its block
    unsent    nothing was signed, so nothing can have been sent: a check of the SDK, or no connection
    unknown   it was signed, and then the connection or the time ran out: it may be in a block yet

The SDK raises some failures and returns others, and the same exception can mean either of the last two. What
tells them apart is whether the key was asked to sign: without a signature nothing leaves this process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
from bittensor import ChainError, ErrorCode, ExtrinsicResult, PolicyError, Signer

from .faults import ANY

Status = Literal["done", "failed", "unsent", "unknown"]

# Names that the pool gives to a transaction which may nevertheless be, or have been, in a block.
_UNDECIDED = frozenset(
    {"PriorityTooLow", "AlreadyImported", "Dropped", "Usurped", "Retracted", "FinalityTimeout", "Invalid"}
)


@dataclass(frozen=True, slots=True)
class Sent:
    """What is known of an extrinsic. `code` is the SDK's semantic code, None when there was no refusal."""

    status: Status
    message: str
    code: ErrorCode | None = None
    block: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


class Witness:
    """A signer that remembers whether it was asked to sign."""

    def __init__(self, keypair: Any) -> None:
        self._keypair = keypair
        self.ss58_address: str = keypair.ss58_address
        self.public_key: bytes = bytes(keypair.public_key)
        self.crypto_type: int = keypair.crypto_type
        self.signed = False

    def sign(self, payload: bytes) -> bytes:
        self.signed = True
        return bytes(self._keypair.sign(payload))


async def send(
    keypair: Any, submit: Callable[[Signer], Awaitable[ExtrinsicResult]], *, within: float
) -> Sent:
    """Runs `submit` with a signer for at most `within` seconds; raises nothing of the SDK's."""
    witness = Witness(keypair)
    try:
        with anyio.fail_after(within):
            result = await submit(witness)
    except PolicyError as error:
        return Sent("unsent", _line(error), ErrorCode.POLICY_VIOLATION)
    except ChainError as error:
        return Sent("unknown" if witness.signed else "unsent", _line(error), error.code)
    except TimeoutError:
        return Sent("unknown" if witness.signed else "unsent", f"no answer within {within:.0f} s")
    except ANY as error:
        return Sent("unknown" if witness.signed else "unsent", _line(error))
    return judge(result)


def judge(result: ExtrinsicResult) -> Sent:
    """What a returned result says."""
    block = _height(result.extrinsic_id)
    if result.success:
        return Sent("done", _line(result.message), block=block, data=dict(result.data))
    error = result.error or ChainError(result.message or "the extrinsic failed")
    included = result.block_hash is not None
    refused = error.name is not None and error.name not in _UNDECIDED
    return Sent("failed" if included or refused else "unknown", describe(error), error.code, block)


def describe(error: ChainError) -> str:
    """An SDK error as one line: its name, what it says, and the SDK's advice."""
    parts = [f"{error.name}: {error.message}" if error.name else error.message]
    if error.code is not ErrorCode.UNKNOWN:
        parts.append(error.remediation)
    return _line(". ".join(part.rstrip(". ") for part in parts if part))


def _height(extrinsic_id: str | None) -> int | None:
    height, _, _ = (extrinsic_id or "").partition("-")
    return int(height) if height.isdigit() else None


def _line(text: object) -> str:
    line = " ".join(str(text).split())
    return line or type(text).__name__
