"""Which miners get the shards of a stripe. Pure.

Rules. No two shards of a stripe lie on one coldkey: one owner that leaves takes one shard. They spread over
networks (/24 of IPv4, /48 of IPv6) as evenly as the networks allow: a network gets its next shard only when
every other one that has a miner left has as many. Miners that have proven something come before those that
have not. Among equals the draw is weighted by score, with Efraimidis and Spirakis's keys (2006), which are
hashes of a seed here; so a client, which does not know the seed, cannot tell whom it will get.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from ..encoding import sha256, tag

DATA_SHARDS = 10
PARITY_SHARDS = 20
_PREFIX_BITS = {4: 24, 6: 48}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A miner that a shard may be put on.

    Attributes:
        hotkey, coldkey: SS58.
        network: as `network_of` names it.
        score: 0 for one that has proven nothing yet.
        free_chunks: shards that it can take now.
    """

    hotkey: str
    coldkey: str
    network: str
    score: float
    free_chunks: int


@dataclass(frozen=True, slots=True)
class Taken:
    """Where a shard of the stripe is already; the network is empty when it is not known."""

    coldkey: str
    network: str


@lru_cache(maxsize=4096)  # of all miners, whenever anybody asks what the network can bear
def network_of(ip: str) -> str:
    """The network that an address counts as: its /24, or its /48 of IPv6."""
    address = ip_address(ip)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(ip_network(f"{address}/{_PREFIX_BITS[address.version]}", strict=False))


def choose(
    candidates: Iterable[Candidate], taken: Sequence[Taken], wanted: int, seed: bytes
) -> list[Candidate]:
    """Up to `wanted` miners for further shards of a stripe, each of another coldkey; fewer only when there
    are no more coldkeys.

    Args:
        taken: shards that the stripe has, whose coldkeys are out.
        seed: 32 bytes that nobody foresees; the same seed chooses the same.
    """
    coldkeys = {place.coldkey for place in taken}
    count = Counter(place.network for place in taken if place.network)
    chosen: list[Candidate] = []
    free = [candidate for candidate in candidates if candidate.free_chunks > 0]
    for proven in (True, False):
        tier = [candidate for candidate in free if (candidate.score > 0) is proven]
        tier.sort(key=lambda candidate: (_key(candidate, seed), candidate.hotkey))
        while len(chosen) < wanted:
            left = [candidate for candidate in tier if candidate.coldkey not in coldkeys]
            if not left:
                break
            best = min(left, key=lambda candidate: count[candidate.network])
            chosen.append(best)
            coldkeys.add(best.coldkey)
            count[best.network] += 1
    return chosen


def bearable(coldkeys: int) -> tuple[int, int]:
    """(data shards, parity shards) for a network of so many coldkeys with room: 10 of 30, or a third of
    what there is, and at least one."""
    shards = min(DATA_SHARDS + PARITY_SHARDS, max(1, coldkeys))
    data = max(1, shards * DATA_SHARDS // (DATA_SHARDS + PARITY_SHARDS))
    return data, shards - data


def note(coldkeys: int, networks: int) -> str:
    """What to tell a user of a network that is small; empty of one that is not."""
    shards = DATA_SHARDS + PARITY_SHARDS
    if not coldkeys:
        return "no miner has room at the moment"
    where = _counted(networks, "network")
    if coldkeys < shards:
        width = sum(bearable(coldkeys))
        owners = _counted(coldkeys, "owner")
        text = f"miners with room have {owners}, so a file gets {width} shards instead of {shards}"
        return text if networks >= coldkeys else f"{text}; they lie on {where}"
    if networks < shards:
        return f"miners lie on {where}, so some shards of a file share one"
    return ""


def _counted(count: int, what: str) -> str:
    return f"only {count} {what}{'' if count == 1 else 's'}"


def _key(candidate: Candidate, seed: bytes) -> float:
    """An exponential draw with the score for its rate: the least of them is drawn first."""
    digest = sha256(tag("tensorage/placement/v1") + seed + candidate.hotkey.encode())
    draw = (int.from_bytes(digest[:8], "big") + 1) / 2**64
    return -math.log(draw) / (candidate.score if candidate.score > 0 else 1.0)
