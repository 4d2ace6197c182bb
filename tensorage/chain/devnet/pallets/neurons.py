"""Neurons: uids and their hotkeys, and which of them a registration on a full subnet removes."""

from __future__ import annotations

from typing import Any

from ..errors import DispatchError
from ..items import MAX_SUBNETS
from ..state import State

PALLET = "SubtensorModule"
_VECTORS = {
    "Active": True,
    "Consensus": 0,
    "Incentive": 0,
    "Dividends": 0,
    "Emission": 0,
    "LastUpdate": 0,
    "ValidatorTrust": 0,
    "ValidatorPermit": False,
}


def uid_of(state: Any, netuid: int, hotkey: str) -> int | None:
    uid = state["Uids", netuid, hotkey]
    return None if uid is None else int(uid)


def set_at(state: State, item: str, netuid: int, uid: int, value: Any) -> None:
    """Change one neuron's entry of a vector."""
    vector = state[item, netuid]
    vector[uid] = value
    state[item, netuid] = vector


def _enter(state: State, netuid: int, uid: int, hotkey: str) -> None:
    state["Uids", netuid, hotkey] = uid
    state["Keys", netuid, uid] = hotkey
    state["IsNetworkMember", hotkey, netuid] = True
    state["BlockAtRegistration", netuid, uid] = state.block
    for item, value in _VECTORS.items():
        set_at(state, item, netuid, uid, value)
    set_at(state, "LastUpdate", netuid, uid, state.block)  # the rate limit of weights counts from here


def append(state: State, netuid: int, hotkey: str) -> int:
    """Give a hotkey the next free uid."""
    uid = int(state["SubnetworkN", netuid])
    state["SubnetworkN", netuid] = uid + 1
    for item, value in _VECTORS.items():
        state[item, netuid] = [*state[item, netuid], value]
    _enter(state, netuid, uid, hotkey)
    return uid


def replace(state: State, netuid: int, uid: int, hotkey: str) -> None:
    """Give a hotkey the uid of another, whose weights, bonds, axon and commitments on the subnet go."""
    old = state["Keys", netuid, uid]
    del state["Uids", netuid, old]
    del state["IsNetworkMember", old, netuid]
    for item in ("Axons", "Prometheus", "NeuronCertificates"):
        del state[item, netuid, old]
    del state["Weights", netuid, uid]
    del state["Bonds", netuid, uid]
    state["WeightCommits", netuid, old] = None
    for item in ("CommitmentOf", "LastCommitment", "UsedSpaceOf"):
        state.put("Commitments", item, netuid, old, value=None)
    _enter(state, netuid, uid, hotkey)


def to_prune(state: State, netuid: int) -> int:
    """The uid that a registration on a full subnet takes.

    It is the one with the lowest emission, the older of equals, then the lower uid; among those past their
    immunity if there is any. The owner's hotkey stays.

    Raises:
        DispatchError: only the owner is left.
    """
    emissions = state["Emission", netuid]
    owner = state["SubnetOwnerHotkey", netuid]
    immunity = state["ImmunityPeriod", netuid]
    candidates = []
    for (_, uid), hotkey in state.items(PALLET, "Keys", netuid):
        if hotkey != owner:
            registered = state["BlockAtRegistration", netuid, uid]
            immune = state.block - registered < immunity
            candidates.append((immune, emissions[uid], registered, uid))
    if not candidates:
        raise DispatchError(PALLET, "NoNeuronIdAvailable")
    return int(min(candidates)[3])


def storage_index(netuid: int, mechanism: int) -> int:
    """Where the weights of a subnet's mechanism are stored."""
    return mechanism * MAX_SUBNETS + netuid
