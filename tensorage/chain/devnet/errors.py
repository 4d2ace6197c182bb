"""How a call fails on the devnet: by the same names as on the real chain.

A dispatchable raises `DispatchError` with the pallet and the name of the error; the SDK's catalogue of the
real runtime's errors gives its number and its text, so that a name that the real chain does not have cannot
be raised. A transaction that never gets into a block raises `PoolError` with the name that the SDK knows it
by.
"""

from __future__ import annotations

from typing import Any

from bittensor import ChainError as SdkChainError
from bittensor._generated.errors import ERRORS
from bittensor.error_map import DISPATCH_ERRORS

_MODULE_ERRORS = {(info.pallet, info.name): (key, info.docs) for key, info in ERRORS.items()}


class DispatchError(Exception):
    """A call in a block failed; what it had written is undone.

    Args:
        pallet: the pallet whose error it is; empty for an error of the dispatch itself (`BadOrigin`) and
            "Token" for one of the balances' own (`FundsUnavailable`).
        name: the error's name in the runtime.
    """

    def __init__(self, pallet: str, name: str) -> None:
        super().__init__(f"{pallet}.{name}" if pallet else name)
        if pallet in ("", "Token"):
            self.docs = DISPATCH_ERRORS[name][1]
        else:
            (self._pallet_index, self._error_index), self.docs = _MODULE_ERRORS[pallet, name]
        self.pallet = pallet
        self.name = name

    def to_value(self) -> Any:
        """The error as `System.ExtrinsicFailed` and the nested results carry it."""
        if self.pallet == "Token":
            return {"Token": {self.name: None}}
        if not self.pallet:
            return {self.name: None}
        return {"Module": {"index": self._pallet_index, "error": f"0x{self._error_index:02x}000000"}}

    def to_record(self) -> dict[str, str]:
        """Name and text, as the receipt of an extrinsic keeps them."""
        return {"name": self.name, "docs": self.docs or self.name}


class PoolError(Exception):
    """A transaction was refused before it got into a block; its nonce is not used up."""

    TEXT = {  # noqa: RUF012 - a constant
        "BadProof": "Transaction has a bad signature",
        "Stale": "Transaction is outdated",
        "Future": "Transaction will be valid in the future",
        "HotKeyNotRegisteredInNetwork": "Invalid transaction with custom error: 10",
        "Payment": "Inability to pay some fees (e.g. account balance too low)",
        "AncientBirthBlock": "Transaction has an ancient birth block",
        "PriorityTooLow": "Priority is too low: a transaction with this nonce is already in the pool",
        "Malformed": "Transaction could not be decoded",
    }

    def __init__(self, name: str) -> None:
        super().__init__(self.TEXT[name])
        self.name = name

    def to_sdk(self) -> SdkChainError:
        """The error as the SDK reports a refusal by the pool."""
        known = self.name not in ("PriorityTooLow", "Malformed")
        return SdkChainError(str(self), self.name if known else None)
