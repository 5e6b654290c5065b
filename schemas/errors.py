"""The error catalogue: every error a client can meet, in one table, with its status and stable code.

An `ApiError` is raised anywhere on a request's path and turned into OpenAI's envelope in one place. Codes are stable: clients
may match on them. `docs/errors.md` lists the table and a test keeps the two equal.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

Fault = Literal["client", "upstream", "gateway"]
# What kind of trouble it is. `transient` passes by itself; `configuration` and `resource` need an operator, who changes a
# setting or gives more of something; `model` is a model's own failure; `data` is what was sent.
Category = Literal["transient", "configuration", "resource", "model", "data"]


class ErrorKind(msgspec.Struct, frozen=True):
    """One row of the catalogue: what the client sees, whose fault it is, whether trying again can help, what kind of trouble it
    is, and what to do about it.
    """

    code: str
    status: int
    type: str
    fault: Fault
    retryable: bool
    meaning: str
    category: Category = "data"
    remedy: str = "Change the request as the message says."


def _client(
    code: str,
    status: int,
    meaning: str,
    *,
    retryable: bool = False,
    category: Category = "data",
    remedy: str = "Change the request as the message says.",
) -> ErrorKind:
    return ErrorKind(code, status, "invalid_request_error", "client", retryable, meaning, category, remedy)


def _upstream(
    code: str,
    status: int,
    meaning: str,
    *,
    retryable: bool = True,
    category: Category = "transient",
    remedy: str = "Try again; if it stays, look at the server's own log.",
) -> ErrorKind:
    return ErrorKind(code, status, "upstream_error", "upstream", retryable, meaning, category, remedy)


def _gateway(
    code: str,
    status: int,
    meaning: str,
    *,
    retryable: bool = True,
    category: Category = "transient",
    remedy: str = "Try again after `Retry-After`.",
) -> ErrorKind:
    return ErrorKind(code, status, "server_error", "gateway", retryable, meaning, category, remedy)


MALFORMED_REQUEST = _client(
    "malformed_request",
    400,
    "The bytes are not a well-formed HTTP/1.1 request.",
    remedy="Send valid HTTP/1.1; the message names the rule.",
)
INVALID_JSON = _client(
    "invalid_json", 400, "The body is not JSON.", remedy="Send a JSON body; the message says where it breaks."
)
INVALID_REQUEST = _client(
    "invalid_request",
    400,
    "A field is missing, of the wrong type, or out of range.",
    remedy="Correct the field that `param` names.",
)
UNSUPPORTED_PARAMETER = _client(
    "unsupported_parameter",
    400,
    "The model cannot honour a parameter that was sent.",
    remedy="Leave the parameter out, or ask another model.",
)
CONTEXT_LENGTH_EXCEEDED = _client(
    "context_length_exceeded",
    400,
    "Prompt and reply do not fit the model's context.",
    remedy="Shorten the prompt or `max_tokens`, or ask a model with a longer context.",
)
INVALID_API_KEY = ErrorKind(
    "invalid_api_key",
    401,
    "authentication_error",
    "client",
    False,
    "The key is missing or not known here.",
    category="configuration",
    remedy="Send a key that is known here: `Authorization: Bearer YOUR_KEY`.",
)
CONFIG_REFUSED = _client(
    "config_refused",
    422,
    "The configuration cannot be used; the one before stays in force.",
    category="configuration",
    remedy="Correct what the message names, and reload again.",
)
EXPIRED_API_KEY = ErrorKind(
    "expired_api_key",
    401,
    "authentication_error",
    "client",
    False,
    "The key was known here, until a moment that is past.",
    category="configuration",
    remedy="Ask whoever gave you the key for a new one.",
)
REVOKED_API_KEY = ErrorKind(
    "revoked_api_key",
    401,
    "authentication_error",
    "client",
    False,
    "The key was revoked, or another took its place.",
    category="configuration",
    remedy="Use the key that took its place, or ask for a new one.",
)
MODEL_NOT_ALLOWED = ErrorKind(
    "model_not_allowed",
    403,
    "permission_error",
    "client",
    False,
    "The key may not use this model.",
    category="configuration",
    remedy="Ask for a model the key may use, or have the key's `models` changed.",
)
ADMIN_FORBIDDEN = ErrorKind(
    "admin_forbidden",
    403,
    "permission_error",
    "client",
    False,
    "The admin API takes `auth.admin_key`, or when none is set requests from the gateway's own machine.",
    category="configuration",
    remedy="Use the admin key, or the gateway's own machine.",
)
JOIN_FORBIDDEN = ErrorKind(
    "join_forbidden",
    403,
    "permission_error",
    "client",
    False,
    "Joining takes `join.key` or `auth.admin_key`, or when none is set a joiner on the gateway's own machine.",
    category="configuration",
    remedy="Have the gateway's operator set `join.key`, and show it.",
)
MODEL_NOT_FOUND = _client(
    "model_not_found",
    404,
    "No server offers this model.",
    category="configuration",
    remedy="Ask for one of the models the message names, or register a server that has it.",
)
NOT_FOUND = _client("not_found", 404, "No such path.", remedy="Look the path up in `/docs`.")
METHOD_NOT_ALLOWED = _client(
    "method_not_allowed", 405, "The path exists, but not for this method.", remedy="Use the method that `Allow` names."
)
MODEL_LOADING = _client(
    "model_loading",
    409,
    "The model is being loaded already.",
    retryable=True,
    category="transient",
    remedy="Wait for the load to end.",
)
LOAD_CANCELLED = _client(
    "load_cancelled",
    409,
    "The model was unloaded before it was loaded.",
    category="transient",
    remedy="Load it again if it is still wanted.",
)
MODEL_UNUSABLE = _client(
    "model_unusable",
    422,
    "The file cannot be served as a model; the message says why.",
    category="model",
    remedy="Use another file, or quantization, of the model.",
)
CONFIGURED_SERVER = _client(
    "configured_server",
    409,
    "The server is written in the configuration file, and is changed or removed there.",
    category="configuration",
    remedy="Change the file; a running gateway reads it again.",
)
JOINED_SERVER = _client(
    "joined_server",
    409,
    "The server has joined by itself, and is changed where it runs.",
    category="configuration",
    remedy="Start `quiver join` there with other options. Pause, drain and take out work here.",
)
CONFIGURED_KEY = _client(
    "configured_key",
    409,
    "The key is written in the configuration file, which is where it is changed.",
    category="configuration",
    remedy="Change it in the configuration file, and reload that.",
)
KEY_EXISTS = _client(
    "key_exists",
    409,
    "A key in use has this name, or the key is known here already.",
    category="data",
    remedy="Choose another name, or revoke the key that has it.",
)
KEY_REVOKED = _client(
    "key_revoked", 409, "The key is revoked, which is for good.", category="configuration", remedy="Create another key."
)
VERSION_MISMATCH = _client(
    "version_mismatch",
    412,
    "What was to be changed is not what `If-Match` names any more; read it again.",
    remedy="Read it again, and send its new `ETag`.",
)
UNSUPPORTED_MEDIA_TYPE = _client(
    "unsupported_media_type",
    415,
    "The body is not declared as JSON.",
    remedy="Send `Content-Type: application/json`.",
)
INSUFFICIENT_MEMORY = _client(
    "insufficient_memory",
    507,
    "The model needs more memory than there is; the message says what to change.",
    category="resource",
    remedy="Unload a model, choose a smaller one, or raise `engine.memory_limit`.",
)
REQUEST_TIMEOUT = _client(
    "request_timeout",
    408,
    "The request did not arrive in time.",
    retryable=True,
    category="transient",
    remedy="Send the request faster, or raise `server.head_timeout` or `server.body_timeout`.",
)
BODY_TOO_LARGE = _client(
    "body_too_large", 413, "The body is over the limit.", remedy="Send less, or raise `server.max_body`."
)
TARGET_TOO_LONG = _client("target_too_long", 414, "The request target is over the limit.", remedy="Shorten the URL.")
UNKNOWN_EXPECTATION = _client(
    "unknown_expectation", 417, "An `Expect` other than `100-continue`.", remedy="Leave `Expect` out."
)
UPGRADE_REQUIRED = _client(
    "upgrade_required",
    426,
    "The path takes a WebSocket, as `quiver join` opens it.",
    remedy="Use `quiver join`; if you do, let what stands before the gateway pass WebSockets on.",
)
HEADERS_TOO_LARGE = _client(
    "headers_too_large",
    431,
    "The head of the request is over the limit.",
    remedy="Send fewer headers, or raise `server.max_head`.",
)
RATE_LIMITED = ErrorKind(
    "rate_limit_exceeded",
    429,
    "rate_limit_error",
    "client",
    True,
    "Too many requests in a minute; `Retry-After` says when.",
    category="resource",
    remedy="Wait for `Retry-After`, or have the key's limit raised.",
)
TOKENS_LIMITED = ErrorKind(
    "token_limit_exceeded",
    429,
    "rate_limit_error",
    "client",
    True,
    "Too many tokens in a minute; `Retry-After` says when.",
    category="resource",
    remedy="Wait for `Retry-After`, or have the key's limit raised.",
)
BUDGET_EXCEEDED = ErrorKind(
    "budget_exceeded",
    429,
    "rate_limit_error",
    "client",
    True,
    "The key's tokens for the day, week or month are spent; `Retry-After` says when the next begins.",
    category="resource",
    remedy="Wait for `Retry-After`, or have the key's budget raised.",
)
BUDGET_EXHAUSTED = ErrorKind(
    "budget_exhausted",
    403,
    "permission_error",
    "client",
    False,
    "The key's tokens are spent, once and for all.",
    category="resource",
    remedy="Have the key's budget raised.",
)
AUTHENTICATION_LIMITED = ErrorKind(
    "authentication_limited",
    429,
    "rate_limit_error",
    "client",
    True,
    "Too many wrong keys came from the address; `Retry-After` says when it may try again.",
    category="resource",
    remedy="Wait for `Retry-After`, and send the right key.",
)
QUEUE_FULL = ErrorKind(
    "queue_full",
    429,
    "rate_limit_error",
    "gateway",
    True,
    "All servers are busy, and so many wait already.",
    category="resource",
    remedy="Wait for `Retry-After`; add servers, or raise `admission.queue`.",
)
NOT_IMPLEMENTED = _client(
    "not_implemented",
    501,
    "A method or transfer coding that is not served.",
    remedy="Use another method or transfer coding.",
)
VERSION_NOT_SUPPORTED = _client(
    "version_not_supported", 505, "An HTTP version other than 1.0 and 1.1.", remedy="Speak HTTP/1.1."
)
INTERNAL_ERROR = _gateway(
    "internal_error",
    500,
    "A fault of Quiver's own; the log has it under the request's id.",
    category="transient",
    remedy="Report it with the log's lines of this request's id.",
)
ENGINE_ERROR = _gateway(
    "engine_error",
    500,
    "The built-in engine failed on this request.",
    category="model",
    remedy="Try again; if it stays, report it with the log's lines of this request's id.",
)
MODEL_NOT_LOADED = _gateway(
    "model_not_loaded",
    503,
    "The model is not loaded: its file could not be, or it was unloaded.",
    category="model",
    remedy="Load it again; `quiver models list` says why it is not.",
)
ENGINE_STOPPED = _gateway("engine_stopped", 503, "The built-in engine is shutting down.")
NO_HEALTHY_BACKEND = _gateway(
    "no_healthy_backend",
    503,
    "Servers offer the model, but none can be reached.",
    category="transient",
    remedy="Try again; `quiver servers` says why each is out.",
)
CHECK_FAILED = _client(
    "check_failed",
    503,
    "The server to be registered failed its first check; nothing was stored.",
    retryable=True,
    category="configuration",
    remedy="Start the server, or correct its URL or key; the message has the reason.",
)
QUEUE_TIMEOUT = _gateway(
    "queue_timeout",
    503,
    "No server became free in time.",
    category="resource",
    remedy="Try again later; add servers, or raise `admission.max_wait`.",
)
SERVERS_PAUSED = _gateway(
    "servers_paused",
    503,
    "Every server that offers the model is paused or being drained by its operator.",
    category="resource",
    remedy="Try again later; `quiver servers resume ID` lets one serve again.",
)
STORE_UNAVAILABLE = _gateway(
    "store_unavailable",
    503,
    "The change could not be written to the disk, so it was not made; `GET /admin/stats` says why.",
    category="resource",
    remedy="Make room on the disk of the data folder, or its database writable, and try again.",
)
QUERY_TIMEOUT = _gateway(
    "query_timeout",
    503,
    "A question to the history took too long.",
    retryable=False,
    category="resource",
    remedy="Ask for less time, with `since` and `until`.",
)
SHUTTING_DOWN = _gateway("shutting_down", 503, "The gateway is draining and takes no new requests.")
UPSTREAM_UNREACHABLE = _upstream(
    "upstream_unreachable",
    502,
    "The server could not be connected to.",
    remedy="Try again; see that the server runs and its URL is right.",
)
UPSTREAM_FORBIDDEN = _upstream(
    "upstream_forbidden",
    502,
    "The server's address is one that `egress` does not allow.",
    retryable=False,
    category="configuration",
    remedy="Add the address to `egress.allow`.",
)
UPSTREAM_UNAUTHORIZED = _upstream(
    "upstream_unauthorized",
    502,
    "The server refused the gateway's own key.",
    retryable=False,
    category="configuration",
    remedy="Give the gateway the right `api_key` for the server.",
)
UPSTREAM_BUSY = _upstream(
    "upstream_busy", 429, "The server asks for a pause; `Retry-After` says how long.", remedy="Wait for `Retry-After`."
)
UPSTREAM_MALFORMED = _upstream(
    "upstream_malformed",
    502,
    "The server's reply is not well-formed.",
    category="data",
    remedy="Look at the server's version and at proxies before it.",
)
UPSTREAM_TRUNCATED = _upstream("upstream_truncated", 502, "The server closed the connection inside its reply.")
UPSTREAM_ERROR = _upstream(
    "upstream_error", 502, "The server answered with an error that is not OpenAI's envelope.", category="model"
)
UPSTREAM_REFUSED = _client(
    "upstream_refused", 400, "The server refused the request; its status and words are passed on."
)
UPSTREAM_TIMEOUT = _upstream(
    "upstream_timeout",
    504,
    "The server did not answer in time.",
    remedy="Try again, or raise `limits.first_byte` or `limits.idle`.",
)
DEADLINE_EXCEEDED = _gateway(
    "deadline_exceeded", 504, "The request used up its total time.", remedy="Ask for less, or raise `limits.request`."
)

CATALOGUE: tuple[ErrorKind, ...] = tuple(kind for kind in globals().values() if isinstance(kind, ErrorKind))
BY_CODE: dict[str, ErrorKind] = {kind.code: kind for kind in CATALOGUE}

# What a codec error's status stands for; its own text says which rule was broken.
BY_STATUS: dict[int, ErrorKind] = {
    400: MALFORMED_REQUEST,
    405: METHOD_NOT_ALLOWED,
    408: REQUEST_TIMEOUT,
    413: BODY_TOO_LARGE,
    414: TARGET_TOO_LONG,
    415: UNSUPPORTED_MEDIA_TYPE,
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
    further reply headers. `words` are for the operator, where those say more than the client may know.
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
        self.message = self.words = message
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
