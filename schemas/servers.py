"""The admin API's wire format for servers: registering and changing them, trials, lists with filters, and how they stand.

Moments are Unix time, durations seconds. Keys come in and are never told.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .config import Capabilities, HttpUrl, ServedEndpoint, ServerName, said
from .forms import whole
from .join import JoinReport
from .openai import ModelName
from .saved import CheckResult, Metadata, Mode

# Who told of a server: the configuration file, a registration, or the server itself through `quiver join`.
Origin = Literal["configuration", "registered", "joined"]
HealthStatus = Literal["healthy", "unhealthy", "unknown"]
CircuitState = Literal["unknown", "healthy", "suspect", "ejected", "half_open", "disabled"]
ServerSort = Literal["created", "id", "model", "health", "checked", "latency", "in_flight"]
BackendKey = Annotated[str, Meta(pattern=whole(r"[!-~]+"), max_length=4096)]
# What answers at an address. `openai`: something else that lists models as OpenAI does.
Software = Literal["ollama", "llama.cpp", "llama-cpp-python", "vllm", "lm-studio", "quiver", "openai"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server comes from, and what people say of it. `version` counts its changes, beginning with 1."""

    origin: Origin = "configuration"
    metadata: Metadata = Metadata()
    created: float = 0.0
    changed: float = 0.0
    version: int = 1


class DetectedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a server lists. `context_length`: as it is run, where the server tells; `embeds`: it makes embeddings."""

    id: str
    context_length: int | None = None
    embeds: bool = False


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """What a server was found to be, null where nothing told. `endpoints`: the paths below `/v1/` it answers on; `slots`:
    requests it works on at a time; `needs_key`: it refuses requests without one.
    """

    software: Software | None
    version: str | None = None
    models: list[DetectedModel] = []
    endpoints: tuple[str, ...] | None = None
    slots: int | None = None
    needs_key: bool | None = None


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


class CapabilitiesPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What changes of a server's capabilities."""

    context_length: Annotated[int, Meta(ge=1)] | UnsetType | None = UNSET
    max_tokens: Annotated[int, Meta(ge=1)] | UnsetType | None = UNSET
    streaming: bool | UnsetType | None = UNSET
    endpoints: tuple[ServedEndpoint, ...] | UnsetType | None = UNSET


class MetadataPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What changes of what people say of a server."""

    owner: Annotated[str, Meta(max_length=200)] | UnsetType | None = UNSET
    description: Annotated[str, Meta(max_length=2000)] | UnsetType | None = UNSET
    tags: (
        Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(max_length=32)] | UnsetType | None
    ) = UNSET


class ServerPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What changes of a server: fields that are not there stay, and null puts one back to its default (RFC 7396)."""

    endpoint_url: HttpUrl | UnsetType = UNSET
    model_name: ModelName | UnsetType = UNSET
    models: tuple[ModelName, ...] | UnsetType | None = UNSET
    name: ServerName | UnsetType = UNSET
    api_key: BackendKey | UnsetType | None = UNSET
    weight: Annotated[float, Meta(gt=0, le=1000)] | UnsetType | None = UNSET
    max_concurrency: Annotated[int, Meta(ge=1)] | UnsetType | None = UNSET
    capabilities: CapabilitiesPatch | UnsetType | None = UNSET
    metadata: MetadataPatch | UnsetType | None = UNSET

    def __repr__(self) -> str:
        return "ServerPatch()"


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A server to try without registering it. `api_key`: the key it wants."""

    endpoint_url: HttpUrl
    api_key: BackendKey | None = None

    def __repr__(self) -> str:
        return f"Trial({self.endpoint_url})"


class TrialReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a trial: whether the server passed the check that a registration makes, why not, how long that took, and
    what it is.
    """

    url: str
    passed: bool
    reason: str | None
    seconds: float
    detected: Detection


class ServerQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which servers are listed, and in which order. Filters are joined by "and"."""

    model: Annotated[ModelName | None, said("those that offer this model")] = None
    health: Annotated[HealthStatus | None, said("those in this health")] = None
    state: Annotated[
        CircuitState | None,
        said("those in this state"),
    ] = None
    mode: Annotated[Mode | None, said("those that are serving, paused or draining")] = None
    origin: Annotated[Origin | None, said("those that came this way")] = None
    owner: Annotated[Annotated[str, Meta(max_length=200)] | None, said("those of this owner")] = None
    tag: Annotated[
        tuple[Annotated[str, Meta(max_length=64)], ...], said("those with this tag; may be repeated, all must be there")
    ] = ()
    text: Annotated[
        Annotated[str, Meta(max_length=200)] | None,
        said("those with this text in id, address, models, owner, description, tags or reason, in any case"),
    ] = None
    sort: Annotated[ServerSort, said("what they are sorted by; those without a value come last")] = "created"
    order: Annotated[Literal["asc", "desc"], said("upwards or downwards")] = "asc"
    limit: Annotated[Annotated[int, Meta(ge=1, le=1000)], said("so many at most")] = 100
    cursor: Annotated[
        Annotated[str, Meta(max_length=2048)] | None, said("`next_cursor` of the page before, with the same `sort`")
    ] = None


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


class DrainQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long a drain is waited for."""

    wait: Annotated[
        Annotated[float, Meta(ge=0, le=3600)], said("answer once it is empty, or after so many seconds")
    ] = 0.0


class ModeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a server is in after a pause, a resumption or a drain. `in_flight`: requests that are still on it."""

    registration_id: str
    mode: Mode
    in_flight: int
