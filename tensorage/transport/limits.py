"""What one peer may ask of an axon: sizes, times and rates.

Pure: the time is passed in, in seconds of any steady clock. What is remembered is bounded whatever peers do:
a bucket a key, and the key that was used longest ago is forgotten first. IPv6 addresses are counted by /64,
since whoever has one address there has them all.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: `burst` requests at once, refilled at `per_second`."""

    per_second: float
    burst: float

    def __post_init__(self) -> None:
        if self.per_second <= 0 or self.burst < 1:
            raise ValueError(
                f"a rate of {self.per_second}/s with a burst of {self.burst} lets nothing through"
            )


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps of an axon. Sizes are in bytes, times in seconds.

    Attributes:
        max_body: largest request body, unless the route says otherwise.
        max_headers: largest request line and headers together.
        header_seconds: from the first byte of a request (or the connection) to the end of its headers.
        idle_seconds: longest silence inside a body.
        total_seconds: from the end of the headers to the last byte of the answer.
        keep_alive_seconds: how long a connection may wait for its next request.
        close_seconds: how long a connection that is being closed may take to accept what was sent.
        max_connections: open connections in all; `connections_per_address` from one address.
        max_uploads: bodies that are being taken piece by piece; `uploads_per_address` from one address.
        per_address: requests from one address, signed or not.
        per_hotkey: requests signed by one hotkey, or by one client's key.
    """

    max_body: int = 64 * 1024
    max_headers: int = 16 * 1024
    header_seconds: float = 5.0
    idle_seconds: float = 5.0
    total_seconds: float = 30.0
    keep_alive_seconds: int = 15
    close_seconds: float = 2.0
    max_connections: int = 512
    connections_per_address: int = 64
    max_uploads: int = 64
    uploads_per_address: int = 24
    per_address: Rate = Rate(per_second=100, burst=400)
    per_hotkey: Rate = Rate(per_second=50, burst=200)


class TokenBuckets:
    """One token bucket for each key; every bucket starts full.

    Args:
        rate: what each key may do.
        max_keys: how many keys are remembered at most.
    """

    def __init__(self, rate: Rate, *, max_keys: int = 10_000) -> None:
        self._rate = rate
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def spend(self, key: str, now: float) -> float:
        """Take one token of `key`: 0 when there was one, else the seconds until there is."""
        tokens, then = self._buckets.pop(key, (self._rate.burst, now))
        tokens = min(self._rate.burst, tokens + max(0.0, now - then) * self._rate.per_second)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._rate.per_second


def address_key(address: str) -> str:
    """The key under which an IP address is counted: itself, its /64 for IPv6, or the IPv4 it maps.

    What is no IP address (a Unix socket's peer) is its own key.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
