"""What the gateway counts, a handful of additions a request. `exposition` shows it in Prometheus' format.

Label sets are bounded: a client cannot add a time series. `model` and `server` are only labels once the registry knows them,
everything else is counted as `unknown`; and as servers name their models themselves, there is a bound on those too.
"""

from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

import msgspec
from quiver.schemas import errors

from .histogram import GAPS, SECONDS, Histogram
from .record import Record

K = TypeVar("K")

# Endpoint, model, server, status, outcome, source.
Labels = tuple[str, str, str, int, str, str]
# Where a request was refused: on the inference paths, or by the control plane.
Plane = Literal["inference", "control"]

# Sets of labels that are kept apart; what comes beyond them is counted under the model and the server `other`.
MAX_CELLS = 10_000
# The same for pairs of a model and a server, and for servers.
MAX_PAIRS = 1_000
OTHER = "other"


class Figure(msgspec.Struct, frozen=True):
    """What another part of the gateway counts. Of a name that comes several times, each has labels of its own, of the same
    names.
    """

    kind: Literal["gauge", "counter", "histogram", "states"]
    name: str
    meaning: str
    value: float | Histogram | dict[str, bool]
    labels: tuple[tuple[str, str], ...] = ()


def _no_figures() -> Iterator[Figure]:
    return iter(())


class Cell:
    """Requests that have all labels in common. Its histograms are those of its endpoint, shared with other cells."""

    __slots__ = ("completion_tokens", "count", "duration", "first_byte", "prompt_tokens")

    def __init__(self, duration: Histogram, first_byte: Histogram) -> None:
        self.count = self.prompt_tokens = self.completion_tokens = 0
        self.duration, self.first_byte = duration, first_byte


class Metrics:
    """One per gateway, so that several gateways can live in one process (tests do that).

    `figures` gives what other parts count, when somebody asks; `loop_lag` is how late the event loop was.
    """

    def __init__(self) -> None:
        self.in_flight = 0
        self.connections = self.connections_opened = self.connections_refused = 0
        self.wasted_tokens = 0
        self.figures: Callable[[], Iterator[Figure]] = _no_figures
        self.cells: dict[Labels, Cell] = {}
        self.durations: dict[str, Histogram] = {}
        self.first_bytes: dict[str, Histogram] = {}
        self.queued: dict[str, Histogram] = {}
        self.first_tokens: dict[tuple[str, str], Histogram] = {}
        self.gaps: dict[tuple[str, str], Histogram] = {}
        self.cancelled: dict[str, Histogram] = {}
        self.reasons: dict[str, int] = {}
        self.errors: dict[tuple[Plane, str], int] = {}
        self.control: dict[tuple[str, str, int], int] = {}
        self.loop_lag = Histogram(GAPS)

    @property
    def retries(self) -> int:
        """Attempts after the first, for whatever reason."""
        return sum(self.reasons.values())

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
            cell = self._new_cell(labels)
        cell.count += 1
        cell.duration.observe(record.duration)
        if record.first_byte is not None:
            cell.first_byte.observe(record.first_byte)
            if record.stream and record.error is None and record.source == "server":
                _bounded(self.first_tokens, labels[1:3], (OTHER, OTHER), SECONDS).observe(record.first_byte)
        if record.queued:
            _of(self.queued, record.endpoint).observe(record.queued)
        if record.error is not None:
            self.refused("inference", record.error)
        if record.attempts > 1:
            self._count_retries(record)
        usage = record.usage
        if usage is not None:
            cell.prompt_tokens += usage.prompt_tokens
            cell.completion_tokens += usage.completion_tokens
            if record.outcome == "client_gone":
                self.wasted_tokens += usage.completion_tokens

    def refused(self, plane: Plane, code: str) -> None:
        """Count one error that was told to somebody."""
        self.errors[plane, code] = self.errors.get((plane, code), 0) + 1

    def answered(self, route: str, method: str, status: int) -> None:
        """Count one request to the control plane. `route` is the rule that matched, not the path."""
        self.control[route, method, status] = self.control.get((route, method, status), 0) + 1

    def gaps_of(self, model: str, server: str) -> Histogram:
        """Where times between the pieces of streams of `model` from `server` are counted."""
        return _bounded(self.gaps, (model, server), (OTHER, OTHER), GAPS)

    def torn_down(self, server: str, seconds: float) -> None:
        """Count a request whose client had left: so long after that was noticed, nothing of it ran on `server` any more."""
        _bounded(self.cancelled, server, OTHER, GAPS).observe(seconds)

    def _new_cell(self, labels: Labels) -> Cell:
        if len(self.cells) >= MAX_CELLS:
            labels = (labels[0], OTHER, OTHER, *labels[3:])
            if labels in self.cells:
                return self.cells[labels]
        endpoint = labels[0]
        cell = self.cells[labels] = Cell(_of(self.durations, endpoint), _of(self.first_bytes, endpoint))
        return cell

    def _count_retries(self, record: Record) -> None:
        """Each attempt but the last failed, for a reason of its own."""
        retries = record.attempts - 1
        reasons = [failure.code for failure in record.failures[:retries]]
        for reason in [*reasons, *["unknown"] * (retries - len(reasons))]:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1


def _of(cells: dict[str, Histogram], endpoint: str) -> Histogram:
    found = cells.get(endpoint)
    if found is None:
        found = cells[endpoint] = Histogram()
    return found


def _bounded(histograms: dict[K, Histogram], key: K, other: K, bounds: tuple[float, ...]) -> Histogram:
    """That of `key`; where there are too many already, the one of all others."""
    found = histograms.get(key)
    if found is None:
        found = histograms.setdefault(key if len(histograms) < MAX_PAIRS else other, Histogram(bounds))
    return found


# Which refusals tell of somebody who is not let in, and which of somebody who wants too much.
AUTH_CODES = (errors.INVALID_API_KEY.code, errors.MODEL_NOT_ALLOWED.code, errors.ADMIN_FORBIDDEN.code)
LIMIT_CODES = {errors.RATE_LIMITED.code: "requests", errors.TOKENS_LIMITED.code: "tokens"}
