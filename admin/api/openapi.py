"""The API's description, `/openapi.json`: made from the table of operations and the error catalogue."""

import re
from typing import Any, get_args

import msgspec
import quiver
from quiver.schemas import errors
from quiver.schemas.config import Priority
from quiver.schemas.errors import ErrorEnvelope

from .bodies import JSON, MERGE_PATCH
from .operations import EVERY_STATUS, OPERATIONS, Operation

Json = dict[str, Any]
REFERENCE = "#/components/schemas/{name}"
# What a client may say beside the body, in words and as a type.
REQUEST_HEADERS: dict[str, tuple[str, Json]] = {
    "X-Quiver-Priority": (
        "How urgent it is, up to what the key allows.",
        {"enum": list(get_args(Priority))},
    ),
    "X-Session-ID": ("Requests with the same one go to the same server (`session_affinity`).", {"type": "string"}),
    "X-Quiver-Share": ("`off`: neither get nor give an answer that other requests share.", {"enum": ["off"]}),
    "Cache-Control": ("`no-cache`, `no-store` and `max-age` of kept answers.", {"type": "string"}),
}

# Of clients that have such a limit.
LIMIT_HEADERS = {
    f"X-RateLimit-{what}-{unit}": f"{words} {unit.lower()} a minute."
    for unit in ("Requests", "Tokens")
    for what, words in (
        ("Limit", "The limit of"),
        ("Remaining", "What is left now of the"),
        ("Reset", "Time, like `1.5s`, until all is left again of the"),
    )
} | {
    "X-RateLimit-Limit-Budget": "The tokens of the key's budget in a period.",
    "X-RateLimit-Remaining-Budget": "What is left of them.",
    "X-RateLimit-Reset-Budget": "Time, like `7h8m50s`, until the budget begins anew; not told of one that never does.",
}

REQUEST_ID = "Names this request in the log."
# What an error's reply may have beside its envelope.
ERROR_HEADERS: dict[int, dict[str, str]] = {
    401: {"WWW-Authenticate": "`Bearer`."},
    405: {"Allow": "The methods that the path takes."},
    415: {"Accept": "The content types that are taken."},
    429: {"Retry-After": "Seconds until it is worth another try, where that is known."},
    503: {"Retry-After": "Seconds until it is worth another try, where that is known."},
}
CONDITIONS = {
    "get": ("If-None-Match", "Answer 304 when this `ETag` is still right."),
    "change": ("If-Match", "Change nothing, and answer 412, when the version is not the one of this `ETag` any more."),
}

_TYPES: list[Any] = [ErrorEnvelope]
for _operation in OPERATIONS:
    _TYPES += [kind for kind in (_operation.request, _operation.reply, _operation.stream) if isinstance(kind, type)]


def description(*, keys_required: bool, admin_key_required: bool, local: bool) -> Json:
    """The whole document. `local`: only this machine can reach the gateway, and needs no key to look at it."""
    required = {
        "none": True,
        "client": keys_required,
        "outsider": keys_required and not local,
        "operator": admin_key_required,
    }
    _, schemas = msgspec.json.schema_components(list(dict.fromkeys(_TYPES)), ref_template=REFERENCE)
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation_object(operation, required[operation.lock])
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
            {"name": "operation", "description": "What whoever runs the gateway looks at."},
            {
                "name": "administration",
                "description": "Servers and models, registered and loaded while the gateway runs. Takes `auth.admin_key`; "
                "when none is set it answers its own machine only, on a loopback address.",
            },
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


def _operation_object(operation: Operation, key_required: bool) -> Json:
    found: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {
            **{
                str(status): {
                    "description": said,
                    "headers": _headers(operation, status),
                    "content": _content(operation),
                }
                for status, said in operation.successes.items()
            },
            **({"304": _not_modified()} if operation.tagged and operation.method == "get" else {}),
            **{str(status): {"$ref": f"#/components/responses/Error{status}"} for status in operation.all_failures},
        },
    }
    if parameters := _parameters(operation):
        found["parameters"] = parameters
    if operation.request is not None:
        media = {"schema": _reference(operation.request), "example": operation.example}
        kinds = (JSON, MERGE_PATCH) if operation.method == "patch" else (JSON,)
        found["requestBody"] = {"required": True, "content": dict.fromkeys(kinds, media)}
    # Where no key is looked at, none is asked for.
    if operation.lock != "none" and (key_required or operation.lock != "outsider"):
        found["security"] = [*([] if key_required else [{}]), {"bearer": []}, {"apiKey": []}]
    return found


def _parameters(operation: Operation) -> list[Json]:
    found: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    if operation.query is not None:
        found += _query(operation.query)
    if operation.tagged:
        name, text = CONDITIONS["get" if operation.method == "get" else "change"]
        found.append({"name": name, "in": "header", "description": text, "schema": {"type": "string"}})
    if operation.tag == "inference" and operation.request is not None:
        found += [
            {"name": name, "in": "header", "description": text, "schema": schema}
            for name, (text, schema) in REQUEST_HEADERS.items()
        ]
    return found


def _query(kind: type[msgspec.Struct]) -> list[Json]:
    """The fields of `kind`, which must not hold structs of their own."""
    _, schemas = msgspec.json.schema_components([kind], ref_template=REFERENCE)
    schema = schemas[kind.__name__]
    found = []
    for name, type_of in schema["properties"].items():
        text = type_of.pop("description", None)
        found.append(
            {
                "name": name,
                "in": "query",
                **({"description": text} if text else {}),
                **({"required": True} if name in schema.get("required", ()) else {}),
                "schema": _without_null(type_of),
            }
        )
    return found


def _without_null(schema: Json) -> Json:
    """A parameter that is unset is left out: there is no way to write null."""
    kept = {name: value for name, value in schema.items() if (name, value) != ("default", None)}
    if "enum" in kept:
        return kept | {"enum": [value for value in kept["enum"] if value is not None]}
    if "anyOf" not in kept:
        return kept
    [only, *others] = [option for option in kept.pop("anyOf") if option != {"type": "null"}]
    return kept | ({"anyOf": [only, *others]} if others else only)


def _content(operation: Operation) -> Json:
    if isinstance(operation.reply, str):
        return {operation.reply: {"schema": {"type": "string"}}}
    content: Json = {"application/json": {"schema": _reference(operation.reply)}}
    if operation.stream is not None:
        content["text/event-stream"] = {"schema": _reference(operation.stream)}
    for content_type in operation.also:
        content[content_type] = {"schema": {"type": "string"}}
    return content


def _headers(operation: Operation, status: int) -> Json:
    headers = {"X-Request-ID": REQUEST_ID}
    if operation.tagged:
        headers["ETag"] = "Names this version."
    if status == 201:
        headers["Location"] = "Where to read what was made."
    if operation.tag == "inference" and operation.request is not None:
        headers["X-Gateway-Server-ID"] = "Which backend answered."
        headers["X-Quiver-Cache"] = "Of a repeatable request: `miss`, `shared` or `hit`."
    if operation.tag == "inference":
        headers |= LIMIT_HEADERS
    return _header_objects(headers)


def _not_modified() -> Json:
    return {
        "description": "The reader has it already",
        "headers": _header_objects({"X-Request-ID": REQUEST_ID, "ETag": "Names this version."}),
    }


def _header_objects(headers: dict[str, str]) -> Json:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}


def _reference(kind: type[msgspec.Struct]) -> Json:
    return {"$ref": REFERENCE.format(name=kind.__name__)}


def _error_response(status: int) -> Json:
    """All errors of one status: their codes, what they mean, and what they look like."""
    kinds = [kind for kind in errors.CATALOGUE if kind.status == status]
    return {
        "description": "\n".join(f"- `{kind.code}`: {kind.meaning}" for kind in kinds),
        "headers": _header_objects({"X-Request-ID": REQUEST_ID} | ERROR_HEADERS.get(status, {})),
        "content": {
            "application/json": {
                "schema": _reference(ErrorEnvelope),
                "examples": {kind.code: {"value": _example(kind)} for kind in kinds},
            }
        },
    }


def _example(kind: errors.ErrorKind) -> Json:
    return {"error": {"message": kind.meaning, "type": kind.type, "param": None, "code": kind.code}}
