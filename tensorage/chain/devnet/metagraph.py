"""A subnet as the runtime APIs show it: the metagraph, its neurons, its hyperparameters."""

from __future__ import annotations

from typing import Any

from . import epoch
from .items import U16_MAX
from .pallets import stake
from .state import View

_SUBTENSOR = "SubtensorModule"
_NO_AXON = {
    "block": 0,
    "version": 0,
    "ip": 0,
    "port": 0,
    "ip_type": 0,
    "protocol": 0,
    "placeholder1": 0,
    "placeholder2": 0,
}
_NO_PROMETHEUS = {"block": 0, "version": 0, "ip": 0, "port": 0, "ip_type": 0}


def _exists(view: View, netuid: int) -> bool:
    return bool(view["NetworksAdded", netuid])


def _text(value: str | None) -> list[int]:
    """Text as the runtime gives names: a vector of UTF-8 bytes."""
    return list(bytes.fromhex(value[2:])) if value else []


def _activity_cutoff(view: View, netuid: int) -> int:
    return int(view["ActivityCutoffFactorMilli", netuid]) * int(view["Tempo", netuid]) // 1000


def build(view: View, netuid: int) -> dict[str, Any] | None:
    """`get_metagraph`: the whole subnet at the view's block; None when there is no such subnet."""
    if not _exists(view, netuid):
        return None

    def item(name: str) -> Any:
        return view[name, netuid]

    count = int(item("SubnetworkN"))
    hotkeys = [hotkey for _, hotkey in view.items(_SUBTENSOR, "Keys", netuid)]
    coldkeys = [str(view["Owner", hotkey]) for hotkey in hotkeys]
    axons = {key[1]: axon for key, axon in view.items(_SUBTENSOR, "Axons", netuid)}
    registered = {key[1]: block for key, block in view.items(_SUBTENSOR, "BlockAtRegistration", netuid)}
    alpha = [stake.alpha(view, hotkey, netuid) for hotkey in hotkeys]
    total = [stake.total(view, hotkey, netuid) for hotkey in hotkeys]
    identity = item("SubnetIdentitiesV3")
    name = identity.get("subnet_name") if isinstance(identity, dict) else None
    dividends = item("Dividends")
    zeros = [0] * count
    return {
        "netuid": netuid,
        "name": list(str(name).encode()) if name else [],
        "symbol": _text(item("TokenSymbol")),
        "identity": identity,
        "network_registered_at": item("NetworkRegisteredAt"),
        "owner_hotkey": item("SubnetOwnerHotkey"),
        "owner_coldkey": item("SubnetOwner"),
        "block": view.block,
        "tempo": item("Tempo"),
        "last_step": item("LastMechansimStepBlock"),
        "blocks_since_last_step": view.read(_SUBTENSOR, "BlocksSinceLastStep", netuid),
        "subnet_emission": item("SubnetTaoInEmission"),
        "alpha_in": item("SubnetAlphaIn"),
        "alpha_out": item("SubnetAlphaOut"),
        "tao_in": item("SubnetAlphaIn"),  # one for one
        "alpha_out_emission": item("SubnetAlphaOutEmission"),
        "alpha_in_emission": item("SubnetAlphaInEmission"),
        "tao_in_emission": item("SubnetTaoInEmission"),
        "pending_alpha_emission": epoch.pending(view, netuid),
        "pending_root_emission": 0,
        "subnet_volume": item("SubnetVolume"),
        "moving_price": {"bits": 1 << 32},
        "rho": item("Rho"),
        "kappa": item("Kappa"),
        "min_allowed_weights": item("MinAllowedWeights"),
        "max_weights_limit": item("MaxWeightsLimit"),
        "weights_version": item("WeightsVersionKey"),
        "weights_rate_limit": item("WeightsSetRateLimit"),
        "activity_cutoff": _activity_cutoff(view, netuid),
        "max_validators": item("MaxAllowedValidators"),
        "num_uids": count,
        "max_uids": item("MaxAllowedUids"),
        "burn": item("Burn"),
        "difficulty": item("Difficulty"),
        "registration_allowed": item("NetworkRegistrationAllowed"),
        "pow_registration_allowed": item("NetworkPowRegistrationAllowed"),
        "immunity_period": item("ImmunityPeriod"),
        "min_difficulty": item("MinDifficulty"),
        "max_difficulty": item("MaxDifficulty"),
        "min_burn": item("MinBurn"),
        "max_burn": item("MaxBurn"),
        "adjustment_alpha": item("AdjustmentAlpha"),
        "adjustment_interval": item("AdjustmentInterval"),
        "target_regs_per_interval": item("TargetRegistrationsPerInterval"),
        "max_regs_per_block": item("MaxRegistrationsPerBlock"),
        "serving_rate_limit": item("ServingRateLimit"),
        "commit_reveal_weights_enabled": item("CommitRevealWeightsEnabled"),
        "commit_reveal_period": item("RevealPeriodEpochs"),
        "liquid_alpha_enabled": item("LiquidAlphaOn"),
        "alpha_high": item("AlphaValues")[1],
        "alpha_low": item("AlphaValues")[0],
        "bonds_moving_avg": item("BondsMovingAverage"),
        "hotkeys": hotkeys,
        "coldkeys": coldkeys,
        "identities": [view["IdentitiesV2", coldkey] for coldkey in coldkeys],
        "axons": [axons.get(hotkey, dict(_NO_AXON)) for hotkey in hotkeys],
        "active": item("Active"),
        "validator_permit": item("ValidatorPermit"),
        "pruning_score": zeros,
        "last_update": item("LastUpdate"),
        "emission": item("Emission"),
        "dividends": dividends,
        "incentives": item("Incentive"),
        "consensus": item("Consensus"),
        "trust": zeros,
        "rank": zeros,
        "block_at_registration": [registered.get(uid, 0) for uid in range(count)],
        "alpha_stake": alpha,
        "tao_stake": [stake.alpha(view, hotkey, stake.ROOT_NETUID) for hotkey in hotkeys],
        "total_stake": total,
        "tao_dividends_per_hotkey": [(hotkey, 0) for hotkey in hotkeys],
        "alpha_dividends_per_hotkey": list(zip(hotkeys, dividends, strict=True)),
        "validators": [uid for uid, permit in enumerate(item("ValidatorPermit")) if permit],
        "collateral_locked": zeros,
        "collateral_min": zeros,
        "collateral_earned": zeros,
    }


def neurons(view: View, netuid: int, *, lite: bool) -> list[dict[str, Any]]:
    """`get_neurons` and `get_neurons_lite`: a record a neuron, by uid; empty when there is no such subnet."""
    graph = build(view, netuid)
    if graph is None:
        return []
    prometheus = {key[1]: record for key, record in view.items(_SUBTENSOR, "Prometheus", netuid)}
    rows: dict[str, dict[int, Any]] = {"Weights": {}, "Bonds": {}}
    if not lite:
        for name, found in rows.items():
            found.update({key[1]: row for key, row in view.items(_SUBTENSOR, name, netuid)})
    records = []
    for uid, hotkey in enumerate(graph["hotkeys"]):
        holders = [
            (key[1], amount)
            for key, amount in view.items(_SUBTENSOR, "Alpha", hotkey)
            if key[2] == netuid and amount
        ]
        record = {
            "hotkey": hotkey,
            "coldkey": graph["coldkeys"][uid],
            "uid": uid,
            "netuid": netuid,
            "active": graph["active"][uid],
            "axon_info": graph["axons"][uid],
            "prometheus_info": prometheus.get(hotkey, dict(_NO_PROMETHEUS)),
            "stake": holders,
            "rank": 0,
            "emission": graph["emission"][uid],
            "incentive": graph["incentives"][uid],
            "consensus": graph["consensus"][uid],
            "trust": 0,
            "validator_trust": 0,
            "dividends": graph["dividends"][uid],
            "last_update": graph["last_update"][uid],
            "validator_permit": graph["validator_permit"][uid],
            "pruning_score": 0,
        }
        if not lite:
            record["weights"] = [tuple(pair) for pair in rows["Weights"].get(uid, [])]
            record["bonds"] = [tuple(pair) for pair in rows["Bonds"].get(uid, [])]
        records.append(record)
    return records


# name in the runtime's answer, its type there, the storage item
_HYPERPARAMETERS: tuple[tuple[str, str, str], ...] = (
    ("rho", "U16", "Rho"),
    ("kappa", "U16", "Kappa"),
    ("immunity_period", "U16", "ImmunityPeriod"),
    ("min_allowed_weights", "U16", "MinAllowedWeights"),
    ("max_weights_limit", "U16", "MaxWeightsLimit"),
    ("tempo", "U16", "Tempo"),
    ("min_difficulty", "U64", "MinDifficulty"),
    ("max_difficulty", "U64", "MaxDifficulty"),
    ("difficulty", "U64", "Difficulty"),
    ("weights_version", "U64", "WeightsVersionKey"),
    ("weights_rate_limit", "U64", "WeightsSetRateLimit"),
    ("adjustment_interval", "U16", "AdjustmentInterval"),
    ("activity_cutoff_factor", "U32", "ActivityCutoffFactorMilli"),
    ("registration_allowed", "Bool", "NetworkRegistrationAllowed"),
    ("target_regs_per_interval", "U16", "TargetRegistrationsPerInterval"),
    ("min_burn", "TaoBalance", "MinBurn"),
    ("max_burn", "TaoBalance", "MaxBurn"),
    ("bonds_moving_avg", "U64", "BondsMovingAverage"),
    ("max_regs_per_block", "U16", "MaxRegistrationsPerBlock"),
    ("serving_rate_limit", "U64", "ServingRateLimit"),
    ("max_validators", "U16", "MaxAllowedValidators"),
    ("adjustment_alpha", "U64", "AdjustmentAlpha"),
    ("commit_reveal_period", "U64", "RevealPeriodEpochs"),
    ("commit_reveal_weights_enabled", "Bool", "CommitRevealWeightsEnabled"),
    ("liquid_alpha_enabled", "Bool", "LiquidAlphaOn"),
    ("yuma3_enabled", "Bool", "Yuma3On"),
    ("bonds_penalty", "U16", "BondsPenalty"),
    ("bonds_reset_enabled", "Bool", "BondsResetOn"),
    ("subnet_is_active", "Bool", "SubtokenEnabled"),
    ("transfers_enabled", "Bool", "TransferToggle"),
    ("burn_half_life", "U16", "BurnHalfLife"),
    ("burn_increase_mult", "U64F64", "BurnIncreaseMult"),
    ("max_allowed_uids", "U16", "MaxAllowedUids"),
)


def hyperparameters(view: View, netuid: int) -> list[dict[str, Any]] | None:
    """`get_subnet_hyperparams_v3`: (name, tagged value) records; None when there is no such subnet."""
    if not _exists(view, netuid):
        return None
    entries = [{"name": name, "value": {tag: view[item, netuid]}} for name, tag, item in _HYPERPARAMETERS]
    low, high = view["AlphaValues", netuid]
    steepness = int(view["AlphaSigmoidSteepness", netuid])
    entries += [
        {"name": "activity_cutoff", "value": {"U16": min(U16_MAX, _activity_cutoff(view, netuid))}},
        {"name": "alpha_low", "value": {"U16": low}},
        {"name": "alpha_high", "value": {"U16": high}},
        {"name": "alpha_sigmoid_steepness", "value": {"I32F32": {"bits": steepness << 32}}},
        {"name": "yuma_version", "value": {"U16": 3 if view["Yuma3On", netuid] else 2}},
        {"name": "user_liquidity_enabled", "value": {"Bool": False}},
    ]
    return entries
