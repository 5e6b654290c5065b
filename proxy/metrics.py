"""The gateway's metrics, shown in Prometheus' format. Label sets are bounded: a client cannot add a time series.

`model` and `server` are only labels once the registry knows them; everything else is counted as `unknown`. Requests are
counted in plain cells, a handful of additions each, and become Prometheus' families when somebody asks for them.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .histogram import Histogram
from .record import Record

# Endpoint, model, server, status, outcome, source.
Labels = tuple[str, str, str, int, str, str]


Family = GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily
FAMILIES: dict[str, type[GaugeMetricFamily] | type[CounterMetricFamily] | type[HistogramMetricFamily]] = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
}


class Figure(msgspec.Struct, frozen=True):
    """What another part of the gateway counts. Of a name that comes several times, each has a label of its own."""

    kind: Literal["gauge", "counter", "histogram"]
    name: str
    meaning: str
    value: float | Histogram
    label: tuple[str, str] | None = None


def _no_figures() -> Iterator[Figure]:
    return iter(())


class _Cell:
    """Requests that have all labels in common. Its histograms are those of its endpoint, shared with other cells."""

    __slots__ = ("completion_tokens", "count", "duration", "first_byte", "prompt_tokens")

    def __init__(self, duration: Histogram, first_byte: Histogram) -> None:
        self.count = self.prompt_tokens = self.completion_tokens = 0
        self.duration, self.first_byte = duration, first_byte


class Metrics:
    """One per gateway, so that several gateways can live in one process (tests do that)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Families(self))
        self.in_flight = 0
        self.connections = 0
        self.retries = 0
        self.wasted_tokens = 0
        self.figures: Callable[[], Iterator[Figure]] = _no_figures
        self.cells: dict[Labels, _Cell] = {}
        self.durations: dict[str, Histogram] = {}
        self.first_bytes: dict[str, Histogram] = {}
        self.queued: dict[str, Histogram] = {}

    def observe(self, record: Record) -> None:
        """Count one finished request."""
        labels = (
            record.endpoint,
            record.model or "unknown",
            record.server_id or "none",
            record.status,
            record.outcome,
            record.source,
        )
        cell = self.cells.get(labels)
        if cell is None:
            endpoint = record.endpoint
            cell = self.cells[labels] = _Cell(_of(self.durations, endpoint), _of(self.first_bytes, endpoint))
        cell.count += 1
        cell.duration.observe(record.duration)
        if record.first_byte is not None:
            cell.first_byte.observe(record.first_byte)
        if record.queued:
            _of(self.queued, record.endpoint).observe(record.queued)
        if record.attempts > 1:
            self.retries += record.attempts - 1
        usage = record.usage
        if usage is not None:
            cell.prompt_tokens += usage.prompt_tokens
            cell.completion_tokens += usage.completion_tokens
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
        for labels, cell in metrics.cells.items():
            requests.add_metric([str(label) for label in labels], cell.count)
        yield requests
        yield _histograms("quiver_request_seconds", "Whole duration", metrics.durations)
        yield _histograms(
            "quiver_first_byte_seconds",
            "From the request's last byte to the reply's first content",
            metrics.first_bytes,
        )
        yield _histograms("quiver_queue_seconds", "Wait for a free server, of requests that waited", metrics.queued)
        tokens = CounterMetricFamily("quiver_tokens", "Tokens by direction", labels=["model", "direction"])
        for model, (prompt, completion) in _tokens_by_model(metrics).items():
            tokens.add_metric([model, "prompt"], prompt)
            tokens.add_metric([model, "completion"], completion)
        yield tokens
        yield CounterMetricFamily("quiver_retries", "Attempts after the first", value=metrics.retries)
        yield CounterMetricFamily(
            "quiver_wasted_tokens", "Tokens made for clients that had left", value=metrics.wasted_tokens
        )
        yield GaugeMetricFamily("quiver_in_flight", "Requests being worked on", value=metrics.in_flight)
        yield GaugeMetricFamily("quiver_connections", "Open client connections", value=metrics.connections)
        yield from _families(metrics.figures())


def _families(figures: Iterator[Figure]) -> Iterator[Metric]:
    """Figures of one name are one family."""
    families: dict[str, Family] = {}
    for figure in figures:
        family = families.get(figure.name)
        if family is None:
            labels = [figure.label[0]] if figure.label else []
            family = families[figure.name] = FAMILIES[figure.kind](figure.name, figure.meaning, labels=labels)
        labels = [figure.label[1]] if figure.label else []
        if isinstance(family, HistogramMetricFamily):
            assert isinstance(figure.value, Histogram)
            family.add_metric(labels, figure.value.buckets(), figure.value.total)
        else:
            assert not isinstance(figure.value, Histogram)
            family.add_metric(labels, float(figure.value))
    yield from families.values()


def _tokens_by_model(metrics: Metrics) -> dict[str, tuple[int, int]]:
    """Prompt and completion tokens."""
    totals: dict[str, tuple[int, int]] = {}
    for (_, model, *_), cell in metrics.cells.items():
        prompt, completion = totals.get(model, (0, 0))
        if cell.prompt_tokens or cell.completion_tokens:
            totals[model] = prompt + cell.prompt_tokens, completion + cell.completion_tokens
    return totals


def _histograms(name: str, meaning: str, cells: dict[str, Histogram]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, meaning, labels=["endpoint"])
    for endpoint, histogram in cells.items():
        if not any(histogram.counts):
            continue
        family.add_metric([endpoint], histogram.buckets(), histogram.total)
    return family


def _of(cells: dict[str, Histogram], endpoint: str) -> Histogram:
    found = cells.get(endpoint)
    if found is None:
        found = cells[endpoint] = Histogram()
    return found
