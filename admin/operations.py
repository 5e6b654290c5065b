"""Every operation of the API as one table: what a path takes and gives, as types, and what can go wrong, as statuses."""

from dataclasses import dataclass, field
from typing import Literal

import msgspec
from quiver.schemas import errors
from quiver.schemas.admin import (
    AvailableList,
    CheckReport,
    Deregistered,
    EstimateReport,
    LoadEvent,
    LocalModelList,
    LocalModelReport,
    ModelLoad,
    ModelRemoved,
    ModelSource,
    Registered,
    Registration,
    ServerDetails,
    ServerList,
    StatsReport,
)
from quiver.schemas.openai import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    CompletionRequest,
    EmbeddingList,
    EmbeddingRequest,
    ModelCard,
    ModelList,
    TextCompletion,
)

from .report import HealthReport, StatusReport, VersionReport

EVERY_STATUS = tuple(sorted({kind.status for kind in errors.CATALOGUE}))


@dataclass(frozen=True)
class Operation:
    """One method of one path. `stream`: the type of its server-sent events, when it can stream; `lock`: whose key it takes;
    `successes`: the statuses of its replies and what they say.
    """

    id: str
    method: Literal["get", "post", "put", "delete"]
    path: str
    summary: str
    tag: Literal["inference", "operation", "administration"]
    reply: type[msgspec.Struct] | str  # a content type for what is not JSON
    request: type[msgspec.Struct] | None = None
    stream: type[msgspec.Struct] | None = None
    failures: tuple[int, ...] = (500,)
    lock: Literal["none", "client", "operator"] = "none"
    example: object = None
    successes: dict[int, str] = field(default_factory=lambda: {200: "OK"})


ADMIN_FAILURES = (401, 403, 500)
_HELLO = {"model": "bolt", "messages": [{"role": "user", "content": "What is Quiver?"}]}
_SERVER = {"endpoint_url": "http://192.168.1.20:8000", "name": "lab", "models": ["qwen3-8b"], "max_concurrency": 8}

OPERATIONS = (
    Operation(
        "createChatCompletion",
        "post",
        "/v1/chat/completions",
        "Answer a conversation",
        "inference",
        ChatCompletion,
        request=ChatRequest,
        stream=ChatChunk,
        failures=EVERY_STATUS,
        lock="client",
        example=_HELLO,
    ),
    Operation(
        "createCompletion",
        "post",
        "/v1/completions",
        "Continue a text",
        "inference",
        TextCompletion,
        request=CompletionRequest,
        stream=TextCompletion,
        failures=EVERY_STATUS,
        lock="client",
        example={"model": "bolt", "prompt": "Quiver is", "max_tokens": 16},
    ),
    Operation(
        "createEmbedding",
        "post",
        "/v1/embeddings",
        "Embed texts, on servers that can",
        "inference",
        EmbeddingList,
        request=EmbeddingRequest,
        failures=EVERY_STATUS,
        lock="client",
        example={"model": "all-minilm", "input": "What is Quiver?"},
    ),
    Operation(
        "listModels",
        "get",
        "/v1/models",
        "List the models on offer",
        "inference",
        ModelList,
        failures=(401, 429, 500, 503),
        lock="client",
    ),
    Operation(
        "getModel",
        "get",
        "/v1/models/{id}",
        "Show one model",
        "inference",
        ModelCard,
        failures=(401, 404, 429, 500, 503),
        lock="client",
    ),
    Operation("getHealth", "get", "/health", "Status and version", "operation", HealthReport),
    Operation("isAlive", "get", "/healthz", "Whether the process answers", "operation", HealthReport),
    Operation("isReady", "get", "/readyz", "Whether it takes requests", "operation", HealthReport, failures=(500, 503)),
    Operation("getVersion", "get", "/version", "The gateway's version", "operation", VersionReport),
    Operation(
        "getStatus",
        "get",
        "/status",
        "The backends, their health, and what is in flight",
        "operation",
        StatusReport,
        failures=(401, 500),
        lock="client",
    ),
    Operation(
        "getMetrics",
        "get",
        "/metrics",
        "Metrics in Prometheus' text format",
        "operation",
        "text/plain",
        failures=(401, 500),
        lock="client",
    ),
    Operation(
        "registerServer",
        "post",
        "/admin/register",
        "Register a server, or change the one with the same URL and name",
        "administration",
        Registered,
        request=Registration,
        failures=(400, *ADMIN_FAILURES, 503),
        lock="operator",
        example=_SERVER,
        successes={201: "Registered", 200: "It was registered, and is changed"},
    ),
    Operation(
        "changeServer",
        "put",
        "/admin/register/{id}",
        "Replace what is known of a server, its key included",
        "administration",
        Registered,
        request=Registration,
        failures=(400, *ADMIN_FAILURES, 404, 503),
        lock="operator",
        example=_SERVER,
    ),
    Operation(
        "deregisterServer",
        "delete",
        "/admin/register/{id}",
        "Give a server no more requests",
        "administration",
        Deregistered,
        failures=(*ADMIN_FAILURES, 404),
        lock="operator",
    ),
    Operation(
        "listServers",
        "get",
        "/admin/servers",
        "List the servers and how they stand",
        "administration",
        ServerList,
        failures=ADMIN_FAILURES,
        lock="operator",
    ),
    Operation(
        "getServer",
        "get",
        "/admin/servers/{id}",
        "Show one server with its last results",
        "administration",
        ServerDetails,
        failures=(*ADMIN_FAILURES, 404),
        lock="operator",
    ),
    Operation(
        "checkServer",
        "post",
        "/admin/servers/{id}/health-check",
        "Check a server now",
        "administration",
        CheckReport,
        failures=(*ADMIN_FAILURES, 404),
        lock="operator",
    ),
    Operation(
        "listLocalModels",
        "get",
        "/admin/models",
        "List the built-in engine's models and how they stand",
        "administration",
        LocalModelList,
        failures=ADMIN_FAILURES,
        lock="operator",
    ),
    Operation(
        "listAvailableModels",
        "get",
        "/admin/models/available",
        "List what can be loaded by name",
        "administration",
        AvailableList,
        failures=ADMIN_FAILURES,
        lock="operator",
    ),
    Operation(
        "loadModel",
        "post",
        "/admin/models/load",
        "Load a model, or another file in the place of one; `Accept: text/event-stream` follows it",
        "administration",
        LocalModelReport,
        request=ModelLoad,
        stream=LoadEvent,
        failures=(400, *ADMIN_FAILURES, 404, 409, 422, 507),
        lock="operator",
        example={"name": "ollama:llama3.2:1b", "options": {"context_length": 8192}},
        successes={200: "It is loaded", 202: "It loads, and `wait` was false"},
    ),
    Operation(
        "estimateModel",
        "post",
        "/admin/models/estimate",
        "Say how much memory a model would take, and whether there is so much",
        "administration",
        EstimateReport,
        request=ModelSource,
        failures=(400, *ADMIN_FAILURES, 404, 422),
        lock="operator",
        example={"path": "models/qwen3-8b.gguf"},
    ),
    Operation(
        "getLocalModel",
        "get",
        "/admin/models/{id}",
        "Show one of the built-in engine's models",
        "administration",
        LocalModelReport,
        failures=(*ADMIN_FAILURES, 404),
        lock="operator",
    ),
    Operation(
        "unloadModel",
        "post",
        "/admin/models/{id}/unload",
        "Free a model's memory once its requests are over; cancels a load",
        "administration",
        LocalModelReport,
        failures=(*ADMIN_FAILURES, 404),
        lock="operator",
    ),
    Operation(
        "removeModel",
        "delete",
        "/admin/models/{id}",
        "Unload a model and offer it no more",
        "administration",
        ModelRemoved,
        failures=(*ADMIN_FAILURES, 404),
        lock="operator",
    ),
    Operation(
        "getStats",
        "get",
        "/admin/stats",
        "Figures since the start: requests, queue, shared answers, connections",
        "administration",
        StatsReport,
        failures=ADMIN_FAILURES,
        lock="operator",
    ),
)
