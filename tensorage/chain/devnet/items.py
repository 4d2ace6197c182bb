"""The storage items of the devnet's runtime and what each reads as before it is written.

Names, keys and defaults are the real runtime's (a `ValueQuery` has a default, an `OptionQuery` reads None),
except the hyperparameters that a devnet sets at genesis to be quick. An item that is not listed but that
the real chain has reads None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bittensor import ChainError as SdkChainError
from bittensor import storage

RAO = 10**9
U16_MAX = 65535
U64_MAX = 2**64 - 1
FIXED_ONE = 2**64  # one, in U64F64
MAX_SUBNETS = 4096  # a mechanism's weights are stored under mechanism * 4096 + netuid

_SUBNET_DEFAULTS: dict[str, Any] = {
    # consensus
    "Tempo": 360,
    "LastEpochBlock": 0,
    "PendingEpochAt": 0,
    "SubnetEpochIndex": 0,
    "LastMechansimStepBlock": 0,
    "SubnetEpochConsensus": "Yuma",
    "Rho": 10,
    "Kappa": 32767,
    "BondsMovingAverage": 900_000,
    "BondsPenalty": U16_MAX,
    "BondsResetOn": False,
    "Yuma3On": False,
    "LiquidAlphaOn": False,
    "AlphaValues": [45875, 58982],
    "AlphaSigmoidSteepness": 1000,
    "ActivityCutoff": 5000,
    "ActivityCutoffFactorMilli": 13_889,
    "MaxAllowedValidators": 64,
    # weights
    "WeightsSetRateLimit": 100,
    "WeightsVersionKey": 0,
    "MinAllowedWeights": 1,
    "MaxWeightsLimit": U16_MAX,
    "CommitRevealWeightsEnabled": True,
    "RevealPeriodEpochs": 1,
    "MechanismCountCurrent": 1,
    "MechanismEmissionSplit": None,
    # registration
    "SubnetworkN": 0,
    "MinAllowedUids": 64,
    "MaxAllowedUids": 256,
    "ImmunityPeriod": 4096,
    "ImmuneOwnerUidsLimit": 1,
    "NetworkRegistrationAllowed": False,
    "NetworkPowRegistrationAllowed": False,
    "RegistrationsThisInterval": 0,
    "RegistrationsThisBlock": 0,
    "TargetRegistrationsPerInterval": 2,
    "MaxRegistrationsPerBlock": 1,
    "AdjustmentInterval": 360,
    "AdjustmentAlpha": 0,
    "Burn": RAO // 10,
    "MinBurn": 500_000,
    "MaxBurn": 100 * RAO,
    "BurnIncreaseMult": {"bits": int(1.26 * FIXED_ONE)},
    "BurnHalfLife": 360,
    "CollateralLockShare": 0,
    "CollateralDrainRatio": {"bits": FIXED_ONE},
    "Difficulty": U64_MAX,
    "MinDifficulty": U64_MAX,
    "MaxDifficulty": U64_MAX,
    "RAORecycledForRegistration": 0,
    "MinChildkeyTakePerSubnet": 0,
    # serving
    "ServingRateLimit": 50,
    # economy
    "NetworksAdded": False,
    "NetworkRegisteredAt": 0,
    "SubnetLocked": 0,
    "SubnetTAO": 0,
    "SubnetAlphaIn": 0,
    "SubnetAlphaOut": 0,
    "SubnetAlphaOutEmission": 0,
    "SubnetAlphaInEmission": 0,
    "SubnetTaoInEmission": 0,
    "SubnetVolume": 0,
    "PendingEmission": 0,
    "SubtokenEnabled": False,
    "SubnetEmissionEnabled": False,
    "TransferToggle": True,
    "OwnerCutEnabled": True,
    "OwnerCutAutoLockEnabled": False,
    # vectors over uids
    "Active": [],
    "Consensus": [],
    "Incentive": [],
    "Dividends": [],
    "Emission": [],
    "LastUpdate": [],
    "ValidatorTrust": [],
    "ValidatorPermit": [],
    # options
    "SubnetOwner": None,
    "SubnetOwnerHotkey": None,
    "FirstEmissionBlockNumber": None,
    "TokenSymbol": None,
    "SubnetIdentitiesV3": None,
}

_GLOBAL_DEFAULTS: dict[str, Any] = {
    "TotalNetworks": 0,
    "SubnetLimit": 128,
    "StakeThreshold": 1000 * RAO,
    "TaoWeight": int(0.18 * U64_MAX),
    "SubnetOwnerCut": 11_796,
    "NetworkMinLockCost": 1000 * RAO,
    "NetworkLastLockCost": 1000 * RAO,
    "NetworkLastRegistered": 0,
    "NetworkLockReductionInterval": 14 * 7200,
    "NetworkRateLimit": 0,
    "NetworkImmunityPeriod": 0,
    "StartCallDelay": 0,
    "TotalStake": 0,
    "TotalIssuance": 0,
    "DissolveCleanupQueue": [],
    "NetworkRegistrationQueue": [],
    "CurrentDissolveCleanupStatus": None,
    "TxRateLimit": 0,
    "AdminFreezeWindow": 0,
    "OwnerHyperparamRateLimit": 0,
    "MaxEpochsPerBlock": 2,
    "RootStakeUnlockInterval": 0,
}

_MAP_DEFAULTS: dict[str, tuple[int, Any]] = {
    "Uids": (2, None),
    "Keys": (2, None),
    "IsNetworkMember": (2, False),
    "BlockAtRegistration": (2, 0),
    "Axons": (2, None),
    "Prometheus": (2, None),
    "NeuronCertificates": (2, None),
    "Weights": (2, []),
    "Bonds": (2, []),
    "WeightCommits": (2, None),
    "TimelockedWeightCommits": (2, []),
    "Owner": (1, None),
    "OwnedHotkeys": (1, []),
    "StakingHotkeys": (1, []),
    "Delegates": (1, 11_796),
    "Alpha": (3, 0),  # hotkey, coldkey, netuid -> rao of alpha; the real chain stores shares of a pool
    "TotalHotkeyAlpha": (2, 0),  # hotkey, netuid
    "IdentitiesV2": (1, None),
}

ACCOUNT = {
    "nonce": 0,
    "consumers": 0,
    "providers": 0,
    "sufficients": 0,
    "data": {"free": 0, "reserved": 0, "frozen": 0, "flags": 0},
}


@dataclass(frozen=True, slots=True)
class Item:
    """How an item is read: how many keys it has, and its value where none is stored."""

    keys: int
    default: Any


ITEMS: dict[tuple[str, str], Item] = {
    **{("SubtensorModule", name): Item(1, value) for name, value in _SUBNET_DEFAULTS.items()},
    **{("SubtensorModule", name): Item(0, value) for name, value in _GLOBAL_DEFAULTS.items()},
    **{("SubtensorModule", name): Item(keys, value) for name, (keys, value) in _MAP_DEFAULTS.items()},
    ("System", "Account"): Item(1, ACCOUNT),
    ("Balances", "TotalIssuance"): Item(0, 0),
    ("Commitments", "CommitmentOf"): Item(2, None),
    ("Commitments", "LastCommitment"): Item(2, None),
    ("Commitments", "UsedSpaceOf"): Item(2, None),
    ("Commitments", "MaxSpace"): Item(0, 3100),
    ("Commitments", "RevealedCommitments"): Item(2, None),
    ("MevShield", "NextKey"): Item(0, None),
    ("MevShield", "CurrentKey"): Item(0, None),
    ("Sudo", "Key"): Item(0, None),
    ("Devnet", "SubnetDefaults"): Item(0, {}),  # the hyperparameters of every new subnet, set at genesis
}


def default(pallet: str, item: str) -> Any:
    """The value of an item where none is stored.

    Raises:
        bittensor.ChainError: the runtime has no such item.
    """
    known = ITEMS.get((pallet, item))
    if known is not None:
        return known.default
    if hasattr(getattr(storage, pallet, None), item):
        return None
    raise SdkChainError(f'Storage function "{pallet}.{item}" not found')
