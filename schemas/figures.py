"""The admin API's wire format for the gateway's figures since its start. Durations are seconds."""

import msgspec

from .history import ModelTotals
from .servers import Connections


class QueueFigures(msgspec.Struct, frozen=True):
    """Requests that wait: in all, by priority, by model; and the clients that are remembered to be fair between them."""

    waiting: int
    by_priority: dict[str, int]
    by_model: dict[str, int]
    clients: int


class AdmissionFigures(msgspec.Struct, frozen=True):
    """Requests on servers, requests that wait, and since the start those that had to wait and what became of them."""

    in_flight: int
    queue: QueueFigures
    queued: int
    granted: int
    full: int
    timed_out: int
    cancelled: int


class ReuseFigures(msgspec.Struct, frozen=True):
    """Now: answers that are shared, answers kept and their bytes. Since the start: requests answered from memory (`hits`),
    by an answer in flight (`shared`), by neither (`misses`); answers dropped for room (`evicted`), by age (`expired`).
    """

    in_flight: int
    kept: int
    bytes: int
    hits: int
    shared: int
    misses: int
    evicted: int
    expired: int


class ClientFigures(msgspec.Struct, frozen=True):
    """Client keys, and remembered addresses of clients without one."""

    keys: int
    addresses: int


class RequestFigures(msgspec.Struct, frozen=True):
    """Since the start: finished requests in all and by outcome, attempts after the first, tokens, and those that were made
    for clients that had left.
    """

    total: int
    by_outcome: dict[str, int]
    retries: int
    prompt_tokens: int
    completion_tokens: int
    wasted_tokens: int


class RecordFigures(msgspec.Struct, frozen=True):
    """Request records written to the log, and dropped because it could not keep up."""

    written: int
    dropped: int


class StoreFigures(msgspec.Struct, frozen=True):
    """Entries for the database that wait, were written and were dropped; why it cannot be written, if so; its bytes on the
    disk, and the unused ones of them, a minute ago.
    """

    waiting: int
    written: int
    dropped: int
    degraded: str | None
    size: int
    free: int


class StatsReport(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway's figures. `connections`: clients' ones; `upstream`: those to servers. `today`: since midnight (UTC), null
    when the history cannot be read.
    """

    uptime: float
    in_flight: int
    connections: int
    requests: RequestFigures
    admission: AdmissionFigures
    reuse: ReuseFigures
    clients: ClientFigures
    upstream: Connections
    records: RecordFigures
    store: StoreFigures
    today: list[ModelTotals] | None
