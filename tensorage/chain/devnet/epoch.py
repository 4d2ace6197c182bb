"""The end of a tempo: Yuma consensus over the subnet's weights, new permits, and the emission paid.

A started subnet emits a fixed alpha a block. At the epoch what has gathered since the last is split as on
the real chain: 18 % to the owner (the `SubnetOwnerCut`), and of the rest one half to miners by incentive
and one half to validators by dividends, with their stakers. It is added to stake. What the owner's hotkey
would earn as a miner is burned, as on the real chain. Where no incentive is there to pay by, the miners'
half goes to the validators; where there are no dividends either, validators are paid by stake.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .items import U16_MAX
from .pallets import neurons, stake, weights
from .state import State

PALLET = "SubtensorModule"


def load() -> Any:
    """The consensus. Importing torch takes seconds, and only the producer needs it."""
    from ... import yuma  # noqa: PLC0415 - see above

    return yuma


def is_due(state: State, netuid: int) -> bool:
    """Whether the epoch runs in this block: a tempo after the last, or when the owner asked for it."""
    tempo, pending = int(state["Tempo", netuid]), int(state["PendingEpochAt", netuid])
    if tempo == 0:
        return False
    return state.block - int(state["LastEpochBlock", netuid]) >= tempo or 0 < pending <= state.block


def next_start(state: Any, netuid: int) -> int | None:
    """The block of the next epoch, as the runtime predicts it; None when the subnet has none."""
    tempo, pending = int(state["Tempo", netuid]), int(state["PendingEpochAt", netuid])
    if tempo == 0:
        return None
    automatic = int(state["LastEpochBlock", netuid]) + tempo
    return min(automatic, pending) if pending else automatic


def run(state: State, netuid: int) -> None:
    """Run the epoch and move the schedule on."""
    _consensus(state, netuid)
    state["LastEpochBlock", netuid] = state.block
    state["LastMechansimStepBlock", netuid] = state.block
    state["PendingEpochAt", netuid] = 0
    state["SubnetEpochIndex", netuid] = state["SubnetEpochIndex", netuid] + 1


def _consensus(state: State, netuid: int) -> None:
    yuma = load()
    count = int(state["SubnetworkN", netuid])
    hotkeys = [state["Keys", netuid, uid] for uid in range(count)]
    owner = state["SubnetOwnerHotkey", netuid]
    threshold = int(state["StakeThreshold",])
    stakes = [stake.total(state, hotkey, netuid) for hotkey in hotkeys]
    stakes = [
        amount if amount >= threshold or hotkey == owner else 0
        for amount, hotkey in zip(stakes, hotkeys, strict=True)
    ]
    last_update = state["LastUpdate", netuid]
    cutoff = int(state["ActivityCutoffFactorMilli", netuid]) * int(state["Tempo", netuid]) // 1000
    active = [updated + cutoff >= state.block for updated in last_update]
    permits = [bool(permit) for permit in state["ValidatorPermit", netuid]]
    result = yuma.epoch(
        stake=stakes,
        permit=permits,
        active=active,
        weights=_matrix(state, "Weights", netuid, count),
        bonds=_matrix(state, "Bonds", netuid, count),
        last_update=last_update,
        registered_at=[int(state["BlockAtRegistration", netuid, uid]) for uid in range(count)],
        last_tempo=int(state["LastMechansimStepBlock", netuid]),
        commit_block=_commit_blocks(state, netuid, hotkeys),
        owner_uid=neurons.uid_of(state, netuid, owner),
        parameters=_parameters(yuma, state, netuid),
    )
    new_permits = _permits(stakes, int(state["MaxAllowedValidators", netuid]))
    state["Active", netuid] = active
    state["Consensus", netuid] = _u16s(result.consensus)
    state["Incentive", netuid] = _u16s(result.incentive)
    state["Dividends", netuid] = _u16s(result.dividends)
    state["ValidatorPermit", netuid] = new_permits
    for uid, row in enumerate(result.bonds):
        keeps = new_permits[uid]
        state["Bonds", netuid, uid] = [[j, bond] for j, bond in enumerate(row) if bond] if keeps else None
    _pay(state, netuid, hotkeys, stakes, result.incentive, result.dividends)


def _parameters(yuma: Any, state: State, netuid: int) -> Any:
    low, high = state["AlphaValues", netuid]
    liquid = yuma.LiquidAlpha(low / U16_MAX, high / U16_MAX, abs(state["AlphaSigmoidSteepness", netuid]))
    return yuma.EpochParameters(
        kappa=int(state["Kappa", netuid]),
        bonds_penalty=int(state["BondsPenalty", netuid]),
        bonds_moving_average=int(state["BondsMovingAverage", netuid]),
        yuma3=bool(state["Yuma3On", netuid]),
        liquid_alpha=liquid if state["LiquidAlphaOn", netuid] else None,
    )


def _matrix(state: State, item: str, netuid: int, count: int) -> list[list[int]]:
    rows = [[0] * count for _ in range(count)]
    for (_, uid), row in state.items(PALLET, item, netuid):
        for target, value in row:
            if uid < count and target < count:
                rows[uid][target] = value
    return rows


def _commit_blocks(state: State, netuid: int, hotkeys: Sequence[str]) -> list[int | None] | None:
    """Per validator, the block of its oldest live commit; None where commit-reveal is off."""
    if not state["CommitRevealWeightsEnabled", netuid]:
        return None
    oldest: dict[str, int] = {}
    for (_, hotkey), commits in state.items(PALLET, "WeightCommits", netuid):
        live = [block for _, epoch, block, _ in commits if not weights.is_expired(state, netuid, epoch)]
        if live:
            oldest[hotkey] = min(live)
    for (_, epoch), entries in state.items(PALLET, "TimelockedWeightCommits", netuid):
        if not weights.is_expired(state, netuid, epoch):
            for hotkey, block, *_ in entries:
                oldest[hotkey] = min(block, oldest.get(hotkey, block))
    return [oldest.get(hotkey) for hotkey in hotkeys]


def _permits(stakes: Sequence[int], most: int) -> list[bool]:
    """The `most` largest stakes that are not zero; the lower uid of equals."""
    ranked = sorted(range(len(stakes)), key=lambda uid: (-stakes[uid], uid))
    chosen = {uid for uid in ranked[:most] if stakes[uid] > 0}
    return [uid in chosen for uid in range(len(stakes))]


def _u16s(shares: Sequence[float]) -> list[int]:
    return [min(U16_MAX, int(share * U16_MAX)) for share in shares]


def pending(state: Any, netuid: int) -> int:
    """The alpha, in rao, that a started subnet has emitted since its last epoch."""
    first = state["FirstEmissionBlockNumber", netuid]
    if first is None:
        return 0
    since = max(int(first) - 1, int(state["LastMechansimStepBlock", netuid]))
    blocks: int = max(0, state.block - since)
    return blocks * int(state["SubnetAlphaOutEmission", netuid])


def _pay(
    state: State,
    netuid: int,
    hotkeys: Sequence[str],
    stakes: Sequence[int],
    incentive: Sequence[float],
    dividends: Sequence[float],
) -> None:
    """Split what the subnet emitted since the last epoch."""
    count = len(hotkeys)
    emitted = pending(state, netuid)
    cut = emitted * int(state["SubnetOwnerCut",]) // U16_MAX if state["OwnerCutEnabled", netuid] else 0
    owner = state["SubnetOwnerHotkey", netuid]
    _credit(state, owner, netuid, cut, to_stakers=False)
    miners = (emitted - cut) // 2
    validators = emitted - cut - miners
    if not sum(incentive):
        miners, validators = 0, miners + validators
    base = list(dividends) if sum(dividends) else [float(amount) for amount in stakes]
    paid = [0] * count
    for uid, hotkey in enumerate(hotkeys):
        as_miner = int(miners * incentive[uid])
        as_validator = int(validators * base[uid] / sum(base)) if sum(base) else 0
        paid[uid] = as_miner + as_validator
        if hotkey != owner:
            _credit(state, hotkey, netuid, as_miner, to_stakers=False)
        _credit(state, hotkey, netuid, as_validator, to_stakers=True)
    state["Emission", netuid] = paid


def _credit(state: State, hotkey: str, netuid: int, amount: int, *, to_stakers: bool) -> None:
    """Add alpha to a hotkey: to its owner, or, less the take, to all who stake on it by their share."""
    owner = state["Owner", hotkey]
    if amount <= 0 or owner is None:
        return
    held = stake.alpha(state, hotkey, netuid)
    if to_stakers and held:
        shared = amount - amount * int(state["Delegates", hotkey]) // U16_MAX
        for (_, coldkey, place), part in state.items(PALLET, "Alpha", hotkey):
            if place == netuid and coldkey != owner:
                share = shared * part // held
                stake.add(state, hotkey, coldkey, netuid, share)
                amount -= share
    stake.add(state, hotkey, owner, netuid, amount)
