"""Hyperparameters and the calls that set them (pallet AdminUtils), with root and the subnet's owner apart."""

from __future__ import annotations

from typing import Any

from ..errors import DispatchError
from ..items import FIXED_ONE, U16_MAX
from ..state import State
from .registry import (
    ROOT,
    Kind,
    Origin,
    account,
    anything,
    boolean,
    dispatchable,
    ensure,
    i16,
    signed,
    u8,
    u16,
    u32,
    u64,
    u128,
)

PALLET = "AdminUtils"
SUBTENSOR = "SubtensorModule"
MIN_TEMPO, MAX_TEMPO = 360, 50_400


def ensure_owner_or_root(state: State, origin: Origin, netuid: int) -> None:
    """Fail the call unless root or the subnet's owner makes it."""
    ensure(origin == ROOT or state["SubnetOwner", netuid] == origin, "", "BadOrigin")


def _setter(function: str, item: str, parameter: str, kind: Kind, *, owner: bool) -> None:
    """Enter a call that sets one item of one subnet."""

    def run(state: State, origin: Origin, netuid: int, **value: Any) -> None:
        if owner:
            ensure_owner_or_root(state, origin, netuid)
        else:
            ensure(origin == ROOT, "", "BadOrigin")
        ensure(state["NetworksAdded", netuid], PALLET, "SubnetDoesNotExist")
        new = value[parameter]
        check = _CHECKS.get(function)
        if check is not None:
            check(state, origin, netuid, new)
        state[item, netuid] = {"bits": new} if kind is u128 else new

    dispatchable(PALLET, function, {"netuid": u16, parameter: kind})(run)


def _tempo(state: State, origin: Origin, netuid: int, value: int) -> None:
    if origin != ROOT:
        ensure(MIN_TEMPO <= value <= MAX_TEMPO, SUBTENSOR, "TempoOutOfBounds")
    state["LastEpochBlock", netuid] = state.block


def _max_uids(state: State, origin: Origin, netuid: int, value: int) -> None:
    ensure(value >= state["SubnetworkN", netuid], PALLET, "MaxAllowedUIdsLessThanCurrentUIds")
    ensure(value <= 256, PALLET, "MaxAllowedUidsGreaterThanDefaultMaxAllowedUids")


def _max_validators(state: State, origin: Origin, netuid: int, value: int) -> None:
    ensure(value <= state["MaxAllowedUids", netuid], PALLET, "MaxValidatorsLargerThanMaxUIds")


def _multiplier(state: State, origin: Origin, netuid: int, value: int) -> None:
    ensure(FIXED_ONE <= value <= 3 * FIXED_ONE, PALLET, "ValueNotInBounds")


def _moving_average(state: State, origin: Origin, netuid: int, value: int) -> None:
    ensure(value <= 1_000_000, PALLET, "BondsMovingAverageMaxReached")


def _factor(state: State, origin: Origin, netuid: int, value: int) -> None:
    ensure(1000 <= value <= 50_000, SUBTENSOR, "ActivityCutoffFactorMilliOutOfBounds")


def _reveal_period(state: State, origin: Origin, netuid: int, value: int) -> None:
    ensure(value >= 1, SUBTENSOR, "RevealPeriodTooSmall")
    ensure(value <= 100, SUBTENSOR, "RevealPeriodTooLarge")


_CHECKS = {
    "sudo_set_tempo": _tempo,
    "sudo_set_max_allowed_uids": _max_uids,
    "sudo_set_max_allowed_validators": _max_validators,
    "sudo_set_burn_increase_mult": _multiplier,
    "sudo_set_bonds_moving_average": _moving_average,
    "sudo_set_activity_cutoff_factor": _factor,
    "sudo_set_commit_reveal_weights_interval": _reveal_period,
}

# function, storage item, its parameter, kind
_BY_OWNER: tuple[tuple[str, str, str, Kind], ...] = (
    ("sudo_set_epoch_consensus", "SubnetEpochConsensus", "mode", anything),
    ("sudo_set_tempo", "Tempo", "tempo", u16),
    ("sudo_set_immunity_period", "ImmunityPeriod", "immunity_period", u16),
    ("sudo_set_min_allowed_weights", "MinAllowedWeights", "min_allowed_weights", u16),
    ("sudo_set_weights_version_key", "WeightsVersionKey", "weights_version_key", u64),
    ("sudo_set_activity_cutoff_factor", "ActivityCutoffFactorMilli", "factor_milli", u32),
    ("sudo_set_min_burn", "MinBurn", "min_burn", u64),
    ("sudo_set_max_burn", "MaxBurn", "max_burn", u64),
    ("sudo_set_bonds_moving_average", "BondsMovingAverage", "bonds_moving_average", u64),
    ("sudo_set_bonds_penalty", "BondsPenalty", "bonds_penalty", u16),
    ("sudo_set_serving_rate_limit", "ServingRateLimit", "serving_rate_limit", u64),
    ("sudo_set_commit_reveal_weights_interval", "RevealPeriodEpochs", "interval", u64),
    ("sudo_set_max_allowed_uids", "MaxAllowedUids", "max_allowed_uids", u16),
    ("sudo_set_burn_increase_mult", "BurnIncreaseMult", "burn_increase_mult", u128),
    ("sudo_set_burn_half_life", "BurnHalfLife", "burn_half_life", u16),
    ("sudo_set_adjustment_alpha", "AdjustmentAlpha", "adjustment_alpha", u64),
    ("sudo_set_rho", "Rho", "rho", u16),
    ("sudo_set_max_difficulty", "MaxDifficulty", "max_difficulty", u64),
    ("sudo_set_alpha_sigmoid_steepness", "AlphaSigmoidSteepness", "steepness", i16),
    ("sudo_set_min_childkey_take_per_subnet", "MinChildkeyTakePerSubnet", "take", u16),
    ("sudo_set_owner_immune_neuron_limit", "ImmuneOwnerUidsLimit", "immune_neurons", u16),
    ("sudo_set_commit_reveal_weights_enabled", "CommitRevealWeightsEnabled", "enabled", boolean),
    ("sudo_set_liquid_alpha_enabled", "LiquidAlphaOn", "enabled", boolean),
    ("sudo_set_network_registration_allowed", "NetworkRegistrationAllowed", "registration_allowed", boolean),
    ("sudo_set_yuma3_enabled", "Yuma3On", "enabled", boolean),
    ("sudo_set_bonds_reset_enabled", "BondsResetOn", "enabled", boolean),
    ("sudo_set_toggle_transfer", "TransferToggle", "toggle", boolean),
    ("sudo_set_owner_cut_enabled", "OwnerCutEnabled", "enabled", boolean),
    ("sudo_set_owner_cut_auto_lock_enabled", "OwnerCutAutoLockEnabled", "enabled", boolean),
)
_BY_ROOT: tuple[tuple[str, str, str, Kind], ...] = (
    ("sudo_set_kappa", "Kappa", "kappa", u16),
    ("sudo_set_weights_set_rate_limit", "WeightsSetRateLimit", "weights_set_rate_limit", u64),
    ("sudo_set_max_allowed_validators", "MaxAllowedValidators", "max_allowed_validators", u16),
    ("sudo_set_max_registrations_per_block", "MaxRegistrationsPerBlock", "max_registrations_per_block", u16),
    ("sudo_set_min_allowed_uids", "MinAllowedUids", "min_allowed_uids", u16),
    ("sudo_set_difficulty", "Difficulty", "difficulty", u64),
    ("sudo_set_min_difficulty", "MinDifficulty", "min_difficulty", u64),
    ("sudo_set_subtoken_enabled", "SubtokenEnabled", "subtoken_enabled", boolean),
    ("sudo_set_subnet_emission_enabled", "SubnetEmissionEnabled", "enabled", boolean),
    ("sudo_set_mechanism_count", "MechanismCountCurrent", "mechanism_count", u8),
)
for _function, _item, _parameter, _kind in _BY_OWNER:
    _setter(_function, _item, _parameter, _kind, owner=True)
for _function, _item, _parameter, _kind in _BY_ROOT:
    _setter(_function, _item, _parameter, _kind, owner=False)


@dispatchable(PALLET, netuid=u16, alpha_low=u16, alpha_high=u16)
def sudo_set_alpha_values(state: State, origin: Origin, netuid: int, alpha_low: int, alpha_high: int) -> None:
    ensure_owner_or_root(state, origin, netuid)
    ensure(state["LiquidAlphaOn", netuid], SUBTENSOR, "LiquidAlphaDisabled")
    ensure(alpha_high >= U16_MAX // 40, SUBTENSOR, "AlphaHighTooLow")
    ensure(U16_MAX // 40 <= alpha_low <= alpha_high, SUBTENSOR, "AlphaLowOutOfRange")
    state["AlphaValues", netuid] = [alpha_low, alpha_high]


@dispatchable(PALLET, netuid=u16, hotkey=account)
def sudo_set_sn_owner_hotkey(state: State, origin: Origin, netuid: int, hotkey: str) -> None:
    ensure_owner_or_root(state, origin, netuid)
    state["SubnetOwnerHotkey", netuid] = hotkey


def _global(function: str, item: str, parameter: str, kind: Kind) -> None:
    """Enter a call by which root sets an item of the whole chain."""

    def run(state: State, origin: Origin, **value: Any) -> None:
        ensure(origin == ROOT, "", "BadOrigin")
        state[item,] = value[parameter]

    dispatchable(PALLET, function, {parameter: kind})(run)


for _function, _item, _parameter, _kind in (
    ("sudo_set_stake_threshold", "StakeThreshold", "min_stake", u64),
    ("sudo_set_start_call_delay", "StartCallDelay", "delay", u64),
    ("sudo_set_network_min_lock_cost", "NetworkMinLockCost", "lock_cost", u64),
    ("sudo_set_subnet_limit", "SubnetLimit", "max_subnets", u16),
    ("sudo_set_subnet_owner_cut", "SubnetOwnerCut", "subnet_owner_cut", u16),
    ("sudo_set_lock_reduction_interval", "NetworkLockReductionInterval", "interval", u64),
):
    _global(_function, _item, _parameter, _kind)


@dispatchable(SUBTENSOR, netuid=u16)
def trigger_epoch(state: State, origin: Origin, netuid: int) -> None:
    """The owner asks for an epoch after the admin freeze window, which on a devnet is the next block."""
    who = signed(origin)
    ensure(state["NetworksAdded", netuid], SUBTENSOR, "SubnetNotExists")
    ensure(state["SubnetOwner", netuid] == who, SUBTENSOR, "NotSubnetOwner")
    ensure(not state["CommitRevealWeightsEnabled", netuid], SUBTENSOR, "DynamicTempoBlockedByCommitReveal")
    if state["PendingEpochAt", netuid]:
        raise DispatchError(SUBTENSOR, "EpochTriggerAlreadyPending")
    state["PendingEpochAt", netuid] = state.block + max(1, state["AdminFreezeWindow",])


@dispatchable(
    SUBTENSOR,
    netuid=u16,
    subnet_name=anything,
    github_repo=anything,
    subnet_contact=anything,
    subnet_url=anything,
    discord=anything,
    description=anything,
    logo_url=anything,
    additional=anything,
)
def set_subnet_identity(state: State, origin: Origin, netuid: int, **fields: Any) -> None:
    ensure(state["SubnetOwner", netuid] == signed(origin), "", "BadOrigin")
    state["SubnetIdentitiesV3", netuid] = fields
    state.emit(SUBTENSOR, "SubnetIdentitySet", netuid)
