"""Stake: TAO turned into a subnet's alpha on a hotkey, and back.

The devnet's price is one for one and fixed: no pool moves, no slippage, no swap fee. TAO really leaves and
enters the coldkey. Stake on netuid 0 (root) counts for a hotkey on every subnet with the chain's TAO
weight. Emission grows alpha without TAO behind it, so what an unstake pays out beyond what was staked is
newly issued.
"""

from __future__ import annotations

from typing import Any

from ..items import U64_MAX
from ..state import State
from . import balances
from .registry import Origin, account, boolean, dispatchable, ensure, signed, u16, u64

PALLET = "SubtensorModule"
PRICE = 10**9  # rao of TAO for one alpha
MIN_STAKE = 2_000_000  # rao; less is refused, as on the real chain
ROOT_NETUID = 0


def own_account(state: State, coldkey: str, hotkey: str) -> bool:
    """Whether the coldkey owns the hotkey; it becomes the owner of a hotkey that has none."""
    owner = state["Owner", hotkey]
    if owner is None:
        state["Owner", hotkey] = coldkey
        state["OwnedHotkeys", coldkey] = [*state["OwnedHotkeys", coldkey], hotkey]
        owner = coldkey
    return bool(owner == coldkey)


def alpha(state: Any, hotkey: str, netuid: int) -> int:
    """All alpha staked to a hotkey on a subnet, in rao."""
    return int(state["TotalHotkeyAlpha", hotkey, netuid])


def total(state: Any, hotkey: str, netuid: int) -> int:
    """The stake weight of a hotkey on a subnet, in rao: its alpha, and its root TAO times the TAO weight."""
    root = alpha(state, hotkey, ROOT_NETUID)
    return alpha(state, hotkey, netuid) + (root * int(state["TaoWeight",]) // U64_MAX if root else 0)


def add(state: State, hotkey: str, coldkey: str, netuid: int, amount: int) -> None:
    """Change a position by `amount` rao of alpha, which may be negative."""
    state["Alpha", hotkey, coldkey, netuid] = state["Alpha", hotkey, coldkey, netuid] + amount or None
    state["TotalHotkeyAlpha", hotkey, netuid] = alpha(state, hotkey, netuid) + amount
    state["SubnetAlphaOut", netuid] = state["SubnetAlphaOut", netuid] + amount
    hotkeys = state["StakingHotkeys", coldkey]
    if hotkey not in hotkeys:
        state["StakingHotkeys", coldkey] = [*hotkeys, hotkey]


def _ensure_open(state: State, netuid: int) -> None:
    ensure(netuid == ROOT_NETUID or state["NetworksAdded", netuid], PALLET, "SubnetNotExists")
    ensure(netuid == ROOT_NETUID or state["SubtokenEnabled", netuid], PALLET, "SubtokenDisabled")


@dispatchable(PALLET, hotkey=account, netuid=u16, amount_staked=u64)
def add_stake(state: State, origin: Origin, hotkey: str, netuid: int, amount_staked: int) -> None:
    coldkey = signed(origin)
    _ensure_open(state, netuid)
    ensure(state["Owner", hotkey] is not None, PALLET, "HotKeyAccountNotExists")
    ensure(amount_staked >= MIN_STAKE, PALLET, "AmountTooLow")
    ensure(balances.withdraw(state, coldkey, amount_staked), PALLET, "NotEnoughBalanceToStake")
    add(state, hotkey, coldkey, netuid, amount_staked)
    state["TotalStake",] = state["TotalStake",] + amount_staked
    state["SubnetTAO", netuid] = state["SubnetTAO", netuid] + amount_staked
    state["SubnetVolume", netuid] = state["SubnetVolume", netuid] + amount_staked
    state.emit(PALLET, "StakeAdded", [coldkey, hotkey, amount_staked, amount_staked, netuid, 0])


def _unstake(state: State, coldkey: str, hotkey: str, netuid: int, amount: int) -> None:
    add(state, hotkey, coldkey, netuid, -amount)
    pooled = state["SubnetTAO", netuid]
    state["SubnetTAO", netuid] = max(0, pooled - amount)
    state["TotalStake",] = max(0, state["TotalStake",] - amount)
    balances.issue(state, max(0, amount - pooled))
    balances.deposit(state, coldkey, amount)
    state.emit(PALLET, "StakeRemoved", [coldkey, hotkey, amount, amount, netuid, 0])


@dispatchable(PALLET, hotkey=account, netuid=u16, amount_unstaked=u64)
def remove_stake(state: State, origin: Origin, hotkey: str, netuid: int, amount_unstaked: int) -> None:
    coldkey = signed(origin)
    _ensure_open(state, netuid)
    ensure(state["Owner", hotkey] is not None, PALLET, "HotKeyAccountNotExists")
    held = state["Alpha", hotkey, coldkey, netuid]
    amount = held if amount_unstaked == U64_MAX else amount_unstaked
    ensure(0 < amount <= held, PALLET, "NotEnoughStakeToWithdraw")
    ensure(amount >= MIN_STAKE or amount == held, PALLET, "AmountTooLow")
    _unstake(state, coldkey, hotkey, netuid, amount)


@dispatchable(PALLET, hotkey=account, netuid=u16, amount_staked=u64, limit_price=u64, allow_partial=boolean)
def add_stake_limit(
    state: State,
    origin: Origin,
    hotkey: str,
    netuid: int,
    amount_staked: int,
    limit_price: int,
    allow_partial: bool,  # a fixed price has no part of an order
) -> None:
    ensure(limit_price >= PRICE, PALLET, "SlippageTooHigh")
    add_stake(state, origin, hotkey, netuid, amount_staked)


@dispatchable(PALLET, hotkey=account, netuid=u16, amount_unstaked=u64, limit_price=u64, allow_partial=boolean)
def remove_stake_limit(
    state: State,
    origin: Origin,
    hotkey: str,
    netuid: int,
    amount_unstaked: int,
    limit_price: int,
    allow_partial: bool,
) -> None:
    ensure(limit_price <= PRICE, PALLET, "SlippageTooHigh")
    remove_stake(state, origin, hotkey, netuid, amount_unstaked)


@dispatchable(PALLET, hotkey=account)
def unstake_all(state: State, origin: Origin, hotkey: str) -> None:
    coldkey = signed(origin)
    for (_, _, netuid), held in state.items(PALLET, "Alpha", hotkey, coldkey):
        if held:
            _unstake(state, coldkey, hotkey, netuid, held)
