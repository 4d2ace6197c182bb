"""Subnets come into being, are started, and take neurons for a price that rises and falls with demand."""

from __future__ import annotations

from typing import Any

from ..items import FIXED_ONE, RAO
from ..state import State
from . import balances, neurons, stake
from .registry import Origin, account, anything, dispatchable, ensure, signed, u16

PALLET = "SubtensorModule"
BLOCK_EMISSION = RAO  # alpha a block that a started subnet emits: one, as on the real chain


def lock_cost(state: Any, block: int) -> int:
    """What the next subnet costs, in rao: twice the last one's price, falling in a line to the least."""
    last, since = int(state["NetworkLastLockCost",]), block - int(state["NetworkLastRegistered",])
    least = int(state["NetworkMinLockCost",])
    first = not int(state["NetworkLastRegistered",])
    decayed = last * (1 if first else 2) - last * since // max(1, int(state["NetworkLockReductionInterval",]))
    return max(least, decayed)


def create(state: State, netuid: int, coldkey: str, hotkey: str) -> None:
    """Make subnet `netuid`, with its owner's hotkey as uid 0. It emits only once it is started."""
    state["NetworksAdded", netuid] = True
    state["TotalNetworks",] = state["TotalNetworks",] + 1
    state["NetworkRegisteredAt", netuid] = state.block
    state["SubnetOwner", netuid] = coldkey
    state["SubnetOwnerHotkey", netuid] = hotkey
    state["NetworkRegistrationAllowed", netuid] = True
    state["LastEpochBlock", netuid] = state.block
    state["SubnetAlphaIn", netuid] = 1000 * RAO
    state["SubnetTAO", netuid] = 1000 * RAO
    state["TokenSymbol", netuid] = f"0x{_symbol(netuid).encode().hex()}"
    for item, value in state.get("Devnet", "SubnetDefaults").items():
        state[item, netuid] = value
    stake.own_account(state, coldkey, hotkey)
    neurons.append(state, netuid, hotkey)


def _symbol(netuid: int) -> str:
    greek = "αβγδεζηθικλμνξοπρστυφχψω"
    return greek[(netuid - 1) % len(greek)]


def start(state: State, netuid: int) -> None:
    """Let the subnet emit and its alpha be staked."""
    state["FirstEmissionBlockNumber", netuid] = state.block + 1
    state["SubtokenEnabled", netuid] = True
    state["SubnetEmissionEnabled", netuid] = True
    state["SubnetAlphaOutEmission", netuid] = BLOCK_EMISSION


def update_price(state: State, netuid: int) -> None:
    """Each block the price to register falls so that it halves in a half-life, down to the least."""
    price, least = int(state["Burn", netuid]), int(state["MinBurn", netuid])
    half_life = int(state["BurnHalfLife", netuid])
    if price > least and half_life:
        state["Burn", netuid] = max(least, int(price * 0.5 ** (1 / half_life)))
    if state["RegistrationsThisBlock", netuid]:
        state["RegistrationsThisBlock", netuid] = 0
    interval = int(state["AdjustmentInterval", netuid])
    if interval and state.block % interval == 0 and state["RegistrationsThisInterval", netuid]:
        state["RegistrationsThisInterval", netuid] = 0


@dispatchable(PALLET, netuid=u16, hotkey=account)
def burned_register(state: State, origin: Origin, netuid: int, hotkey: str) -> None:
    coldkey = signed(origin)
    ensure(netuid != stake.ROOT_NETUID, PALLET, "RegistrationNotPermittedOnRootSubnet")
    ensure(state["NetworksAdded", netuid], PALLET, "SubnetNotExists")
    ensure(state["NetworkRegistrationAllowed", netuid], PALLET, "SubNetRegistrationDisabled")
    ensure(
        state["RegistrationsThisBlock", netuid] < state["MaxRegistrationsPerBlock", netuid],
        PALLET,
        "TooManyRegistrationsThisBlock",
    )
    ensure(neurons.uid_of(state, netuid, hotkey) is None, PALLET, "HotKeyAlreadyRegisteredInSubNet")
    price = int(state["Burn", netuid])
    ensure(balances.withdraw(state, coldkey, price), PALLET, "NotEnoughBalanceToStake")
    balances.issue(state, -price)
    ensure(stake.own_account(state, coldkey, hotkey), PALLET, "NonAssociatedColdKey")
    if state["SubnetworkN", netuid] < state["MaxAllowedUids", netuid]:
        uid = neurons.append(state, netuid, hotkey)
    else:
        uid = neurons.to_prune(state, netuid)
        neurons.replace(state, netuid, uid, hotkey)
    state["RegistrationsThisInterval", netuid] = state["RegistrationsThisInterval", netuid] + 1
    state["RegistrationsThisBlock", netuid] = state["RegistrationsThisBlock", netuid] + 1
    state["RAORecycledForRegistration", netuid] = state["RAORecycledForRegistration", netuid] + price
    raised = price * int(state["BurnIncreaseMult", netuid]["bits"]) // FIXED_ONE
    state["Burn", netuid] = min(int(state["MaxBurn", netuid]), raised)
    state.emit(PALLET, "NeuronRegistered", [netuid, uid, hotkey])


@dispatchable(PALLET, hotkey=account)
def register_network(state: State, origin: Origin, hotkey: str) -> None:
    coldkey = signed(origin)
    taken = {key[0] for key, added in state.items(PALLET, "NetworksAdded") if added}
    ensure(len(taken - {0}) < state["SubnetLimit",], PALLET, "SubnetLimitReached")
    price = lock_cost(state, state.block)
    ensure(balances.free(state, coldkey) >= price, PALLET, "CannotAffordLockCost")
    ensure(stake.own_account(state, coldkey, hotkey), PALLET, "NonAssociatedColdKey")
    balances.withdraw(state, coldkey, price)
    netuid = next(number for number in range(1, 2**16) if number not in taken)
    create(state, netuid, coldkey, hotkey)
    state["SubnetLocked", netuid] = price
    state["NetworkLastLockCost",] = price
    state["NetworkLastRegistered",] = state.block
    state.emit(PALLET, "NetworkAdded", [netuid, 1])


@dispatchable(PALLET, hotkey=account, identity=anything)
def register_network_with_identity(state: State, origin: Origin, hotkey: str, identity: Any) -> None:
    before = {key[0] for key, _ in state.items(PALLET, "NetworksAdded")}
    register_network(state, origin, hotkey)
    (netuid,) = {key[0] for key, _ in state.items(PALLET, "NetworksAdded")} - before
    if isinstance(identity, dict):
        state["SubnetIdentitiesV3", netuid] = identity
        state.emit(PALLET, "SubnetIdentitySet", netuid)


@dispatchable(PALLET, netuid=u16)
def start_call(state: State, origin: Origin, netuid: int) -> None:
    coldkey = signed(origin)
    ensure(state["NetworksAdded", netuid], PALLET, "SubnetNotExists")
    ensure(state["SubnetOwner", netuid] == coldkey, PALLET, "NotSubnetOwner")
    ensure(state["FirstEmissionBlockNumber", netuid] is None, PALLET, "FirstEmissionBlockNumberAlreadySet")
    ready = state["NetworkRegisteredAt", netuid] + state["StartCallDelay",]
    ensure(state.block >= ready, PALLET, "NeedWaitingMoreBlocksToStarCall")
    start(state, netuid)
    state.emit(PALLET, "FirstEmissionBlockNumberSet", [netuid, state.block + 1])


@dispatchable(PALLET, hotkey=account)
def try_associate_hotkey(state: State, origin: Origin, hotkey: str) -> None:
    stake.own_account(state, signed(origin), hotkey)
