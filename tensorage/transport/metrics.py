"""Prometheus metrics of an axon: requests by route, method and status, and how long they took.

The page itself is served on a port of its own (`--metrics.port`), on the loopback address unless told
otherwise, so that what an operator measures is not what a peer sees. Labels come from fixed sets: the
routes' templates, never a path that a peer made up.
"""

from __future__ import annotations

import errno

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

from ..errors import UsageError

_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD"})
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 10, 30)


class Metrics:
    """Counters of one process; services may add their own to `registry`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "tensorage_axon_requests",
            "Requests answered",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "tensorage_axon_seconds", "Time to answer", ("route",), buckets=_BUCKETS, registry=self.registry
        )

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request. `route` is the template; status 0 means that the connection was lost."""
        self._requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def serve(self, port: int, host: str = "127.0.0.1") -> None:
        """Serve the page in a thread until the process ends; port 0 is off.

        Raises:
            UsageError: the port cannot be had.
        """
        if port == 0:
            return
        try:
            start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            what = "in use" if error.errno == errno.EADDRINUSE else str(error)
            raise UsageError(
                f"metrics port {port} on {host}: {what}",
                remedy="Choose another with --metrics.port, or 0 for none",
            ) from error
