"""The metrics page: what `Metrics` has counted, in Prometheus' text format or as OpenMetrics.

Families are put together on the event loop, where nothing changes meanwhile, and written off it: of a gateway with many models
the page is long.
"""

import platform
from collections.abc import Iterable, Iterator

import quiver
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from quiver.schemas import errors

from ..seams import offload
from .histogram import Histogram
from .metrics import AUTH_CODES, LIMIT_CODES, Figure, Metrics, Plane

PLANES: tuple[Plane, ...] = ("inference", "control")


class Page:
    """Shows the figures of one gateway."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._process = ProcessCollector(registry=None)

    def __repr__(self) -> str:
        return f"<Page of {len(self._metrics.cells)} kinds of requests>"

    async def write(self, accept: str = "") -> tuple[bytes, str]:
        """The page and its content type, by what an `Accept` header asks for."""
        families = [*collect(self._metrics), *self._process.collect()]
        return await offload(_written, families, accept)


def exposition(metrics: Metrics, accept: str = "") -> bytes:
    """The page without the process's own figures, at once."""
    return _written(list(collect(metrics)), accept)[0]


class _Collected(Collector):
    """Families that have been collected already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _written(families: list[Metric], accept: str) -> tuple[bytes, str]:
    registry = CollectorRegistry()
    registry.register(_Collected(families))
    write, content_type = choose_encoder(accept)
    return write(registry), content_type


def collect(metrics: Metrics) -> Iterator[Metric]:
    """Everything that is counted, as Prometheus' client library shows it."""
    yield InfoMetricFamily(
        "quiver_build",
        "The running version, 1",
        value={"version": quiver.__version__, "python": platform.python_version()},
    )
    yield from _requests(metrics)
    yield from _errors(metrics)
    yield from _clients(metrics)
    yield from _families(metrics.figures())


def _requests(metrics: Metrics) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "quiver_requests",
        "Requests by what became of them",
        labels=["endpoint", "model", "server", "status", "outcome", "source"],
    )
    for labels, cell in metrics.cells.items():
        requests.add_metric([str(label) for label in labels], cell.count)
    yield requests
    pair = ("model", "server")
    yield _histograms("quiver_request_seconds", "Whole duration of requests", ("endpoint",), _ones(metrics.durations))
    yield _histograms(
        "quiver_first_byte_seconds",
        "From a request's last byte to its reply's first content",
        ("endpoint",),
        _ones(metrics.first_bytes),
    )
    yield _histograms(
        "quiver_time_to_first_token_seconds",
        "From a request's last byte to the first content event of its stream",
        pair,
        metrics.first_tokens.items(),
    )
    yield _histograms(
        "quiver_inter_token_seconds",
        "Between two pieces of content of a stream, as its client got them",
        pair,
        metrics.gaps.items(),
    )
    yield _histograms(
        "quiver_queue_seconds", "Wait for a free server, of requests that waited", ("endpoint",), _ones(metrics.queued)
    )
    yield _histograms(
        "quiver_cancel_latency_seconds",
        "From noticing that a client left to the end of its request on the server",
        ("server",),
        _ones(metrics.cancelled),
    )
    tokens = CounterMetricFamily("quiver_tokens", "Tokens by direction", labels=["model", "direction"])
    for model, (prompt, completion) in _tokens_by_model(metrics).items():
        tokens.add_metric([model, "prompt"], prompt)
        tokens.add_metric([model, "completion"], completion)
    yield tokens
    yield CounterMetricFamily(
        "quiver_wasted_tokens", "Tokens made for clients that had left", value=metrics.wasted_tokens
    )
    retries = CounterMetricFamily(
        "quiver_retries", "Attempts after the first, by the code of the error before", labels=["reason"]
    )
    for reason, count in metrics.reasons.items():
        retries.add_metric([reason], count)
    yield retries


def _errors(metrics: Metrics) -> Iterator[Metric]:
    """Every code there is, so that the first error of a kind shows as an increase."""
    told = CounterMetricFamily("quiver_errors", "Errors told to clients", labels=["code", "category", "fault", "plane"])
    for kind in errors.CATALOGUE:
        for plane in PLANES:
            told.add_metric([kind.code, kind.category, kind.fault, plane], metrics.errors.get((plane, kind.code), 0))
    yield told
    refused = CounterMetricFamily("quiver_auth_failures", "Requests of clients that are not let in", labels=["plane"])
    for plane in PLANES:
        refused.add_metric([plane], sum(metrics.errors.get((plane, code), 0) for code in AUTH_CODES))
    yield refused
    limited = CounterMetricFamily("quiver_rate_limited", "Requests over their client's limit", labels=["limit"])
    for code, limit in LIMIT_CODES.items():
        limited.add_metric([limit], metrics.errors.get(("inference", code), 0))
    yield limited


def _clients(metrics: Metrics) -> Iterator[Metric]:
    yield GaugeMetricFamily("quiver_in_flight", "Requests being worked on", value=metrics.in_flight)
    yield GaugeMetricFamily("quiver_connections", "Open client connections", value=metrics.connections)
    yield CounterMetricFamily(
        "quiver_connections_opened", "Client connections accepted", value=metrics.connections_opened
    )
    yield CounterMetricFamily(
        "quiver_connections_refused",
        "Client connections closed at once, over the limit",
        value=metrics.connections_refused,
    )
    control = CounterMetricFamily(
        "quiver_control_requests", "Requests to the control plane", labels=["route", "method", "status"]
    )
    for (route, method, status), count in metrics.control.items():
        control.add_metric([route, method, str(status)], count)
    yield control
    yield _histograms(
        "quiver_event_loop_lag_seconds", "How late the event loop woke a sleeper", (), [((), metrics.loop_lag)]
    )


def _families(figures: Iterator[Figure]) -> Iterator[Metric]:
    """Figures of one name are one family."""
    families: dict[str, Metric] = {}
    for figure in figures:
        family = families.get(figure.name)
        names, values = [name for name, _ in figure.labels], [value for _, value in figure.labels]
        if family is None:
            family = families[figure.name] = KINDS[figure.kind](figure.name, figure.meaning, labels=names)
        value = figure.value
        if isinstance(family, HistogramMetricFamily):
            assert isinstance(value, Histogram)
            family.add_metric(values, value.buckets(), value.total)
        elif isinstance(family, StateSetMetricFamily):
            assert isinstance(value, dict)
            family.add_metric(values, value)
        else:
            assert isinstance(family, GaugeMetricFamily | CounterMetricFamily)
            assert isinstance(value, int | float)
            family.add_metric(values, float(value))
    yield from families.values()


KINDS: dict[str, type[GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily | StateSetMetricFamily]] = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
    "states": StateSetMetricFamily,
}


def _tokens_by_model(metrics: Metrics) -> dict[str, tuple[int, int]]:
    """Prompt and completion tokens."""
    totals: dict[str, tuple[int, int]] = {}
    for (_, model, *_), cell in metrics.cells.items():
        prompt, completion = totals.get(model, (0, 0))
        if cell.prompt_tokens or cell.completion_tokens:
            totals[model] = prompt + cell.prompt_tokens, completion + cell.completion_tokens
    return totals


def _histograms(
    name: str, meaning: str, labels: tuple[str, ...], cells: Iterable[tuple[tuple[str, ...], Histogram]]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, meaning, labels=labels)
    for values, histogram in cells:
        if any(histogram.counts) or not labels:
            family.add_metric(list(values), histogram.buckets(), histogram.total)
    return family


def _ones(cells: dict[str, Histogram]) -> Iterator[tuple[tuple[str, ...], Histogram]]:
    return (((value,), histogram) for value, histogram in cells.items())
