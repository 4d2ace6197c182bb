"""The first block of a devnet: one subnet, ready, and a rich //Alice who owns it and holds the sudo key."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from bittensor.keyfiles import Keypair

from ...errors import UsageError
from .items import RAO
from .pallets import balances, registration
from .shield import ShieldKey
from .state import State
from .store import Block, Store

ALICE = "//Alice"
OWNER_HOTKEY = "//Alice//owner"
FORTUNE = 10_000_000 * RAO


@dataclass(frozen=True, slots=True)
class Genesis:
    """How a devnet begins. Every subnet, also one that is made later, starts with these hyperparameters;
    calls change them, as on the real chain.

    Args:
        netuid: the number of the subnet that is there from the start.
        block_time: seconds between blocks.
        tempo: blocks an epoch.
        seed: makes the genesis hash, the shield key and the entropy of the blocks follow from it; random
            without.
        finality_lag: how many blocks the finalized head is behind the best.
        commit_reveal: whether weights must be committed under a timelock (which a devnet never opens) or a
            salt.
        weights_rate_limit, serving_rate_limit, immunity_period: in blocks.
        weights_version: the least version key that validators must send.
        stake_threshold: TAO of stake below which a hotkey sets no weights.
        max_uids, max_validators: neurons, and permits, on the subnet.
        burn: TAO, the price of the first registration.
    """

    netuid: int = 1
    block_time: float = 1.0
    tempo: int = 20
    seed: str | None = None
    finality_lag: int = 1
    commit_reveal: bool = False
    weights_rate_limit: int = 5
    serving_rate_limit: int = 5
    immunity_period: int = 200
    weights_version: int = 0
    stake_threshold: float = 1.0
    max_uids: int = 256
    max_validators: int = 64
    burn: float = 0.1

    def __post_init__(self) -> None:
        for name, least, most in (
            ("netuid", 1, 65535),
            ("block_time", 0.01, 3600),
            ("tempo", 1, 65535),
            ("finality_lag", 0, 100),
            ("weights_rate_limit", 0, 2**32),
            ("serving_rate_limit", 0, 2**32),
            ("immunity_period", 0, 65535),
            ("weights_version", 0, 2**64 - 1),
            ("stake_threshold", 0, 10**6),
            ("max_uids", 1, 256),
            ("max_validators", 1, 256),
            ("burn", 0.0005, 100),
        ):
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"{name} must be between {least} and {most}, not {getattr(self, name)}")


def is_blank(path: Path) -> bool:
    """Whether there is nothing in `path` yet: no file, or what a creation that was cut short has left."""
    if not path.exists():
        return True
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            return not tables or (
                ("blocks",) in tables and database.execute("SELECT 1 FROM blocks LIMIT 1").fetchone() is None
            )
    except sqlite3.Error:
        return False  # whatever it is, it is not ours to write to


def create(path: Path, genesis: Genesis) -> Store:
    """Make a devnet's file with its block 0.

    Raises:
        UsageError: there is one already, or the file cannot be made.
    """
    store = Store(path, create=True)
    if store.head() >= 0:
        store.close()
        raise UsageError(f"there is a devnet at {path} already", remedy="Remove it, or name another path.")
    seed = os.urandom(32) if genesis.seed is None else derive(genesis.seed, "genesis", 0)
    with store.transaction():
        store.set_meta("block_time", genesis.block_time)
        store.set_meta("finality_lag", genesis.finality_lag)
        store.set_meta("netuid", genesis.netuid)
        store.set_meta("seed", genesis.seed)
        shield_seed = seed + blake2b(seed, digest_size=32, person=b"shield").digest()
        store.set_meta("shield_seed", shield_seed.hex())
        now = int(time.time() * 1000)
        state = State(store, -1, time_ms=now)
        _write(state, genesis, ShieldKey(shield_seed))
        zero = f"0x{bytes(32).hex()}"
        name = blake2b(seed, digest_size=32, person=b"tensorage-devnet").hexdigest()
        store.write_block(Block(0, f"0x{name}", zero, now, zero), state.changes, [], [])
    return store


def derive(seed: str, purpose: str, number: int) -> bytes:
    """32 bytes that follow from a seed."""
    return blake2b(f"{purpose}/{number}".encode(), key=seed.encode()[:64], digest_size=32).digest()


def _write(state: State, genesis: Genesis, shield: ShieldKey) -> None:
    alice = Keypair.create_from_uri(ALICE).ss58_address
    owner = Keypair.create_from_uri(OWNER_HOTKEY).ss58_address
    balances.deposit(state, alice, FORTUNE)
    balances.issue(state, FORTUNE)
    state.put("Sudo", "Key", value=alice)
    state.put("MevShield", "CurrentKey", value=f"0x{shield.public.hex()}")
    state.put("MevShield", "NextKey", value=f"0x{shield.public.hex()}")
    state["StakeThreshold",] = int(genesis.stake_threshold * RAO)
    state["NetworkMinLockCost",] = 100 * RAO
    state["NetworkLastLockCost",] = 100 * RAO
    state["NetworkLockReductionInterval",] = 1000
    state["NetworksAdded", 0] = True
    fast = {
        "Tempo": genesis.tempo,
        "CommitRevealWeightsEnabled": genesis.commit_reveal,
        "WeightsSetRateLimit": genesis.weights_rate_limit,
        "ServingRateLimit": genesis.serving_rate_limit,
        "ImmunityPeriod": genesis.immunity_period,
        "WeightsVersionKey": genesis.weights_version,
        "MaxAllowedUids": genesis.max_uids,
        "MaxAllowedValidators": genesis.max_validators,
        "MaxRegistrationsPerBlock": 64,
        "Burn": int(genesis.burn * RAO),
    }
    state.put("Devnet", "SubnetDefaults", value=fast)
    registration.create(state, genesis.netuid, alice, owner)
    registration.start(state, genesis.netuid)
