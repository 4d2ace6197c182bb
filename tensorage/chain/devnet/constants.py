"""Pallet constants that the SDK reads."""

from __future__ import annotations

from typing import Any

from bittensor import ChainError as SdkChainError
from bittensor import constants as catalogue

from .calls import SPEC_VERSION
from .pallets import balances, commitments
from .state import View


def constant(view: View, block_time: float, pallet: str, name: str) -> Any:
    """The value of a constant.

    Raises:
        bittensor.ChainError: the devnet does not know it.
    """
    known: dict[tuple[str, str], Any] = {
        ("Aura", "SlotDuration"): round(block_time * 1000),
        ("Timestamp", "MinimumPeriod"): round(block_time * 500),
        ("Balances", "ExistentialDeposit"): balances.EXISTENTIAL_DEPOSIT,
        ("Commitments", "MaxFields"): commitments.MAX_FIELDS,
        ("Commitments", "InitialDeposit"): 0,
        ("Commitments", "FieldDeposit"): 0,
        ("System", "SS58Prefix"): 42,
        ("System", "BlockHashCount"): 2**32 - 1,
        ("System", "Version"): {"spec_name": "node-subtensor", "spec_version": SPEC_VERSION},
        ("Utility", "batched_calls_limit"): 10_000,
        ("SubtensorModule", "InitialStartCallDelay"): view["StartCallDelay",],
        ("SubtensorModule", "InitialTempo"): 360,
        ("SubtensorModule", "MinTempo"): 360,
        ("SubtensorModule", "MaxTempo"): 50_400,
    }
    if (pallet, name) in known:
        return known[pallet, name]
    if hasattr(getattr(catalogue, pallet, None), name):
        raise SdkChainError(f"the devnet has no constant {pallet}.{name}")
    raise SdkChainError(f'Constant "{pallet}.{name}" not found')
