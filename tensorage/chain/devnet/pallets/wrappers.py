"""Calls that carry calls (sudo, batches, the shield's carrier), and remarks."""

from __future__ import annotations

from hashlib import blake2b

from ..calls import Call
from ..errors import DispatchError
from ..state import State
from .registry import (
    ROOT,
    Origin,
    dispatch,
    dispatchable,
    ensure,
    inner_call,
    list_of,
    octets,
    signed,
)

_MOST_CIPHERTEXT = 8192


@dispatchable("Sudo", call=inner_call)
def sudo(state: State, origin: Origin, call: Call) -> None:
    """Run a call as root; its failure is in the event, as on every Substrate chain."""
    ensure(state.get("Sudo", "Key") == signed(origin), "Sudo", "RequireSudo")
    try:
        dispatch(state, ROOT, call)
    except DispatchError as error:
        state.nested = error
        state.emit("Sudo", "Sudid", {"sudo_result": {"Err": error.to_value()}})
    else:
        state.emit("Sudo", "Sudid", {"sudo_result": {"Ok": []}})


@dispatchable("Utility", calls=list_of(inner_call))
def batch_all(state: State, origin: Origin, calls: list[Call]) -> None:
    """All calls or none."""
    for call in calls:
        dispatch(state, origin, call)
        state.emit("Utility", "ItemCompleted")
    state.emit("Utility", "BatchCompleted")


@dispatchable("Utility", calls=list_of(inner_call))
def batch(state: State, origin: Origin, calls: list[Call]) -> None:
    """The calls up to the first that fails."""
    for index, call in enumerate(calls):
        try:
            dispatch(state, origin, call)
        except DispatchError as error:
            state.nested = error
            state.emit("Utility", "BatchInterrupted", {"index": index, "error": error.to_value()})
            return
        state.emit("Utility", "ItemCompleted")
    state.emit("Utility", "BatchCompleted")


@dispatchable("Utility", calls=list_of(inner_call))
def force_batch(state: State, origin: Origin, calls: list[Call]) -> None:
    """Every call, whether another fails or not."""
    for call in calls:
        try:
            dispatch(state, origin, call)
        except DispatchError as error:
            state.nested = error
            state.emit("Utility", "ItemFailed", {"error": error.to_value()})
        else:
            state.emit("Utility", "ItemCompleted")
    state.emit("Utility", "BatchCompleted")


@dispatchable("MevShield", ciphertext=octets)
def submit_encrypted(state: State, origin: Origin, ciphertext: str) -> None:
    """The carrier itself does nothing; the block opens it and runs what is inside right after it."""
    ensure(len(ciphertext) // 2 - 1 <= _MOST_CIPHERTEXT, "MevShield", "Unreachable")
    state.emit("MevShield", "EncryptedSubmitted", {"who": signed(origin)})


@dispatchable("System", remark=octets)
def remark(state: State, origin: Origin, remark: str) -> None:
    signed(origin)


@dispatchable("System", remark=octets)
def remark_with_event(state: State, origin: Origin, remark: str) -> None:
    """Nothing but an event that names the remark by its BLAKE2b-256 hash."""
    digest = blake2b(bytes.fromhex(remark[2:]), digest_size=32).hexdigest()
    state.emit("System", "Remarked", {"sender": signed(origin), "hash": f"0x{digest}"})
