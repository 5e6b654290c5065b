"""The admin API's wire format: what registers a server, and what is told of servers and of the gateway.

Moments are Unix time, durations seconds. Keys come in and are never told.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .config import Capabilities, HttpUrl, ServerName
from .openai import ModelName

HealthStatus = Literal["healthy", "unhealthy", "unknown"]
CircuitState = Literal["unknown", "healthy", "suspect", "ejected", "half_open", "disabled"]


class Registration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A server to register, by its address with or without `/v1`. `model_name` is short for one of `models`; without
    either they are asked from the server. `name` becomes its id, host and port if unset. `api_key`: the key it wants.
    """

    endpoint_url: HttpUrl
    model_name: ModelName | None = None
    models: tuple[ModelName, ...] = ()
    name: ServerName | None = None
    api_key: Annotated[str, Meta(pattern=r"^[!-~]+$", max_length=4096)] | None = None
    weight: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    max_concurrency: Annotated[int, Meta(ge=1)] | None = None
    capabilities: Capabilities = Capabilities()

    def __repr__(self) -> str:
        return f"Registration({self.endpoint_url}, name={self.name})"


class Registered(msgspec.Struct, frozen=True):
    """What became of a registration, new or changed."""

    registration_id: str
    status: Literal["registered"]
    health_status: HealthStatus


class Deregistered(msgspec.Struct, frozen=True):
    """The server gets no new requests; those on it go on."""

    registration_id: str
    status: Literal["deregistered"]


class Connections(msgspec.Struct, frozen=True):
    """Connections to servers: carrying a request, and kept for the next."""

    busy: int
    idle: int


class ServerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One server. `state`: what its answers made of it, since `since`; `reason`: why it is not healthy; `until`: the end
    of its time out, null when it is not out; `failures`: those in a row. `success_rate` and `mean_seconds` are of checks,
    `uptime` is the share of time it was healthy. `reported_load`: requests it says it has, with other clients' requests.
    """

    id: str
    url: str
    models: list[str]
    health: HealthStatus
    state: CircuitState
    reason: str | None
    since: float | None
    until: float | None
    failures: int
    checked_at: float | None
    success_rate: float | None
    mean_seconds: float | None
    uptime: float | None
    in_flight: int
    reported_load: float | None
    weight: float
    max_concurrency: int | None
    connections: Connections


class ServerList(msgspec.Struct, frozen=True):
    """The registered servers, in the order they came."""

    servers: list[ServerReport]


class CheckResult(msgspec.Struct, frozen=True):
    """How one check, or one request, ended."""

    at: float
    ok: bool
    seconds: float
    reason: str | None
    source: Literal["check", "traffic"]


class ServerDetails(ServerReport, frozen=True, kw_only=True):
    """One server with its last results, oldest first, and what it can do. `has_key`: whether the gateway has a key for it."""

    capabilities: Capabilities
    has_key: bool
    history: list[CheckResult]


class CheckReport(msgspec.Struct, frozen=True):
    """The outcome of a check that was asked for, and how the server stands after it."""

    registration_id: str
    passed: bool
    health_status: HealthStatus
    state: CircuitState
    reason: str | None
    seconds: float


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


class StatsReport(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway's figures. `connections`: clients' ones; `upstream`: those to servers."""

    uptime: float
    in_flight: int
    connections: int
    requests: RequestFigures
    admission: AdmissionFigures
    reuse: ReuseFigures
    clients: ClientFigures
    upstream: Connections
    records: RecordFigures
