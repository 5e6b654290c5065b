"""The gateway's metrics, shown in Prometheus' format. Label sets are bounded: a client cannot add a time series.

`model` and `server` are only labels once the registry knows them; everything else is counted as `unknown`. Requests are
counted in plain cells, a handful of additions each, and become Prometheus' families when somebody asks for them.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .record import Record

# From a cached reply to the longest a request may live; the steps are those people ask about.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

Gauges = Callable[[], Iterator[tuple[str, str, float]]]


class _Histogram:
    """Observations in seconds, counted in buckets of `SECONDS`."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(SECONDS, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus wants them."""
        rows, reached = [], 0
        for bound, count in zip((*(str(float(second)) for second in SECONDS), "+Inf"), self.counts, strict=True):
            reached += count
            rows.append((bound, float(reached)))
        return rows


class Metrics:
    """One per gateway, so that several gateways can live in one process (tests do that)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Families(self))
        self.in_flight = 0
        self.connections = 0
        self.retries = 0
        self.wasted_tokens = 0
        self.gauges: list[Gauges] = []
        self.requests: dict[tuple[str, str, str, int, str, str], int] = {}
        self.durations: dict[str, _Histogram] = {}
        self.first_bytes: dict[str, _Histogram] = {}
        self.queued: dict[str, _Histogram] = {}
        self.tokens: dict[tuple[str, str], int] = {}

    def observe(self, record: Record) -> None:
        """Count one finished request."""
        model, endpoint = record.model or "unknown", record.endpoint
        cell = (endpoint, model, record.server_id or "none", record.status, record.outcome, record.source)
        self.requests[cell] = self.requests.get(cell, 0) + 1
        _of(self.durations, endpoint).observe(record.duration)
        if record.first_byte is not None:
            _of(self.first_bytes, endpoint).observe(record.first_byte)
        if record.queued:
            _of(self.queued, endpoint).observe(record.queued)
        if record.attempts > 1:
            self.retries += record.attempts - 1
        usage = record.usage
        if usage is not None:
            tokens = self.tokens
            tokens[model, "prompt"] = tokens.get((model, "prompt"), 0) + usage.prompt_tokens
            tokens[model, "completion"] = tokens.get((model, "completion"), 0) + usage.completion_tokens
            if record.outcome == "client_gone":
                self.wasted_tokens += usage.completion_tokens

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)


class _Families(Collector):
    """What has been counted, as Prometheus' client library shows it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        requests = CounterMetricFamily(
            "quiver_requests",
            "Requests by what became of them",
            labels=["endpoint", "model", "server", "status", "outcome", "source"],
        )
        for cell, count in metrics.requests.items():
            requests.add_metric([str(label) for label in cell], count)
        yield requests
        yield _histograms("quiver_request_seconds", "Whole duration", metrics.durations)
        yield _histograms(
            "quiver_first_byte_seconds",
            "From the request's last byte to the reply's first content",
            metrics.first_bytes,
        )
        yield _histograms("quiver_queue_seconds", "Wait for a free server, of requests that waited", metrics.queued)
        tokens = CounterMetricFamily("quiver_tokens", "Tokens by direction", labels=["model", "direction"])
        for labels, count in metrics.tokens.items():
            tokens.add_metric(labels, count)
        yield tokens
        yield CounterMetricFamily("quiver_retries", "Attempts after the first", value=metrics.retries)
        yield CounterMetricFamily(
            "quiver_wasted_tokens", "Tokens made for clients that had left", value=metrics.wasted_tokens
        )
        yield GaugeMetricFamily("quiver_in_flight", "Requests being worked on", value=metrics.in_flight)
        yield GaugeMetricFamily("quiver_connections", "Open client connections", value=metrics.connections)
        for gauges in metrics.gauges:
            for name, meaning, value in gauges():
                yield GaugeMetricFamily(name, meaning, value=value)


def _histograms(name: str, meaning: str, cells: dict[str, _Histogram]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, meaning, labels=["endpoint"])
    for endpoint, histogram in cells.items():
        family.add_metric([endpoint], histogram.buckets(), histogram.total)
    return family


def _of(cells: dict[str, _Histogram], endpoint: str) -> _Histogram:
    found = cells.get(endpoint)
    if found is None:
        found = cells[endpoint] = _Histogram()
    return found
