"""The table of dispatchables: which calls the devnet's runtime has, and the types of their parameters.

A dispatchable is a function on the state. Its origin is an account (SS58) or `ROOT`. It raises
`DispatchError`, after which the dispatcher undoes what it wrote. A parameter's type is a function that
returns the canonical value or raises ValueError, as the real chain's encoding would refuse it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bittensor import ChainError as SdkChainError
from bittensor.sp_core import ss58_decode

from ..calls import Call
from ..errors import DispatchError
from ..state import State

ROOT = ""
Origin = str
Kind = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Dispatchable:
    """A call of the runtime. `pays` is who pays its fee: the "signer", or the "owner" of a signing hotkey."""

    run: Callable[..., None]
    params: dict[str, Kind]
    pays: str


CALLS: dict[tuple[str, str], Dispatchable] = {}


def dispatchable(
    pallet: str, name: str = "", params: dict[str, Kind] | None = None, *, pays: str = "signer", **more: Kind
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Enter a function into the table under its own name, or `name`, with its parameters' kinds."""

    def enter(function: Callable[..., None]) -> Callable[..., None]:
        CALLS[pallet, name or function.__name__] = Dispatchable(function, {**(params or {}), **more}, pays)
        return function

    return enter


def lookup(call: Call) -> Dispatchable:
    """The dispatchable that `call` names.

    Raises:
        bittensor.ChainError: the devnet has no such call.
    """
    found = CALLS.get((call.module, call.function))
    if found is None:
        raise SdkChainError(
            f'Call function "{call.module}.{call.function}" not found: the devnet has no such call'
        )
    return found


def check(call: Call) -> Call:
    """The call with its parameters, and those of calls inside, in canonical form.

    Raises:
        bittensor.ChainError: there is no such call, or a parameter is missing, unknown or of a wrong type.
    """
    expected = lookup(call).params
    where = f"{call.module}.{call.function}"
    if set(call.params) != set(expected):
        odd = sorted(set(call.params) ^ set(expected))
        raise SdkChainError(f"{where} takes the parameters {sorted(expected)}; wrong or missing: {odd}")
    checked = {}
    for name, kind in expected.items():
        try:
            checked[name] = kind(call.params[name])
        except (ValueError, TypeError) as error:
            raise SdkChainError(f"parameter {name} of {where}: {error}") from error
    return Call(call.module, call.function, checked)


def dispatch(state: State, origin: Origin, call: Call) -> None:
    """Run a checked call; what it wrote stays only if it succeeds.

    Raises:
        DispatchError: it failed.
    """
    with state.layer():
        lookup(call).run(state, origin, **call.params)


def signed(origin: Origin) -> str:
    """The account of a signed origin.

    Raises:
        DispatchError: the origin is root.
    """
    if origin == ROOT:
        raise DispatchError("", "BadOrigin")
    return origin


def ensure(condition: bool, pallet: str, name: str) -> None:
    """Fail the call with an error unless `condition`."""
    if not condition:
        raise DispatchError(pallet, name)


# Kinds of parameters ----------------------------------------------------------


def unsigned(bits: int) -> Kind:
    """An unsigned integer of that many bits."""

    def kind(value: Any) -> int:
        if isinstance(value, dict) and set(value) == {"bits"}:
            value = value["bits"]
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{value!r:.40} is no integer")
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{value} does not fit u{bits}")
        return value

    return kind


u8, u16, u32, u64, u128 = (unsigned(bits) for bits in (8, 16, 32, 64, 128))


def i16(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(1 << 15) <= value < 1 << 15:
        raise ValueError(f"{value!r:.40} is no i16")
    return value


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r:.40} is no boolean")
    return value


def account(value: Any) -> str:
    """An account: SS58, or as a multi-address `{"Id": SS58}`."""
    if isinstance(value, dict) and set(value) == {"Id"}:
        value = value["Id"]
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no SS58 address")
    try:
        ss58_decode(value)
    except ValueError as error:
        raise ValueError(f"{value!r:.60} is no SS58 address") from error
    return value


def octets(value: Any) -> str:
    """Bytes, kept as 0x-hex; byte values and plain text are taken too, as the SDK's encoder does."""
    if isinstance(value, str) and value.startswith("0x"):
        bytes.fromhex(value[2:])
        return value.lower()
    if isinstance(value, str):
        return f"0x{value.encode().hex()}"
    if isinstance(value, list):
        return f"0x{bytes(value).hex()}"
    raise TypeError(f"{value!r:.40} are no bytes")


def hash256(value: Any) -> str:
    """A 32-byte hash, kept as 0x-hex."""
    text = octets(value)
    if len(text) != 66:
        raise ValueError(f"{(len(text) - 2) // 2} bytes are no 32-byte hash")
    return text


def list_of(kind: Kind) -> Kind:
    """A list of values of that kind."""

    def check_list(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise TypeError(f"{value!r:.40} is no list")
        return [kind(entry) for entry in value]

    return check_list


def anything(value: Any) -> Any:
    return value


def inner_call(value: Any) -> Call:
    """A composed call as a parameter, itself checked."""
    if not isinstance(value, Call):
        raise TypeError(f"{value!r:.40} is no composed call")
    return check(value)
