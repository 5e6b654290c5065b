"""The API's description, `/openapi.json`: made from the types that requests are decoded with and the error catalogue.

Operations are one table. What a path takes and gives is a type from it; what can go wrong is a status of the catalogue.
"""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import quiver
from quiver.schemas import errors
from quiver.schemas.errors import ErrorEnvelope
from quiver.schemas.openai import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    CompletionRequest,
    ModelCard,
    ModelList,
    TextCompletion,
)

from .report import HealthReport, StatusReport, VersionReport

Json = dict[str, Any]
REFERENCE = "#/components/schemas/{name}"

EVERY_STATUS = tuple(sorted({kind.status for kind in errors.CATALOGUE}))


@dataclass(frozen=True)
class Operation:
    """One method of one path. `stream`: the type of its server-sent events, when it can stream."""

    id: str
    method: Literal["get", "post"]
    path: str
    summary: str
    tag: Literal["inference", "operation"]
    reply: type[msgspec.Struct] | str  # a content type for what is not JSON
    request: type[msgspec.Struct] | None = None
    stream: type[msgspec.Struct] | None = None
    failures: tuple[int, ...] = (500,)
    locked: bool = False
    example: object = None


_HELLO = {"model": "bolt", "messages": [{"role": "user", "content": "What is Quiver?"}]}

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
        locked=True,
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
        locked=True,
        example={"model": "bolt", "prompt": "Quiver is", "max_tokens": 16},
    ),
    Operation(
        "listModels",
        "get",
        "/v1/models",
        "List the models on offer",
        "inference",
        ModelList,
        failures=(401, 500, 503),
        locked=True,
    ),
    Operation(
        "getModel",
        "get",
        "/v1/models/{id}",
        "Show one model",
        "inference",
        ModelCard,
        failures=(401, 404, 500, 503),
        locked=True,
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
        locked=True,
    ),
    Operation(
        "getMetrics",
        "get",
        "/metrics",
        "Metrics in Prometheus' text format",
        "operation",
        "text/plain",
        failures=(401, 500),
        locked=True,
    ),
)

_TYPES: list[Any] = [ErrorEnvelope]
for _operation in OPERATIONS:
    _TYPES += [kind for kind in (_operation.request, _operation.reply, _operation.stream) if isinstance(kind, type)]


def description(*, keys_required: bool) -> Json:
    """The whole document."""
    _, schemas = msgspec.json.schema_components(list(dict.fromkeys(_TYPES)), ref_template=REFERENCE)
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation_object(operation, keys_required)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Quiver",
            "version": quiver.__version__,
            "summary": "One OpenAI-compatible address for every model server you run",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "inference", "description": "What an OpenAI client uses."},
            {"name": "operation", "description": "What whoever runs the gateway uses."},
        ],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {f"Error{status}": _error_response(status) for status in EVERY_STATUS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation_object(operation: Operation, keys_required: bool) -> Json:
    found: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {
            "200": {"description": "OK", "headers": _headers(operation), "content": _content(operation)},
            **{str(status): {"$ref": f"#/components/responses/Error{status}"} for status in operation.failures},
        },
    }
    if "{id}" in operation.path:
        found["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    if operation.request is not None:
        media = {"schema": _reference(operation.request), "example": operation.example}
        found["requestBody"] = {"required": True, "content": {"application/json": media}}
    if operation.locked:
        found["security"] = [*([] if keys_required else [{}]), {"bearer": []}, {"apiKey": []}]
    return found


def _content(operation: Operation) -> Json:
    if isinstance(operation.reply, str):
        return {operation.reply: {"schema": {"type": "string"}}}
    content: Json = {"application/json": {"schema": _reference(operation.reply)}}
    if operation.stream is not None:
        content["text/event-stream"] = {"schema": _reference(operation.stream)}
    return content


def _headers(operation: Operation) -> Json:
    headers = {"X-Request-ID": "Names this request in the log."}
    if operation.request is not None:
        headers["X-Gateway-Server-ID"] = "Which backend answered."
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}


def _reference(kind: type[msgspec.Struct]) -> Json:
    return {"$ref": REFERENCE.format(name=kind.__name__)}


def _error_response(status: int) -> Json:
    """All errors of one status: their codes, what they mean, and what they look like."""
    kinds = [kind for kind in errors.CATALOGUE if kind.status == status]
    return {
        "description": "\n".join(f"- `{kind.code}`: {kind.meaning}" for kind in kinds),
        "content": {
            "application/json": {
                "schema": _reference(ErrorEnvelope),
                "examples": {kind.code: {"value": _example(kind)} for kind in kinds},
            }
        },
    }


def _example(kind: errors.ErrorKind) -> Json:
    return {"error": {"message": kind.meaning, "type": kind.type, "param": None, "code": kind.code}}
