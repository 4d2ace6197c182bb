"""A miner that is its own client: what docs/scoring.md says it gains, with the gateway's own placement."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from tensorage.encoding import sha256, u64
from tensorage.gateway.placement import Candidate, choose
from tensorage.validator import scoring
from tensorage.validator.scoring import Standing

MINERS, SHARDS = 100, 30
SHARD = 4 << 20
DISK = 10_000 * SHARD  # of every miner but the dealer
CLEAN = Standing(round=1, passed=1e6, sampled=1e6, answered=1e3, latency=0.1, fetch_rate=1.0)


def score(credited: float, served: float) -> float:
    return scoring.score(replace(CLEAN, credited_bytes=int(credited), served_bytes=served))


def place(scores: dict[str, float], stripes: int, owner: dict[str, str]) -> Counter[str]:
    """Shards that each miner gets of so many stripes."""
    candidates = [
        Candidate(hotkey, owner[hotkey], f"network of {hotkey}", earned, 1 << 40)
        for hotkey, earned in scores.items()
    ]
    got: Counter[str] = Counter()
    for stripe in range(stripes):
        chosen = choose(candidates, [], SHARDS, sha256(b"stripe" + u64(stripe)))
        got.update(candidate.hotkey for candidate in chosen)
    return got


@pytest.mark.parametrize("hotkeys", [1, 5])
def test_reading_its_own_shards_all_day_earns_less_than_the_same_disk_filled(hotkeys):
    owner = {f"{number}": f"owner {number}" for number in range(MINERS)}
    dealer = [f"{number}" for number in range(hotkeys)]  # several coldkeys, so that a stripe may fall on all
    scores = {hotkey: score(DISK, 0) for hotkey in owner}
    share = hotkeys / MINERS
    stripes = 400
    uploaded = stripes * SHARDS * SHARD
    got = place(scores, stripes, owner)
    own = sum(got[hotkey] for hotkey in dealer) * SHARD
    assert own / uploaded == pytest.approx(share, rel=0.35)  # what it cannot choose

    before = sum(scores[hotkey] for hotkey in dealer)
    dealing = sum(score(DISK, got[hotkey] * SHARD) for hotkey in dealer) - before
    filling = score(hotkeys * DISK + uploaded, 0) - before
    assert 0 < dealing <= 0.5 * own
    assert dealing / filling == pytest.approx(share / 2, rel=0.4)
    # Even if it keeps none of its own shards, as it can make their bytes again, and fills that disk too.
    assert dealing + own < filling


def test_to_reach_the_cap_a_dealer_needs_quota_for_a_fifth_of_the_network_whatever_its_own_share():
    rng = random.Random(7)
    for share in (0.01, 0.05, 0.2):
        network = rng.uniform(1e12, 1e15)
        disk = share * network
        for of_network, gain in ((0.01, 0.005), (0.1, 0.05), (0.2, 0.1), (0.4, 0.1)):
            own = share * of_network * network
            assert score(disk, own) / score(disk, 0) - 1 == pytest.approx(gain, rel=1e-6)
            filled = score(disk + of_network * network, 0) / score(disk, 0) - 1
            assert gain / filled <= share / 2 * (1 + 1e-6)


def test_an_honest_miner_that_serves_what_clients_read_gains_by_the_same_formula():
    rng = random.Random(1)
    read = rng.uniform(0, 0.3) * DISK
    gain = score(DISK, read) / score(DISK, 0) - 1
    assert gain == pytest.approx(min(0.1, 0.5 * read / DISK))
