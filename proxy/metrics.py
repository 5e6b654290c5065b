"""The gateway's metrics, in Prometheus' client library. Label sets are bounded: a client cannot add a time series.

`model` and `server` are only labels once the registry knows them; everything else is counted as `unknown`.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .record import Record

# From a cached reply to the longest a request may live; the steps are those people ask about.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """One registry per gateway, so that several gateways can live in one process (tests do that)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "quiver_requests",
            "Requests by what became of them",
            ["endpoint", "model", "server", "status", "outcome"],
            registry=self.registry,
        )
        self._duration = Histogram(
            "quiver_request_seconds", "Whole duration", ["endpoint"], buckets=SECONDS, registry=self.registry
        )
        self._first_byte = Histogram(
            "quiver_first_byte_seconds",
            "From the request's last byte to the reply's first content",
            ["endpoint"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._tokens = Counter("quiver_tokens", "Tokens by direction", ["model", "direction"], registry=self.registry)
        self._attempts = Counter("quiver_retries", "Attempts after the first", registry=self.registry)
        self.in_flight = Gauge("quiver_in_flight", "Requests being worked on", registry=self.registry)
        self.connections = Gauge("quiver_connections", "Open client connections", registry=self.registry)

    def observe(self, record: Record) -> None:
        """Count one finished request."""
        model, server = record.model or "unknown", record.server_id or "none"
        self._requests.labels(record.endpoint, model, server, record.status, record.outcome).inc()
        self._duration.labels(record.endpoint).observe(record.duration)
        if record.first_byte is not None:
            self._first_byte.labels(record.endpoint).observe(record.first_byte)
        if record.attempts > 1:
            self._attempts.inc(record.attempts - 1)
        if record.usage is not None:
            self._tokens.labels(model, "prompt").inc(record.usage.prompt_tokens)
            self._tokens.labels(model, "completion").inc(record.usage.completion_tokens)

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
