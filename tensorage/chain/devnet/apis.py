"""The runtime APIs that the SDK and btcli call, over a view of the state.

A method takes the view and its parameters in the order of the real runtime's, and returns plain values in the
shape in which the SDK's transport decodes the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bittensor import ChainError as SdkChainError

from . import epoch, metagraph
from .pallets import registration, stake
from .state import View

Method = Callable[..., Any]
METHODS: dict[tuple[str, str], tuple[Method, tuple[str, ...]]] = {}
_SUBTENSOR = "SubtensorModule"


def _method(api: str, *names: str) -> Callable[[Method], Method]:
    def enter(function: Method) -> Method:
        METHODS[api, function.__name__] = (function, names)
        return function

    return enter


def call(view: View, api: str, method: str, params: Sequence[Any] | Mapping[str, Any]) -> Any:
    """Call a runtime API by name.

    Raises:
        bittensor.ChainError: the devnet has no such API, or the parameters do not fit.
    """
    found = METHODS.get((api, method))
    if found is None:
        raise SdkChainError(f"Runtime API {api}.{method} not found: the devnet has no such API")
    function, names = found
    values = (
        [params[name] for name in names if name in params] if isinstance(params, Mapping) else list(params)
    )
    if len(values) != len(names):
        raise SdkChainError(f"{api}.{method} takes {list(names)}, not {params!r:.80}")
    return function(view, *values)


# Subnets ----------------------------------------------------------------------


@_method("SubnetInfoRuntimeApi", "netuid")
def get_metagraph(view: View, netuid: int) -> dict[str, Any] | None:
    return metagraph.build(view, int(netuid))


@_method("SubnetInfoRuntimeApi", "netuid", "mecid")
def get_mechagraph(view: View, netuid: int, mecid: int) -> dict[str, Any] | None:
    return metagraph.build(view, int(netuid)) if int(mecid) < view["MechanismCountCurrent", netuid] else None


@_method("SubnetInfoRuntimeApi")
def get_all_metagraphs(view: View) -> list[dict[str, Any] | None]:
    return [metagraph.build(view, key[0]) for key, added in view.items(_SUBTENSOR, "NetworksAdded") if added]


@_method("SubnetInfoRuntimeApi", "netuid")
def get_subnet_hyperparams_v3(view: View, netuid: int) -> list[dict[str, Any]] | None:
    return metagraph.hyperparameters(view, int(netuid))


@_method("SubnetInfoRuntimeApi", "netuid")
def get_next_epoch_start_block(view: View, netuid: int) -> int | None:
    return epoch.next_start(view, int(netuid))


@_method("SubnetInfoRuntimeApi")
def get_subnet_to_prune(view: View) -> None:
    """No subnet is ever dissolved to make room."""


@_method("SubnetInfoRuntimeApi")
def get_block_emission(view: View) -> int:
    return registration.BLOCK_EMISSION


@_method("SubnetRegistrationRuntimeApi")
def get_network_registration_cost(view: View) -> int:
    return registration.lock_cost(view, view.block)


# Neurons ----------------------------------------------------------------------


@_method("NeuronInfoRuntimeApi", "netuid")
def get_neurons_lite(view: View, netuid: int) -> list[dict[str, Any]]:
    return metagraph.neurons(view, int(netuid), lite=True)


@_method("NeuronInfoRuntimeApi", "netuid")
def get_neurons(view: View, netuid: int) -> list[dict[str, Any]]:
    return metagraph.neurons(view, int(netuid), lite=False)


def _neuron(view: View, netuid: int, uid: int, *, lite: bool) -> dict[str, Any] | None:
    found = metagraph.neurons(view, netuid, lite=lite)
    return found[uid] if 0 <= uid < len(found) else None


@_method("NeuronInfoRuntimeApi", "netuid", "uid")
def get_neuron_lite(view: View, netuid: int, uid: int) -> dict[str, Any] | None:
    return _neuron(view, int(netuid), int(uid), lite=True)


@_method("NeuronInfoRuntimeApi", "netuid", "uid")
def get_neuron(view: View, netuid: int, uid: int) -> dict[str, Any] | None:
    return _neuron(view, int(netuid), int(uid), lite=False)


# Stake ------------------------------------------------------------------------


def _position(view: View, hotkey: str, coldkey: str, netuid: int, amount: int) -> dict[str, Any]:
    return {
        "hotkey": hotkey,
        "coldkey": coldkey,
        "netuid": netuid,
        "stake": amount,
        "locked": 0,
        "emission": 0,
        "tao_emission": 0,
        "drain": 0,
        "is_registered": view["Uids", netuid, hotkey] is not None,
    }


@_method("StakeInfoRuntimeApi", "coldkey_account")
def get_stake_info_for_coldkey(view: View, coldkey: str) -> list[dict[str, Any]]:
    return [
        _position(view, hotkey, coldkey, netuid, amount)
        for hotkey in view["StakingHotkeys", coldkey]
        for (_, _, netuid), amount in view.items(_SUBTENSOR, "Alpha", hotkey, coldkey)
        if amount
    ]


@_method("StakeInfoRuntimeApi", "coldkey_accounts")
def get_stake_info_for_coldkeys(
    view: View, coldkeys: Sequence[str]
) -> list[tuple[str, list[dict[str, Any]]]]:
    return [(coldkey, get_stake_info_for_coldkey(view, coldkey)) for coldkey in coldkeys]


@_method("StakeInfoRuntimeApi", "hotkey_account", "coldkey_account", "netuid")
def get_stake_info_for_hotkey_coldkey_netuid(
    view: View, hotkey: str, coldkey: str, netuid: int
) -> dict[str, Any]:
    return _position(view, hotkey, coldkey, int(netuid), int(view["Alpha", hotkey, coldkey, int(netuid)]))


@_method("StakeInfoRuntimeApi", "coldkeys", "netuids")
def get_stake_availability_for_coldkeys(
    view: View, coldkeys: Sequence[str], netuids: Sequence[int] | None
) -> dict[str, dict[int, dict[str, int]]]:
    """Nothing is ever locked on a devnet."""
    found: dict[str, dict[int, dict[str, int]]] = {}
    for coldkey in coldkeys:
        totals = {int(netuid): 0 for netuid in netuids or ()}
        for position in get_stake_info_for_coldkey(view, coldkey):
            if netuids is None or position["netuid"] in totals:
                totals[position["netuid"]] = totals.get(position["netuid"], 0) + position["stake"]
        found[coldkey] = {
            netuid: {"total": total, "locked": 0, "available": total} for netuid, total in totals.items()
        }
    return found


@_method("StakeInfoRuntimeApi", "origin", "origin_coldkey", "destination", "destination_coldkey", "amount")
def get_stake_fee(
    view: View, origin: Any, origin_coldkey: str, destination: Any, destination_coldkey: str, amount: int
) -> int:
    return 0


@_method("StakeInfoRuntimeApi", "coldkey", "netuid")
def get_coldkey_lock(view: View, coldkey: str, netuid: int) -> None:
    """Conviction locks are no part of a devnet."""


# Root dividends, of which a devnet has none -------------------------------------


@_method("BetaBasketRuntimeApi", "coldkey")
def get_root_basket_owed(view: View, coldkey: str) -> int:
    return 0


@_method("BetaBasketRuntimeApi", "coldkey")
def get_root_basket_positions(view: View, coldkey: str) -> list[Any]:
    return []


@_method("BetaBasketRuntimeApi", "hotkey", "coldkey")
def get_basket_payout(view: View, hotkey: str, coldkey: str) -> int:
    return 0


# Prices -----------------------------------------------------------------------


@_method("SwapRuntimeApi", "netuid")
def current_alpha_price(view: View, netuid: int) -> int:
    return stake.PRICE


@_method("SwapRuntimeApi")
def current_alpha_price_all(view: View) -> list[dict[str, int]]:
    added = view.items(_SUBTENSOR, "NetworksAdded")
    return [{"netuid": key[0], "price": stake.PRICE} for key, value in added if value]


def _swap(amount: int) -> dict[str, int]:
    return {
        "tao_amount": amount,
        "alpha_amount": amount,
        "tao_fee": 0,
        "alpha_fee": 0,
        "tao_slippage": 0,
        "alpha_slippage": 0,
    }


@_method("SwapRuntimeApi", "netuid", "tao")
def sim_swap_tao_for_alpha(view: View, netuid: int, tao: int) -> dict[str, int]:
    return _swap(int(tao))


@_method("SwapRuntimeApi", "netuid", "alpha")
def sim_swap_alpha_for_tao(view: View, netuid: int, alpha: int) -> dict[str, int]:
    return _swap(int(alpha))


@_method("AccountNonceApi", "account")
def account_nonce(view: View, account: str) -> int:
    return int(view.get("System", "Account", account)["nonce"])
