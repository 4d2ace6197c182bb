"""Calls: what a transaction asks the runtime to do.

The real chain encodes calls by the metadata of its runtime; the devnet writes them as canonical JSON, with
bytes as 0x-hex and accounts as SS58, so that a signature covers one spelling only. Everything above the
SDK's `Substrate` contract treats the bytes as opaque.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any

from bittensor import ChainError as SdkChainError

SPEC_VERSION = 476


@dataclass(frozen=True)
class Call:
    """A composed call. `params` are canonical; a nested call is a `Call`."""

    module: str
    function: str
    params: dict[str, Any]
    spec_version: int = field(default=SPEC_VERSION)

    @cached_property
    def data(self) -> bytes:
        return encode(self.to_value())

    @cached_property
    def call_hash(self) -> bytes:
        return blake2b(self.data, digest_size=32).digest()

    def to_value(self) -> dict[str, Any]:
        """The call as JSON."""
        return {"call": f"{self.module}.{self.function}", "params": plain(self.params)}

    def to_decoded(self) -> dict[str, Any]:
        """The call in the shape in which the SDK shows decoded extrinsics."""
        return {
            "call_module": self.module,
            "call_function": self.function,
            "call_hash": f"0x{self.call_hash.hex()}",
            "call_args": [{"name": name, "value": _decoded(value)} for name, value in self.params.items()],
        }


def _decoded(value: Any) -> Any:
    if isinstance(value, Call):
        return value.to_decoded()
    if isinstance(value, list):
        return [_decoded(entry) for entry in value]
    return value


def encode(value: Any) -> bytes:
    """Canonical JSON."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def plain(value: Any) -> Any:
    """A parameter as JSON.

    Raises:
        bittensor.ChainError: it has no canonical form.
    """
    if isinstance(value, Call):
        return value.to_value()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"0x{bytes(value).hex()}"
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    raise SdkChainError(f"cannot encode a parameter of type {type(value).__name__}: {value!r:.80}")


def _canonical(value: Any) -> Any:
    """A parameter for `Call.params`: canonical, but nested calls stay calls."""
    if isinstance(value, Call):
        return value
    if isinstance(value, (list, tuple)):
        return [_canonical(entry) for entry in value]
    return plain(value)


def compose(module: str, function: str, params: Mapping[str, Any]) -> Call:
    """A call from a builder of `bittensor.calls`; whether the runtime has it is checked by the runtime."""
    return Call(module, function, {name: _canonical(value) for name, value in params.items()})


def decode(value: Any) -> Call:
    """The call that `Call.to_value` wrote.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, dict) or set(value) != {"call", "params"}:
        raise ValueError("no call")
    module, dot, function = str(value["call"]).partition(".")
    if not dot or not isinstance(value["params"], dict):
        raise ValueError("no call")
    return Call(module, function, {name: _decode_param(entry) for name, entry in value["params"].items()})


def _decode_param(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"call", "params"}:
        return decode(value)
    if isinstance(value, list):
        return [_decode_param(entry) for entry in value]
    return value
