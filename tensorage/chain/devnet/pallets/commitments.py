"""The Commitments pallet: a few bytes that a hotkey publishes on its subnet.

The space of a hotkey is 3100 bytes an epoch, each call counting for at least 100.
"""

from __future__ import annotations

import re
from typing import Any

from ..state import State
from . import neurons
from .registry import Origin, dispatchable, ensure, octets, signed, u16, u64

PALLET = "Commitments"
MAX_FIELDS = 3
LEAST_SPACE = 100
_HASHES = ("Sha256", "BlakeTwo256", "Keccak256", "ShaThree256")
_RAW = re.compile(r"Raw(\d{1,3})")


def _field(value: Any) -> tuple[Any, int]:
    """(a field in canonical form, its bytes)."""
    if value in ("None", "ResetBondsFlag"):
        return value, 0
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError(f"{value!r:.60} is no field of a commitment")
    ((variant, payload),) = value.items()
    if variant == "TimelockEncrypted":
        if not isinstance(payload, dict) or set(payload) != {"encrypted", "reveal_round"}:
            raise ValueError("TimelockEncrypted holds encrypted and reveal_round")
        sealed = octets(payload["encrypted"])
        return {variant: {"encrypted": sealed, "reveal_round": u64(payload["reveal_round"])}}, _length(
            sealed, 1024, variant
        )
    if variant in ("None", "ResetBondsFlag"):
        return variant, 0
    data = octets(payload)
    raw = _RAW.fullmatch(variant)
    if raw and int(raw[1]) <= 128:
        if len(data) // 2 - 1 != int(raw[1]):
            raise ValueError(f"{variant} holds {raw[1]} bytes, not {len(data) // 2 - 1}")
        return {variant: data}, int(raw[1])
    if variant == "BigRaw":
        return {variant: data}, _length(data, 512, variant)
    if variant in _HASHES:
        if len(data) != 66:
            raise ValueError(f"{variant} holds 32 bytes")
        return {variant: data}, 32
    raise ValueError(f"{variant!r} is no variant of a commitment's field")


def _length(data: str, most: int, variant: str) -> int:
    size = len(data) // 2 - 1
    if size > most:
        raise ValueError(f"{variant} holds at most {most} bytes, not {size}")
    return size


def info(value: Any) -> dict[str, Any]:
    """A `CommitmentInfo`: {"fields": [...]}; the list may come in another one, as SCALE wraps it."""
    if not isinstance(value, dict) or set(value) != {"fields"} or not isinstance(value["fields"], list):
        raise ValueError('a commitment is {"fields": [...]}')
    fields = value["fields"]
    if len(fields) == 1 and isinstance(fields[0], list):
        fields = fields[0]
    return {"fields": [_field(entry)[0] for entry in fields]}


@dispatchable(PALLET, pays="owner", netuid=u16, info=info)
def set_commitment(state: State, origin: Origin, netuid: int, info: dict[str, Any]) -> None:
    hotkey = signed(origin)
    ensure(neurons.uid_of(state, netuid, hotkey) is not None, PALLET, "AccountNotAllowedCommit")
    ensure(len(info["fields"]) <= MAX_FIELDS, PALLET, "TooManyFieldsInCommitmentInfo")
    epoch = state["SubnetEpochIndex", netuid]
    usage = state.get(PALLET, "UsedSpaceOf", netuid, hotkey) or {"last_epoch": epoch, "used_space": 0}
    used = usage["used_space"] if usage["last_epoch"] == epoch else 0
    used += max(LEAST_SPACE, sum(_field(entry)[1] for entry in info["fields"]))
    ensure(used <= state.get(PALLET, "MaxSpace"), PALLET, "SpaceLimitExceeded")
    state.put(PALLET, "UsedSpaceOf", netuid, hotkey, value={"last_epoch": epoch, "used_space": used})
    state.put(
        PALLET,
        "CommitmentOf",
        netuid,
        hotkey,
        value={"deposit": 0, "block": state.block, "info": info},
    )
    state.put(PALLET, "LastCommitment", netuid, hotkey, value=state.block)
    if "ResetBondsFlag" in info["fields"] and state["BondsResetOn", netuid]:
        _reset_bonds(state, netuid, hotkey)
    state.emit(PALLET, "Commitment", {"netuid": netuid, "who": hotkey})


def _reset_bonds(state: State, netuid: int, hotkey: str) -> None:
    uid = neurons.uid_of(state, netuid, hotkey)
    for (_, validator), row in state.items("SubtensorModule", "Bonds", netuid):
        state["Bonds", netuid, validator] = [pair for pair in row if pair[0] != uid]
