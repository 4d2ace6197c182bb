"""What an operator sees of clients' shards."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from tensorage.miner.metrics import ShardMetrics


def test_shards_and_their_bytes_are_counted_both_ways():
    registry = CollectorRegistry()
    metrics = ShardMetrics(registry)
    assert registry.get_sample_value("tensorage_shard_bytes_total", {"direction": "out"}) == 0
    metrics.kept(3)
    metrics.kept(2)
    metrics.taken(65536)
    metrics.taken(131072)
    metrics.given(4096)
    seen = registry.get_sample_value
    assert seen("tensorage_shards") == 2
    assert seen("tensorage_shard_uploads_total") == 2
    assert seen("tensorage_shard_pieces_total") == 1
    assert seen("tensorage_shard_bytes_total", {"direction": "in"}) == 196608
    assert seen("tensorage_shard_bytes_total", {"direction": "out"}) == 4096
