"""The admin API's wire format: what registers a server or loads a model, and what is told of them and of the gateway.

Moments are Unix time, durations seconds. Keys come in and are never told.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .config import Capabilities, HttpUrl, ModelOptions, ServerName
from .history import ModelTotals
from .join import JoinReport
from .openai import ModelName
from .saved import CheckResult, Metadata, Mode
from .servers import BackendKey, Detection, Origin

HealthStatus = Literal["healthy", "unhealthy", "unknown"]
ModelState = Literal["loading", "ready", "idle", "unloading", "unloaded", "failed"]
CircuitState = Literal["unknown", "healthy", "suspect", "ejected", "half_open", "disabled"]


class Registration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A server to register, by its address with or without `/v1`. `model_name` is short for one of `models`; without
    either they are asked from the server. `name` becomes its id, host and port if unset. `api_key`: the key it wants.
    With `detect` the gateway finds out what the server is, and takes what is not said here from that.
    """

    endpoint_url: HttpUrl
    model_name: ModelName | None = None
    models: tuple[ModelName, ...] = ()
    name: ServerName | None = None
    api_key: BackendKey | None = None
    weight: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    max_concurrency: Annotated[int, Meta(ge=1)] | None = None
    capabilities: Capabilities = Capabilities()
    metadata: Metadata = Metadata()
    detect: bool = False

    def __repr__(self) -> str:
        return f"Registration({self.endpoint_url}, name={self.name})"


class Registered(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a registration, new or changed. `detected`: what the server is, when that was asked for."""

    registration_id: str
    status: Literal["registered"]
    health_status: HealthStatus
    detected: Detection | None = None


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
    `mode`: whether its operator lets it have requests. `version` counts the changes of what is known of it. `joined`: the
    link of one that dialled in, null for all others.
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
    mode: Mode
    origin: Origin
    metadata: Metadata
    created: float
    changed: float
    version: int
    joined: JoinReport | None = None


class ServerList(msgspec.Struct, frozen=True):
    """A page of the servers that were asked for; `total` of them in all. `next_cursor`: for the next page, null on the last."""

    servers: list[ServerReport]
    total: int
    next_cursor: str | None = None


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


class ModelSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A model to load or to size: `path`, a GGUF file on the gateway's machine, or `name`, one of those that
    `/admin/models/available` lists. `options`: what is not as in `[engine]`.
    """

    path: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    name: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    options: ModelOptions = ModelOptions()


class ModelLoad(ModelSource, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A model to load as `id`, by default its own name. Where a model of that id runs, the new one takes its place once it
    is loaded; with `unload_first` the old one goes before. `force`: whatever memory there seems to be. Without `wait` the
    reply comes at once.
    """

    id: ModelName | None = None
    replace: Literal["beside", "unload_first"] = "beside"
    force: bool = False
    wait: bool = True


class MemoryReport(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes a model takes: weights, keys and values of `kv_tokens` tokens, working space."""

    weights: int
    kv: int
    kv_tokens: int
    scratch: int
    total: int


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """A load under way: its stage, bytes of weights in place and in all, and the share of them."""

    stage: str
    done: int
    total: int
    fraction: float
    seconds: float


class ModelDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What a loaded file says of itself. `context_length`: as it is run."""

    architecture: str
    name: str
    parameters: int
    context_length: int
    size_bytes: int
    file_type: str


class LocalModelReport(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the built-in engine. `idle`: the next request loads it; `unloaded`: only `/admin/models/load` does.
    `loading` is told also of what takes a running model's place. `unloads_at`: when it will have been idle for long
    enough, null while it is used. `draining`: requests on what it was before.
    """

    id: str
    state: ModelState
    source: str
    reason: str | None
    in_flight: int
    draining: int
    loading: LoadReport | None
    memory: MemoryReport | None
    model: ModelDescription | None
    idle_unload_s: float
    unloads_at: float | None


class LocalModelList(msgspec.Struct, frozen=True):
    """The built-in engine's models."""

    models: list[LocalModelReport]


class LoadEvent(msgspec.Struct, frozen=True):
    """One event of a load that is followed: how far it is, and at its end the model."""

    loading: LoadReport | None
    model: LocalModelReport | None = None


class ModelRemoved(msgspec.Struct, frozen=True):
    """The model is not offered any more; requests on it go on."""

    id: str
    status: Literal["removed"]


class EstimateReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a model would take, and what there is: null when the machine does not say. `notes`: what is not used of it."""

    source: str
    file: str
    memory: MemoryReport
    available: int | None
    fits: bool
    notes: list[str]


class AvailableModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that can be loaded by `name`, unless there is a `problem`."""

    name: str
    origin: Literal["ollama", "folder"]
    size: int
    problem: str | None = None


class AvailableList(msgspec.Struct, frozen=True):
    """What can be loaded by name."""

    models: list[AvailableModel]
