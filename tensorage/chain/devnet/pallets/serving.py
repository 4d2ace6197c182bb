"""Where a neuron can be reached: axon and Prometheus records.

One rule is looser than on the real chain, which refuses 127.0.0.1 and ::1: a devnet lives on one machine, so
loopback addresses are served.
"""

from __future__ import annotations

from typing import Any

from ..state import State
from .registry import Origin, dispatchable, ensure, octets, signed, u8, u16, u32, u128

PALLET = "SubtensorModule"
_AXON = {
    "netuid": u16,
    "version": u32,
    "ip": u128,
    "port": u16,
    "ip_type": u8,
    "protocol": u8,
    "placeholder1": u8,
    "placeholder2": u8,
}


def _address_is_valid(ip: int, ip_type: int) -> bool:
    return ip < 2**32 - 1 if ip_type == 4 else ip < 2**128 - 1


def _rate_allows(state: State, netuid: int, record: dict[str, Any] | None) -> bool:
    limit, last = int(state["ServingRateLimit", netuid]), int(record["block"]) if record else 0
    return limit == 0 or last == 0 or state.block - last >= limit


def _serve(state: State, item: str, netuid: int, hotkey: str, fields: dict[str, int], *, zero: bool) -> None:
    ensure(state["NetworksAdded", netuid], PALLET, "SubnetNotExists")
    ensure(state["Uids", netuid, hotkey] is not None, PALLET, "HotKeyNotRegisteredInNetwork")
    ensure(fields["ip_type"] in (4, 6), PALLET, "InvalidIpType")
    valid = _address_is_valid(fields["ip"], fields["ip_type"]) and (zero or fields["ip"] != 0)
    ensure(valid, PALLET, "InvalidIpAddress")
    ensure(_rate_allows(state, netuid, state[item, netuid, hotkey]), PALLET, "ServingRateLimitExceeded")
    ensure(fields["port"] != 0, PALLET, "InvalidPort")
    state[item, netuid, hotkey] = {"block": state.block, **fields}


@dispatchable(PALLET, params=_AXON, pays="owner")
def serve_axon(state: State, origin: Origin, netuid: int, **fields: int) -> None:
    hotkey = signed(origin)
    _serve(state, "Axons", netuid, hotkey, fields, zero=True)
    state.emit(PALLET, "AxonServed", [netuid, hotkey])


@dispatchable(PALLET, params=_AXON, pays="owner", certificate=octets)
def serve_axon_tls(state: State, origin: Origin, netuid: int, certificate: str, **fields: int) -> None:
    hotkey = signed(origin)
    _serve(state, "Axons", netuid, hotkey, fields, zero=True)
    raw = bytes.fromhex(certificate[2:])
    if 1 < len(raw) <= 65:
        state["NeuronCertificates", netuid, hotkey] = {
            "algorithm": raw[0],
            "public_key": f"0x{raw[1:].hex()}",
        }
    state.emit(PALLET, "AxonServed", [netuid, hotkey])


@dispatchable(PALLET, pays="owner", netuid=u16, version=u32, ip=u128, port=u16, ip_type=u8)
def serve_prometheus(state: State, origin: Origin, netuid: int, **fields: int) -> None:
    hotkey = signed(origin)
    _serve(state, "Prometheus", netuid, hotkey, fields, zero=False)
    state.emit(PALLET, "PrometheusServed", [netuid, hotkey])
