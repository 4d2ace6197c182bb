"""Weights: set in the open, committed under a salt and revealed, or committed under a timelock.

A salted commitment is BLAKE2b-256 over the SCALE encoding of (hotkey, storage index u16, uids Vec<u16>,
values Vec<u16>, salt Vec<u16>, version key u64). It may be revealed in exactly the epoch of the commit plus
the subnet's reveal period; later it has expired. A timelocked commitment opens with a drand pulse, which a
devnet does not follow: it is taken and kept, in `TimelockedWeightCommits`, and never opens.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from bittensor.sp_core import ss58_decode

from ..errors import DispatchError
from ..items import U16_MAX
from ..state import State
from . import neurons, stake
from .registry import Origin, dispatchable, ensure, hash256, list_of, octets, signed, u8, u16, u64

PALLET = "SubtensorModule"
MAX_UNREVEALED = 10
MAX_TIMELOCKED_BYTES = 5000
COMMIT_REVEAL_VERSION = 4
_u16s = list_of(u16)


def _compact(value: int) -> bytes:
    """A SCALE compact integer below 2**30."""
    if value < 1 << 6:
        return bytes([value << 2])
    if value < 1 << 14:
        return (value << 2 | 1).to_bytes(2, "little")
    return (value << 2 | 2).to_bytes(4, "little")


def _vector(values: Sequence[int]) -> bytes:
    return _compact(len(values)) + b"".join(value.to_bytes(2, "little") for value in values)


def commitment_hash(
    hotkey: str, index: int, uids: Sequence[int], values: Sequence[int], salt: Sequence[int], version_key: int
) -> str:
    """The salted commitment, 0x-hex. `index` is the storage index: the netuid, for the first mechanism."""
    preimage = (
        bytes(ss58_decode(hotkey))
        + index.to_bytes(2, "little")
        + _vector(uids)
        + _vector(values)
        + _vector(salt)
        + version_key.to_bytes(8, "little")
    )
    return f"0x{blake2b(preimage, digest_size=32).hexdigest()}"


def _uid(state: State, netuid: int, hotkey: str) -> int:
    uid = neurons.uid_of(state, netuid, hotkey)
    if uid is None:
        raise DispatchError(PALLET, "HotKeyNotRegisteredInSubNet")
    return uid


def _rate_allows(state: State, netuid: int, uid: int) -> bool:
    last = int(state["LastUpdate", netuid][uid])
    return last == 0 or state.block - last >= int(state["WeightsSetRateLimit", netuid])


def _ensure_mechanism(state: State, netuid: int, mechanism: int) -> int:
    """The storage index of an existing subnet's mechanism."""
    ensure(state["NetworksAdded", netuid], PALLET, "SubnetNotExists")
    ensure(mechanism < state["MechanismCountCurrent", netuid], PALLET, "MechanismDoesNotExist")
    return neurons.storage_index(netuid, mechanism)


def _upscaled(values: Sequence[int]) -> list[int]:
    """Values scaled so that the largest is 65535, as the chain stores them."""
    top = max(values, default=0)
    return [value * U16_MAX // top for value in values] if top else list(values)


def _set(
    state: State, hotkey: str, netuid: int, mechanism: int, uids: list[int], values: list[int], key: int
) -> None:
    """Check and store a row of weights, in the order of the real chain's checks."""
    ensure(netuid != stake.ROOT_NETUID, PALLET, "CanNotSetRootNetworkWeights")
    ensure(len(uids) == len(values), PALLET, "WeightVecNotEqualSize")
    index = _ensure_mechanism(state, netuid, mechanism)
    count = int(state["SubnetworkN", netuid])
    ensure(len(uids) <= count, PALLET, "UidsLengthExceedUidsInSubNet")
    uid = _uid(state, netuid, hotkey)
    enough = stake.total(state, hotkey, netuid) >= int(state["StakeThreshold",])
    ensure(enough, PALLET, "NotEnoughStakeToSetWeights")
    required = int(state["WeightsVersionKey", netuid])
    ensure(required == 0 or key >= required, PALLET, "IncorrectWeightVersionKey")
    revealed = bool(state["CommitRevealWeightsEnabled", netuid])
    ensure(revealed or _rate_allows(state, netuid, uid), PALLET, "SettingWeightsTooFast")
    own = uids == [uid]
    permitted = state["ValidatorPermit", netuid][uid] or state["SubnetOwnerHotkey", netuid] == hotkey
    ensure(own or permitted, PALLET, "NeuronNoValidatorPermit")
    ensure(len(set(uids)) == len(uids), PALLET, "DuplicateUids")
    ensure(all(target < count for target in uids), PALLET, "UidVecContainInvalidOne")
    least = min(count, int(state["MinAllowedWeights", netuid]))
    ensure(own or len(values) >= least, PALLET, "WeightVecLengthIsLow")
    stored, limit = _upscaled(values), int(state["MaxWeightsLimit", netuid])
    within = limit == U16_MAX or max(stored, default=0) * U16_MAX <= limit * sum(stored)
    ensure(own or within, PALLET, "MaxWeightExceeded")
    state["Weights", index, uid] = [[target, value] for target, value in zip(uids, stored, strict=True)]
    if not revealed:
        neurons.set_at(state, "LastUpdate", netuid, uid, state.block)
    state.emit(PALLET, "WeightsSet", [index, uid])


@dispatchable(PALLET, pays="owner", netuid=u16, mecid=u8, dests=_u16s, weights=_u16s, version_key=u64)
def set_mechanism_weights(
    state: State,
    origin: Origin,
    netuid: int,
    mecid: int,
    dests: list[int],
    weights: list[int],
    version_key: int,
) -> None:
    hotkey = signed(origin)
    ensure(not state["CommitRevealWeightsEnabled", netuid], PALLET, "CommitRevealEnabled")
    _set(state, hotkey, netuid, mecid, dests, weights, version_key)


@dispatchable(PALLET, pays="owner", netuid=u16, dests=_u16s, weights=_u16s, version_key=u64)
def set_weights(
    state: State, origin: Origin, netuid: int, dests: list[int], weights: list[int], version_key: int
) -> None:
    set_mechanism_weights(state, origin, netuid, 0, dests, weights, version_key)


# Salted commit and reveal -----------------------------------------------------


def is_expired(state: Any, netuid: int, commit_epoch: int) -> bool:
    """Whether a commit of that epoch can no longer be revealed."""
    return bool(state["SubnetEpochIndex", netuid] > commit_epoch + state["RevealPeriodEpochs", netuid])


def _begin_commit(state: State, hotkey: str, netuid: int, mechanism: int) -> tuple[int, int]:
    """The checks that both kinds of commit share; (uid, storage index)."""
    index = _ensure_mechanism(state, netuid, mechanism)
    ensure(state["CommitRevealWeightsEnabled", netuid], PALLET, "CommitRevealDisabled")
    uid = _uid(state, netuid, hotkey)
    enough = stake.total(state, hotkey, netuid) >= int(state["StakeThreshold",])
    ensure(enough, PALLET, "NotEnoughStakeToSetWeights")
    ensure(_rate_allows(state, netuid, uid), PALLET, "CommittingWeightsTooFast")
    return uid, index


@dispatchable(PALLET, pays="owner", netuid=u16, mecid=u8, commit_hash=hash256)
def commit_mechanism_weights(state: State, origin: Origin, netuid: int, mecid: int, commit_hash: str) -> None:
    hotkey = signed(origin)
    uid, index = _begin_commit(state, hotkey, netuid, mecid)
    waiting = [
        commit
        for commit in state["WeightCommits", index, hotkey] or []
        if not is_expired(state, netuid, commit[1])
    ]
    ensure(len(waiting) < MAX_UNREVEALED, PALLET, "TooManyUnrevealedCommits")
    commit = [commit_hash, state["SubnetEpochIndex", netuid], state.block, 0]
    state["WeightCommits", index, hotkey] = [*waiting, commit]
    neurons.set_at(state, "LastUpdate", netuid, uid, state.block)
    state.emit(PALLET, "WeightsCommitted", [hotkey, index, commit_hash])


@dispatchable(PALLET, pays="owner", netuid=u16, commit_hash=hash256)
def commit_weights(state: State, origin: Origin, netuid: int, commit_hash: str) -> None:
    commit_mechanism_weights(state, origin, netuid, 0, commit_hash)


@dispatchable(
    PALLET, pays="owner", netuid=u16, mecid=u8, uids=_u16s, values=_u16s, salt=_u16s, version_key=u64
)
def reveal_mechanism_weights(
    state: State,
    origin: Origin,
    netuid: int,
    mecid: int,
    uids: list[int],
    values: list[int],
    salt: list[int],
    version_key: int,
) -> None:
    hotkey = signed(origin)
    index = _ensure_mechanism(state, netuid, mecid)
    ensure(state["CommitRevealWeightsEnabled", netuid], PALLET, "CommitRevealDisabled")
    commits = state["WeightCommits", index, hotkey]
    ensure(commits is not None, PALLET, "NoWeightsCommitFound")
    expired = {commit[0] for commit in commits if is_expired(state, netuid, commit[1])}
    live = [commit for commit in commits if not is_expired(state, netuid, commit[1])]
    given = commitment_hash(hotkey, index, uids, values, salt, version_key)
    places = [place for place, commit in enumerate(live) if commit[0] == given]
    if not places:
        ensure(given not in expired, PALLET, "ExpiredWeightCommit")
        raise DispatchError(PALLET, "InvalidRevealCommitHashNotMatch" if live else "NoWeightsCommitFound")
    due = live[places[0]][1] + state["RevealPeriodEpochs", netuid]
    ensure(state["SubnetEpochIndex", netuid] == due, PALLET, "RevealTooEarly")
    state["WeightCommits", index, hotkey] = live[places[0] + 1 :] or None
    _set(state, hotkey, netuid, mecid, uids, values, version_key)
    state.emit(PALLET, "WeightsRevealed", [hotkey, index, given])


@dispatchable(PALLET, pays="owner", netuid=u16, uids=_u16s, values=_u16s, salt=_u16s, version_key=u64)
def reveal_weights(
    state: State,
    origin: Origin,
    netuid: int,
    uids: list[int],
    values: list[int],
    salt: list[int],
    version_key: int,
) -> None:
    reveal_mechanism_weights(state, origin, netuid, 0, uids, values, salt, version_key)


# Timelocked commits -----------------------------------------------------------


@dispatchable(
    PALLET,
    pays="owner",
    netuid=u16,
    mecid=u8,
    commit=octets,
    reveal_round=u64,
    commit_reveal_version=u16,
)
def commit_timelocked_mechanism_weights(
    state: State,
    origin: Origin,
    netuid: int,
    mecid: int,
    commit: str,
    reveal_round: int,
    commit_reveal_version: int,
) -> None:
    hotkey = signed(origin)
    ensure(commit_reveal_version == COMMIT_REVEAL_VERSION, PALLET, "IncorrectCommitRevealVersion")
    uid, index = _begin_commit(state, hotkey, netuid, mecid)
    ensure(len(commit) // 2 - 1 <= MAX_TIMELOCKED_BYTES, PALLET, "CommitPayloadTooLarge")
    epoch = int(state["SubnetEpochIndex", netuid])
    waiting = state["TimelockedWeightCommits", index, epoch]
    mine = sum(entry[0] == hotkey for entry in waiting)
    ensure(mine < MAX_UNREVEALED, PALLET, "TooManyUnrevealedCommits")
    state["TimelockedWeightCommits", index, epoch] = [*waiting, [hotkey, state.block, commit, reveal_round]]
    neurons.set_at(state, "LastUpdate", netuid, uid, state.block)
    digest = blake2b(bytes.fromhex(commit[2:]), digest_size=32).hexdigest()
    state.emit(PALLET, "TimelockedWeightsCommitted", [hotkey, index, f"0x{digest}", reveal_round])


@dispatchable(PALLET, pays="owner", netuid=u16, commit=octets, reveal_round=u64, commit_reveal_version=u16)
def commit_timelocked_weights(
    state: State, origin: Origin, netuid: int, commit: str, reveal_round: int, commit_reveal_version: int
) -> None:
    commit_timelocked_mechanism_weights(state, origin, netuid, 0, commit, reveal_round, commit_reveal_version)


@dispatchable(PALLET, pays="owner", netuid=u16, mecid=u8, commit=octets, reveal_round=u64)
def commit_crv3_mechanism_weights(
    state: State, origin: Origin, netuid: int, mecid: int, commit: str, reveal_round: int
) -> None:
    commit_timelocked_mechanism_weights(
        state, origin, netuid, mecid, commit, reveal_round, COMMIT_REVEAL_VERSION
    )
