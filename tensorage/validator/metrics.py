"""What a validator adds to the metrics of its axon."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from ..receipts import Verdict
from .round import Report


class RoundMetrics:
    """Rounds and verdicts, for Prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._verdicts = Counter(
            "tensorage_challenges", "Challenges by verdict", ("verdict",), registry=registry
        )
        self._round = Gauge("tensorage_round", "Number of the newest round", registry=registry)
        self._ended = Gauge(
            "tensorage_round_ended_seconds", "When the newest round ended, Unix time", registry=registry
        )
        self._seconds = Gauge("tensorage_round_seconds", "How long the newest round took", registry=registry)
        for verdict in Verdict:
            self._verdicts.labels(verdict.word)

    def ended(self, report: Report) -> None:
        """A round has ended."""
        for verdict, count in report.verdicts.items():
            self._verdicts.labels(verdict.word).inc(count)
        self._round.set(report.number)
        self._seconds.set(report.seconds)
        self._ended.set_to_current_time()
