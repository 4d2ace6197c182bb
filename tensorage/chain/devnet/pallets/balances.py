"""TAO: free balances, transfers, fees. Amounts are in rao, 10**9 to the TAO."""

from __future__ import annotations

from ..errors import DispatchError
from ..state import State
from .registry import Origin, account, boolean, dispatchable, signed, u64

EXISTENTIAL_DEPOSIT = 500
_BASE_FEE = 100_000
_BYTE_FEE = 50


def fee(size: int) -> int:
    """The fee, in rao, of an extrinsic of `size` bytes: about 0.00012 TAO, as on the real chain."""
    return _BASE_FEE + _BYTE_FEE * size


def free(state: State, who: str) -> int:
    """The spendable balance of an account."""
    return int(state.get("System", "Account", who)["data"]["free"])


def deposit(state: State, who: str, amount: int) -> None:
    """Give an account `amount`, out of nothing or out of what was withdrawn elsewhere."""
    record = state.get("System", "Account", who)
    record["data"]["free"] += amount
    record["providers"] = 1
    state.put("System", "Account", who, value=record)


def withdraw(state: State, who: str, amount: int, *, keep: int = 0) -> bool:
    """Take `amount` from an account if it leaves at least `keep`; whether it did."""
    record = state.get("System", "Account", who)
    if record["data"]["free"] - amount < keep:
        return False
    record["data"]["free"] -= amount
    state.put("System", "Account", who, value=record)
    return True


def issue(state: State, amount: int) -> None:
    """Change the total issuance by `amount`, which is negative for what is burned."""
    for pallet, item in (("Balances", "TotalIssuance"), ("SubtensorModule", "TotalIssuance")):
        state.put(pallet, item, value=max(0, state.get(pallet, item) + amount))


def next_nonce(state: State, who: str) -> int:
    return int(state.get("System", "Account", who)["nonce"])


def use_nonce(state: State, who: str) -> None:
    record = state.get("System", "Account", who)
    record["nonce"] += 1
    state.put("System", "Account", who, value=record)


def transfer(state: State, source: str, dest: str, amount: int, *, keep: int) -> None:
    """Move TAO.

    Raises:
        DispatchError: the source has not enough, or the destination would stay below the existential deposit.
    """
    if free(state, source) < amount:
        raise DispatchError("Token", "FundsUnavailable")
    if free(state, dest) + amount < EXISTENTIAL_DEPOSIT:
        raise DispatchError("Token", "BelowMinimum")
    if not withdraw(state, source, amount, keep=keep):
        raise DispatchError("Token", "NotExpendable")
    deposit(state, dest, amount)
    state.emit("Balances", "Transfer", {"from": source, "to": dest, "amount": amount})


@dispatchable("Balances", dest=account, value=u64)
def transfer_keep_alive(state: State, origin: Origin, dest: str, value: int) -> None:
    transfer(state, signed(origin), dest, value, keep=EXISTENTIAL_DEPOSIT)


@dispatchable("Balances", dest=account, value=u64)
def transfer_allow_death(state: State, origin: Origin, dest: str, value: int) -> None:
    transfer(state, signed(origin), dest, value, keep=0)


@dispatchable("Balances", dest=account, keep_alive=boolean)
def transfer_all(state: State, origin: Origin, dest: str, keep_alive: bool) -> None:
    who = signed(origin)
    keep = EXISTENTIAL_DEPOSIT if keep_alive else 0
    transfer(state, who, dest, max(0, free(state, who) - keep), keep=keep)


@dispatchable("Balances", who=account, new_free=u64)
def force_set_balance(state: State, origin: Origin, who: str, new_free: int) -> None:
    """Root only."""
    if origin:
        raise DispatchError("", "BadOrigin")
    difference = new_free - free(state, who)
    deposit(state, who, difference)
    issue(state, difference)
    state.emit("Balances", "BalanceSet", {"who": who, "free": new_free})
