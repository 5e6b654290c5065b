"""The error catalogue: every error a client can meet, in one table, with its status and stable code.

An `ApiError` is raised anywhere on a request's path and turned into OpenAI's envelope in one place. Codes are stable: clients
may match on them. `docs/errors.md` lists the table and a test keeps the two equal.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

Fault = Literal["client", "upstream", "gateway"]


class ErrorKind(msgspec.Struct, frozen=True):
    """One row of the catalogue: what the client sees, whose fault it is, and whether trying again can help."""

    code: str
    status: int
    type: str
    fault: Fault
    retryable: bool
    meaning: str


def _client(code: str, status: int, meaning: str, *, retryable: bool = False) -> ErrorKind:
    return ErrorKind(code, status, "invalid_request_error", "client", retryable, meaning)


def _upstream(code: str, status: int, meaning: str, *, retryable: bool = True) -> ErrorKind:
    return ErrorKind(code, status, "upstream_error", "upstream", retryable, meaning)


def _gateway(code: str, status: int, meaning: str, *, retryable: bool = True) -> ErrorKind:
    return ErrorKind(code, status, "server_error", "gateway", retryable, meaning)


MALFORMED_REQUEST = _client("malformed_request", 400, "The bytes are not a well-formed HTTP/1.1 request.")
INVALID_JSON = _client("invalid_json", 400, "The body is not JSON.")
INVALID_REQUEST = _client("invalid_request", 400, "A field is missing, of the wrong type, or out of range.")
UNSUPPORTED_PARAMETER = _client("unsupported_parameter", 400, "The model cannot honour a parameter that was sent.")
CONTEXT_LENGTH_EXCEEDED = _client("context_length_exceeded", 400, "Prompt and reply do not fit the model's context.")
INVALID_API_KEY = ErrorKind(
    "invalid_api_key", 401, "authentication_error", "client", False, "The key is missing or not known here."
)
MODEL_NOT_ALLOWED = ErrorKind(
    "model_not_allowed", 403, "permission_error", "client", False, "The key may not use this model."
)
ADMIN_FORBIDDEN = ErrorKind(
    "admin_forbidden",
    403,
    "permission_error",
    "client",
    False,
    "The admin API takes `auth.admin_key`, or when none is set requests from the gateway's own machine.",
)
JOIN_FORBIDDEN = ErrorKind(
    "join_forbidden",
    403,
    "permission_error",
    "client",
    False,
    "Joining takes `join.key` or `auth.admin_key`, or when none is set a joiner on the gateway's own machine.",
)
MODEL_NOT_FOUND = _client("model_not_found", 404, "No server offers this model.")
NOT_FOUND = _client("not_found", 404, "No such path.")
METHOD_NOT_ALLOWED = _client("method_not_allowed", 405, "The path exists, but not for this method.")
MODEL_LOADING = _client("model_loading", 409, "The model is being loaded already.", retryable=True)
LOAD_CANCELLED = _client("load_cancelled", 409, "The model was unloaded before it was loaded.")
MODEL_UNUSABLE = _client("model_unusable", 422, "The file cannot be served as a model; the message says why.")
INSUFFICIENT_MEMORY = _client(
    "insufficient_memory", 507, "The model needs more memory than there is; the message says what to change."
)
REQUEST_TIMEOUT = _client("request_timeout", 408, "The request did not arrive in time.", retryable=True)
BODY_TOO_LARGE = _client("body_too_large", 413, "The body is over the limit.")
TARGET_TOO_LONG = _client("target_too_long", 414, "The request target is over the limit.")
UNKNOWN_EXPECTATION = _client("unknown_expectation", 417, "An `Expect` other than `100-continue`.")
UPGRADE_REQUIRED = _client("upgrade_required", 426, "The path takes a WebSocket, as `quiver join` opens it.")
HEADERS_TOO_LARGE = _client("headers_too_large", 431, "The head of the request is over the limit.")
RATE_LIMITED = ErrorKind(
    "rate_limit_exceeded",
    429,
    "rate_limit_error",
    "client",
    True,
    "Too many requests in a minute; `Retry-After` says when.",
)
TOKENS_LIMITED = ErrorKind(
    "token_limit_exceeded",
    429,
    "rate_limit_error",
    "client",
    True,
    "Too many tokens in a minute; `Retry-After` says when.",
)
QUEUE_FULL = ErrorKind(
    "queue_full", 429, "rate_limit_error", "gateway", True, "All servers are busy, and so many wait already."
)
NOT_IMPLEMENTED = _client("not_implemented", 501, "A method or transfer coding that is not served.")
VERSION_NOT_SUPPORTED = _client("version_not_supported", 505, "An HTTP version other than 1.0 and 1.1.")
INTERNAL_ERROR = _gateway("internal_error", 500, "A fault of Quiver's own; the log has it under the request's id.")
ENGINE_ERROR = _gateway("engine_error", 500, "The built-in engine failed on this request.")
MODEL_NOT_LOADED = _gateway(
    "model_not_loaded", 503, "The model is not loaded: its file could not be, or it was unloaded."
)
ENGINE_STOPPED = _gateway("engine_stopped", 503, "The built-in engine is shutting down.")
NO_HEALTHY_BACKEND = _gateway("no_healthy_backend", 503, "Servers offer the model, but none can be reached.")
CHECK_FAILED = _client(
    "check_failed", 503, "The server to be registered failed its first check; nothing was stored.", retryable=True
)
QUEUE_TIMEOUT = _gateway("queue_timeout", 503, "No server became free in time.")
SHUTTING_DOWN = _gateway("shutting_down", 503, "The gateway is draining and takes no new requests.")
UPSTREAM_UNREACHABLE = _upstream("upstream_unreachable", 502, "The server could not be connected to.")
UPSTREAM_FORBIDDEN = _upstream(
    "upstream_forbidden", 502, "The server's address is one that `egress` does not allow.", retryable=False
)
UPSTREAM_UNAUTHORIZED = _upstream(
    "upstream_unauthorized", 502, "The server refused the gateway's own key.", retryable=False
)
UPSTREAM_BUSY = _upstream("upstream_busy", 429, "The server asks for a pause; `Retry-After` says how long.")
UPSTREAM_MALFORMED = _upstream("upstream_malformed", 502, "The server's reply is not well-formed.")
UPSTREAM_TRUNCATED = _upstream("upstream_truncated", 502, "The server closed the connection inside its reply.")
UPSTREAM_ERROR = _upstream("upstream_error", 502, "The server answered with an error that is not OpenAI's envelope.")
UPSTREAM_REFUSED = _client(
    "upstream_refused", 400, "The server refused the request; its status and words are passed on."
)
UPSTREAM_TIMEOUT = _upstream("upstream_timeout", 504, "The server did not answer in time.")
DEADLINE_EXCEEDED = _gateway("deadline_exceeded", 504, "The request used up its total time.")

CATALOGUE: tuple[ErrorKind, ...] = tuple(kind for kind in globals().values() if isinstance(kind, ErrorKind))
BY_CODE: dict[str, ErrorKind] = {kind.code: kind for kind in CATALOGUE}

# What a codec error's status stands for; its own text says which rule was broken.
BY_STATUS: dict[int, ErrorKind] = {
    400: MALFORMED_REQUEST,
    405: METHOD_NOT_ALLOWED,
    408: REQUEST_TIMEOUT,
    413: BODY_TOO_LARGE,
    414: TARGET_TOO_LONG,
    417: UNKNOWN_EXPECTATION,
    431: HEADERS_TOO_LARGE,
    501: NOT_IMPLEMENTED,
    505: VERSION_NOT_SUPPORTED,
}


class ErrorBody(msgspec.Struct, frozen=True):
    """The inner object of OpenAI's error envelope."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(msgspec.Struct, frozen=True):
    """OpenAI's error envelope, used by every path of Quiver."""

    error: ErrorBody


class ApiError(Exception):
    """An error on its way to the client.

    `param` names the request's field at fault, `retry_after` (whole seconds) becomes the header of that name, `extra` are
    further reply headers.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        extra: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.extra = extra

    def envelope(self) -> ErrorEnvelope:
        return ErrorEnvelope(ErrorBody(self.message, self.kind.type, self.param, self.kind.code))

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Reply headers that belong to this error."""
        headers = list(self.extra)
        if self.retry_after is not None:
            headers.append((b"retry-after", b"%d" % self.retry_after))
        if self.kind.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        return headers
