"""What an operator sees of clients' shards, beside the axon's own counters."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class ShardMetrics:
    """Counters of one miner.

    Args:
        registry: the axon's.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._stored = Gauge(
            "tensorage_shards", "Shards that are kept for clients, without the trash", registry=registry
        )
        self._bytes = Counter(
            "tensorage_shard_bytes",
            "Bytes of shards taken in and given out",
            ("direction",),
            registry=registry,
        )
        self._uploads = Counter("tensorage_shard_uploads", "Shards taken in", registry=registry)
        self._pieces = Counter("tensorage_shard_pieces", "Pieces of shards given out", registry=registry)
        for direction in ("in", "out"):
            self._bytes.labels(direction)

    def kept(self, shards: int) -> None:
        """So many shards are kept now."""
        self._stored.set(shards)

    def taken(self, size: int) -> None:
        """A shard of `size` bytes was stored."""
        self._uploads.inc()
        self._bytes.labels("in").inc(size)

    def given(self, size: int) -> None:
        """A piece with `size` bytes of leaves was read for somebody."""
        self._pieces.inc()
        self._bytes.labels("out").inc(size)
