"""What is kept of one request: the value that accounting writes and metrics count."""

from typing import TYPE_CHECKING, Literal

import msgspec
from quiver.schemas.openai import Usage

if TYPE_CHECKING:
    from .tracing import Trace

Outcome = Literal["completed", "failed", "client_gone", "cancelled"]
# Where an answer came from: a server for this request, another request in flight, or memory.
Source = Literal["server", "shared", "cache"]


class EngineTimings(msgspec.Struct, frozen=True):
    """Where the built-in engine's time went, in seconds: `queue` until it was first computed on, `prompt` from there to the
    first token, `generation` from the first token to the last, `first_token` from its arrival. Where a request has several
    sequences, the longest of each. Tokens are those of all; `cached_tokens` of the prompt were found in the cache,
    `drafted_tokens` were guessed, and `accepted_tokens` of those were right.
    """

    queue: float
    prompt: float
    generation: float
    first_token: float
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    def beside(self, other: "EngineTimings") -> "EngineTimings":
        """These of a sequence and those of another one of the same request."""
        return EngineTimings(
            max(self.queue, other.queue),
            max(self.prompt, other.prompt),
            max(self.generation, other.generation),
            max(self.first_token, other.first_token),
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.drafted_tokens + other.drafted_tokens,
            self.accepted_tokens + other.accepted_tokens,
        )


class FailedAttempt(msgspec.Struct, frozen=True):
    """One attempt that failed: on which server, with which code of the catalogue, and in whose words."""

    server_id: str
    code: str
    message: str


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of one request. `at`: Unix time of its end; times else in seconds. No key: `client` is a key's name, or
    an address. `estimated`: the usage is our guess. `engine`: of answers that the built-in engine made for this very request.
    `failures` are its attempts that failed, in order; `trace_id` is the W3C trace it belongs to. `charged`: the tokens that
    counted against its client's limits.

    `prompt` and `answer`, at most 256 KiB each, are there only where the configuration (`log.prompts`, `store.content`) or
    the client's key asks for them. Whoever keeps them must look at what asked: a record with `keep_content` may be kept with
    them anywhere, any other one only where the configuration says so.
    """

    request_id: str
    at: float
    client: str
    endpoint: str
    model: str | None
    server_id: str | None
    stream: bool
    status: int
    outcome: Outcome
    error: str | None
    source: Source
    attempts: int
    queued: float
    duration: float
    first_byte: float | None
    usage: Usage | None
    estimated: bool
    engine: EngineTimings | None = None
    keep_content: bool = False
    prompt: str | None = None
    answer: str | None = None
    failures: tuple[FailedAttempt, ...] = ()
    trace_id: str | None = None
    charged: int = 0


class Progress:
    """What the record will say, while the request is still being worked on."""

    client = ""
    model: str | None = None
    stream = False
    attempts = 0
    queued = 0.0
    error: str | None = None
    outcome: Outcome = "cancelled"
    source: Source = "server"
    failures: tuple[FailedAttempt, ...] = ()
    charged = 0
    trace_id: str | None = None
    trace: "Trace | None" = None

    def __init__(self, endpoint: str, began: float) -> None:
        self.endpoint, self.began = endpoint, began
