"""Types of the Rust extension: the HTTP codec and the inference engine. One section per binding file."""

import builtins
from typing import ClassVar, Final, final

__all__ = [
    "LAST_CHUNK",
    "ContextOverflow",
    "Embedded",
    "EmbeddingTicket",
    "Encoder",
    "EncoderInfo",
    "Engine",
    "EngineError",
    "EngineStatistics",
    "EngineStopped",
    "Failed",
    "Finished",
    "HttpError",
    "InvalidRequest",
    "LoadProgress",
    "MemoryEstimate",
    "ModelInfo",
    "ModelLoadError",
    "RequestHead",
    "RequestParser",
    "ResponseHead",
    "ResponseParser",
    "SseScanner",
    "Started",
    "Text",
    "TokenLogprob",
    "__version__",
    "detokenize",
    "encode_chunk",
    "encode_request",
    "encode_response",
    "estimate_memory",
    "evaluate",
    "is_encoder",
    "render_chat",
    "tokenize",
]

__version__: Final[str]

# --- HTTP codec ---
# Sans-I/O: bytes in, messages out. A parser belongs to one connection and is used by one task at a time.

class HttpError(ValueError):
    """The peer sent what is not, or is not taken as, HTTP/1.1. The parser that raised it raises it again from then on.

    Raised by the codec only. Codes and their statuses, for requests: 400 `bad_request_line`, `bad_target`, `bad_host`,
    `bad_header`, `bad_framing`, `bad_chunk`; 413 `body_too_large`; 414 `target_too_long`; 417 `expectation_failed`; 431
    `head_too_large`; 501 `method_not_implemented`, `transfer_coding_not_implemented`; 505 `http_version_not_supported`,
    `http2_preface`. For responses and event streams always 502: `upstream_malformed`, `upstream_truncated`.
    """

    status: int
    """The HTTP status that answers it."""
    code: str
    """The stable name of what is wrong."""
    message: str
    """What is wrong, for people; no full stop; the same as `str(error)`."""

@final
class RequestHead:
    """The head of a request. All of it has been checked: see `RequestParser.head`."""

    @property
    def method(self) -> str:
        """As received; methods are case-sensitive."""
    @property
    def target(self) -> str:
        """The request target as received."""
    @property
    def path(self) -> str:
        """The target's path without the query, not percent-decoded. Begins with `/`, or is `*` for `OPTIONS *`."""
    @property
    def query(self) -> str:
        """What follows the first `?` of the target; empty when there is none."""
    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Fields in the order received, names in lower case, values without white space around them. The same list
        every time.
        """
    @property
    def http10(self) -> bool:
        """Does the client speak HTTP/1.0?"""
    @property
    def keep_alive(self) -> bool:
        """Does the client let the connection carry another request?"""
    @property
    def content_length(self) -> int | None: ...
    @property
    def chunked(self) -> bool:
        """Does the body come in chunks, its length unknown?"""
    @property
    def expect_continue(self) -> bool:
        """Does the client wait for `100 Continue` before it sends the body?"""
    @property
    def upgrade(self) -> bool:
        """Does the client offer another protocol (an `Upgrade` field on HTTP/1.1)?"""
    @property
    def has_body(self) -> bool:
        """Is there a body: chunks, or a length above zero?"""
    @property
    def raw(self) -> bytes:
        """The exact bytes of the head, its last empty line included."""
    def header(self, name: bytes) -> bytes | None:
        """The first value of the field. `name` may be in any case."""

@final
class RequestParser:
    """Reads the requests of one downstream connection, one after another: `head` until it answers, `body` until it
    answers, again.
    """

    def __new__(cls, *, max_head: int = 32768, max_body: int = 16777216) -> RequestParser:
        """`max_head` bounds request line and fields (the request line also 8,192 bytes), `max_body` a decoded body; in
        bytes.
        """
    def receive(self, data: bytes) -> None:
        """Takes bytes from the connection. Never fails; the work of all calls together is linear."""
    def head(self) -> RequestHead | None:
        """The next request's head, or None while it is incomplete.

        Raises HttpError when the request is refused; on `http2_preface` every byte received is still there for
        `unread`. Raises RuntimeError while the body of the last request has not been taken.
        """
    def body(self) -> bytes | None:
        """The whole decoded body (`b""` when there is none), or None while it is incomplete. Trailer fields are
        dropped.

        Raises HttpError when a chunk is malformed or the body outgrows `max_body`, RuntimeError before `head` has
        answered.
        """
    def unread(self) -> bytes:
        """Takes all bytes that no message has taken, to hand the connection over.

        After `head` has answered and before `body` is called these are the body as it was sent and all that follows it.
        While a head is incomplete, or after it has been refused, these are the bytes of the head too.
        """
    @property
    def buffered(self) -> int:
        """How many bytes no message has taken."""

@final
class ResponseHead:
    """The head of a final response (not 1xx)."""

    @property
    def status(self) -> int:
        """Between 200 and 599."""
    @property
    def reason(self) -> bytes:
        """The reason phrase, often empty."""
    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Fields in the order received, names in lower case, values without white space around them. The same list
        every time.
        """
    @property
    def content_length(self) -> int | None:
        """What the field says; a response to HEAD, or with status 304, may have a length and no body."""
    @property
    def chunked(self) -> bool:
        """Does the body come in chunks?"""
    @property
    def keep_alive(self) -> bool:
        """Does the upstream let the connection carry another request? Never so for a body that ends with the
        connection.
        """
    def header(self, name: bytes) -> bytes | None:
        """The first value of the field. `name` may be in any case."""

@final
class ResponseParser:
    """Reads one response of an upstream: `head` until it answers, then `body` after each `receive` until `complete`."""

    def __new__(cls, *, method: str, max_head: int = 65536) -> ResponseParser:
        """`method` of the request that is answered, as a response to HEAD has no body; `max_head` bounds each head, in
        bytes.
        """
    def receive(self, data: bytes) -> None:
        """Takes bytes from the connection; `b""` says that the upstream has closed it."""
    def head(self) -> ResponseHead | None:
        """The head, or None while it is incomplete. At most eight 1xx responses are passed over; 101 is refused.

        Raises HttpError: `upstream_malformed`, or `upstream_truncated` when the connection ended first. Raises
        RuntimeError when the head has been taken.
        """
    def body(self) -> bytes:
        """The decoded bytes that have arrived since the last call, maybe none.

        Raises HttpError: `upstream_malformed`, or `upstream_truncated` once the connection has ended within the message
        and all bytes before that have been returned. Raises RuntimeError before `head` has answered.
        """
    @property
    def complete(self) -> bool:
        """Has the message ended as it said it would? True only once `body` has returned its last bytes."""
    @property
    def reusable(self) -> bool:
        """May the connection carry another request: complete, kept alive, not closed, and no byte after the message?"""

def encode_request(method: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes | None) -> bytes:
    """A whole request, written anew: with `body` its own Content-Length, with None no body and no length.

    `headers` must hold exactly one `host`. Left out of them: hop-by-hop fields, fields that a `connection` field names,
    `content-length`, `transfer-encoding`, `proxy-authorization`, and `expect`, since the body follows at once.

    Raises ValueError for a method, target, name or value that HTTP does not allow, such as one with CR, LF or NUL.
    """

def encode_response(
    status: int,
    headers: list[tuple[bytes, bytes]],
    body: bytes | None,
    *,
    close: bool,
    http10: bool = False,
    head_only: bool = False,
) -> bytes:
    """A whole response when `body` is given; with None the head of one whose body follows in chunks.

    1xx, 204 and 304 have neither length nor body. `close` adds `connection: close`. For a client that speaks HTTP/1.0
    set `http10`: a body without length then follows as it is and ends with the connection, and persistence is said in
    the head. `head_only` leaves the body out and keeps its length, for HEAD. Fields of `headers` that are about length
    or connection are left out.

    Raises ValueError for a status, name or value that HTTP does not allow.
    """

def encode_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; `b""` for no data, since an empty chunk would end the body."""

LAST_CHUNK: Final[bytes]
"""The end of a chunked body."""

@final
class SseScanner:
    """Watches the event stream of an upstream on its way through, without decoding events. Line ends may be LF, CR,
    CRLF or mixed.
    """

    def __new__(cls, *, max_event: int = 1048576) -> SseScanner:
        """`max_event` bounds one event, and so what is held back, in bytes."""
    def feed(self, data: bytes) -> bytes:
        """The bytes of all events that are whole now, exactly as they came, maybe none; a leading byte order mark is
        dropped.

        When `data` is nothing but whole events it is returned itself. Raises HttpError `upstream_malformed` when an
        event is larger than `max_event`, and again from then on.
        """
    def rest(self) -> bytes:
        """The bytes held back: the unfinished event."""
    @property
    def events(self) -> int:
        """How many events with data have passed; comments are not counted, `[DONE]` is."""
    @property
    def done(self) -> bool:
        """Has an event with the data `[DONE]` passed?"""
    @property
    def usage(self) -> bytes | None:
        """The data of the newest event in which a member `usage`, at any depth, is an object: JSON, unless the upstream
        lies.
        """

# --- Engine ---
# One engine per model file, on threads of its own. Requests go in by `submit`, events come out by `drain` once `fd` is
# readable. Every accepted request gets any number of Started and Text, then exactly one Finished or Failed.

class EngineError(Exception):
    """The engine cannot do what was asked.

    Codes: those of the subclasses, and `engine_forked` when a forked child uses its parent's engine.
    """

    code: str
    """The stable name of what is wrong."""

class ModelLoadError(EngineError):
    """The model file cannot be read, or is not supported. Codes such as `not_gguf`, `unsupported_architecture`."""

class InvalidRequest(EngineError):
    """The request breaks a rule: code `invalid_request`."""

    field: str
    """The field at fault."""
    reason: str
    """What is wrong with it, for people; no full stop."""

class ContextOverflow(EngineError):
    """The request does not fit into the model's context: code `context_length_exceeded`."""

    prompt: int
    """Tokens of the prompt."""
    requested: int
    """Tokens to generate; 1 when the request sets no limit."""
    limit: int
    """Tokens of the context."""

class EngineStopped(EngineError):
    """The engine is closed: code `engine_stopped`."""

@final
class TokenLogprob:
    """A token and how likely the model found it, before biases, penalties, temperature and filters."""

    def __new__(cls, token: int, bytes: bytes, logprob: float, top: list[TokenLogprob] = ...) -> TokenLogprob: ...
    @property
    def token(self) -> int: ...
    @property
    def bytes(self) -> builtins.bytes:
        """What it adds to the text: perhaps part of a character, perhaps nothing."""
    @property
    def logprob(self) -> float:
        """Natural logarithm of its probability."""
    @property
    def top(self) -> list[TokenLogprob]:
        """The most likely tokens at this place, best first; empty in these entries themselves."""
    def __eq__(self, value: object, /) -> bool: ...
    def __ne__(self, value: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]  # comparable, not hashable

@final
class Started:
    """The prompt is read and waits for its turn."""

    __match_args__ = ("request", "prompt_tokens")
    def __new__(cls, request: int, prompt_tokens: int, reasoning: bool = False) -> Started: ...
    @property
    def request(self) -> int: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def reasoning(self) -> bool:
        """Does the prompt end inside the model's reasoning?"""
    def __eq__(self, value: object, /) -> bool: ...
    def __ne__(self, value: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]  # comparable, not hashable

@final
class Text:
    """More of the answer, at least one token of it; whole characters, and nothing that may be part of a stop string."""

    __match_args__ = ("request", "text", "completion_tokens", "logprobs")
    def __new__(cls, request: int, text: str, completion_tokens: int, logprobs: list[TokenLogprob] = ...) -> Text: ...
    @property
    def request(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def completion_tokens(self) -> int:
        """Tokens generated so far, those included whose text is held back: what to `acknowledge`."""
    @property
    def logprobs(self) -> list[TokenLogprob]:
        """Of the tokens whose text begins in this one; empty unless asked for."""
    def __eq__(self, value: object, /) -> bool: ...
    def __ne__(self, value: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]  # comparable, not hashable

@final
class Finished:
    """The end of the answer. Phases that were not reached took 0 seconds."""

    __match_args__ = ("request", "reason")
    def __new__(
        cls,
        request: int,
        reason: str,
        prompt_tokens: int,
        completion_tokens: int,
        queue_seconds: float,
        prefill_seconds: float,
        decode_seconds: float,
        first_token_seconds: float,
        cached_tokens: int,
        drafted_tokens: int,
        accepted_tokens: int,
        reasoning_tokens: int,
    ) -> Finished: ...
    @property
    def request(self) -> int: ...
    @property
    def reason(self) -> str:
        """`stop` (the model ended, or a stop string came), `length` (the limit was reached) or `cancelled`."""
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int:
        """Tokens generated, the one that ended the answer included."""
    @property
    def queue_seconds(self) -> float:
        """From `submit` to the first step that computed a part of it."""
    @property
    def prefill_seconds(self) -> float:
        """From there to the first token."""
    @property
    def decode_seconds(self) -> float:
        """From the first token to the last."""
    @property
    def first_token_seconds(self) -> float:
        """From `submit` to the first token."""
    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that did not have to be computed, because the cache had them."""
    @property
    def drafted_tokens(self) -> int:
        """Tokens guessed from the text before and computed on trial."""
    @property
    def accepted_tokens(self) -> int:
        """Those of them that were right."""
    @property
    def reasoning_tokens(self) -> int:
        """Tokens of the model's reasoning with its marks, if the request named those."""
    def __eq__(self, value: object, /) -> bool: ...
    def __ne__(self, value: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]  # comparable, not hashable

@final
class Failed:
    """The end of a request that cannot be answered."""

    __match_args__ = ("request", "code", "message")
    def __new__(cls, request: int, code: str, message: str) -> Failed: ...
    @property
    def request(self) -> int: ...
    @property
    def code(self) -> str:
        """`context_length_exceeded`, `invalid_request` (the text begins with the field), `chat_template`, `grammar`,
        `engine_stopped`, `kv_full`, `deadline_exceeded`, `no_finite_logits`, `engine_internal`...
        """
    @property
    def message(self) -> str:
        """What went wrong, for people; no full stop."""
    def __eq__(self, value: object, /) -> bool: ...
    def __ne__(self, value: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]  # comparable, not hashable

@final
class ModelInfo:
    """What a model file says of itself, and how it is run."""

    @property
    def architecture(self) -> str: ...
    @property
    def name(self) -> str:
        """Empty when the file has none."""
    @property
    def parameters(self) -> int: ...
    @property
    def context_length(self) -> int:
        """Tokens of the longest sequence, as the engine runs it."""
    @property
    def vocabulary(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def file_type(self) -> str:
        """How most weights are stored, such as `Q4_K_M`."""
    @property
    def has_chat_template(self) -> bool:
        """Can prompts be `messages`?"""
    @property
    def chat_template(self) -> str:
        """Its source, the one for requests with tools where there are two; empty when the file has none."""
    @property
    def controls(self) -> dict[str, int]:
        """Tokens that steer the model and show nothing, by name."""

@final
class EngineStatistics:
    """Figures of an engine as of its last step."""

    @property
    def live(self) -> int:
        """Sequences that run: those of open requests that hold blocks of the key-value cache."""
    @property
    def paused(self) -> int:
        """Of those, the ones whose client has not acknowledged enough."""
    @property
    def waiting(self) -> int:
        """Requests whose prompt is being read, or that wait for a place."""
    @property
    def parked(self) -> int:
        """Requests that gave their place up until their client keeps up again."""
    @property
    def finished(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def cancelled(self) -> int: ...
    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens computed; again after a preemption."""
    @property
    def reused_tokens(self) -> int:
        """Tokens that did not have to be computed, because the cache had them."""
    @property
    def prefix_hits(self) -> int:
        """Requests that had such."""
    @property
    def completion_tokens(self) -> int: ...
    @property
    def drafted_tokens(self) -> int:
        """Tokens guessed from the text before and computed on trial."""
    @property
    def accepted_tokens(self) -> int:
        """Those of them that were right."""
    @property
    def steps(self) -> int: ...
    @property
    def step_sequences(self) -> int:
        """Sequences that took part in a step, summed over all steps: divided by `steps` the mean occupancy of a batch."""
    @property
    def step_tokens(self) -> int:
        """Tokens computed, summed over all steps."""
    @property
    def preemptions(self) -> int:
        """Times a sequence lost its place, because memory was full or its client did not keep up."""
    @property
    def retries(self) -> int:
        """Steps that failed and were done again one sequence at a time."""
    @property
    def kv_bytes(self) -> int:
        """Memory of the key-value cache: of all blocks ever used."""
    @property
    def kv_blocks_used(self) -> int:
        """Blocks of the cache (of 32 tokens each) that live sequences hold."""
    @property
    def kv_blocks_kept(self) -> int:
        """Blocks that nobody holds and that keep what they contain for a request that begins the same."""
    @property
    def kv_blocks(self) -> int:
        """All blocks that there may be."""
    @property
    def busy_seconds(self) -> float:
        """Time spent computing."""
    @property
    def prompt_seconds(self) -> float:
        """Of it, the part for prompts: each step's time divided by its tokens."""
    @property
    def completion_seconds(self) -> float:
        """And the part for generated tokens."""

@final
class Engine:
    """A loaded model and the threads that run it. Every method may be called from any thread; in a forked child all of
    them raise EngineError.
    """

    def __new__(
        cls,
        path: str,
        *,
        threads: int = 0,
        context_length: int | None = None,
        max_sequences: int = 16,
        kv_type: str = "f16",
        kv_bytes: int | None = None,
        speculate: bool = True,
        progress: LoadProgress | None = None,
    ) -> Engine:
        """Loads the model, which takes long, without the GIL. `threads` 0: one per processor; `context_length` None:
        the model's own. `kv_bytes`: the most memory of the key-value cache, taken as it is needed; None: enough for
        `max_sequences` of 4,096 tokens. `speculate`: guess tokens from the text before, where the request does not say.
        `progress` is told how far the load is, and can cancel it. Raises ModelLoadError.
        """
    @property
    def fd(self) -> int:
        """Readable when `drain` has something. Lives as long as this object."""
    @property
    def info(self) -> ModelInfo: ...
    def submit(self, request: bytes) -> int:
        """Accepts a request, the JSON of `quiver.schemas.engine.GenerateRequest`, and returns its number at once.

        Raises InvalidRequest, ContextOverflow when its tokens are known and do not fit, or EngineStopped.
        """
    def cancel(self, request: int) -> None:
        """Ends a request within one step; it gets Finished with `cancelled`. Unknown numbers are ignored."""
    def acknowledge(self, request: int, tokens: int) -> None:
        """The client has taken `tokens` tokens of the answer in all. Once `window` tokens are not acknowledged the
        sequence pauses. Unknown numbers are ignored.
        """
    def drain(self) -> list[Started | Text | Finished | Failed]:
        """All events since the last call, in order. Makes `fd` unreadable until there are more."""
    def statistics(self) -> EngineStatistics: ...
    def close(self) -> None:
        """Ends the threads after the step under way, without the GIL. Open requests get Failed with `engine_stopped`,
        which `drain` still returns.
        """

# --- Loading ---

@final
class LoadProgress:
    """How far one load is. Every method may be called from any thread and returns at once."""

    def __new__(cls) -> LoadProgress: ...
    @property
    def stage(self) -> str:
        """`header`, `vocabulary`, `weights` or `start`."""
    @property
    def done(self) -> int:
        """Bytes of weights in place."""
    @property
    def total(self) -> int:
        """Bytes of all weights; 0 while that is not known."""
    @property
    def fraction(self) -> float:
        """Of the weights, from 0 to 1."""
    @property
    def cancelled(self) -> bool: ...
    def cancel(self) -> None:
        """Ends the load at its next look, with a ModelLoadError of the code `load_cancelled`."""

@final
class MemoryEstimate:
    """Bytes that a model takes once it runs."""

    @property
    def weights(self) -> int: ...
    @property
    def kv(self) -> int:
        """Keys and values of `kv_tokens` tokens."""
    @property
    def kv_tokens(self) -> int: ...
    @property
    def scratch(self) -> int:
        """Activations, logits and the vocabulary."""
    @property
    def total(self) -> int: ...
    @property
    def trained_context(self) -> int:
        """Tokens the model was trained for; 0 for models without a cache."""

def estimate_memory(
    path: str, *, context_length: int | None = None, max_sequences: int = 16, kv_type: str = "f16"
) -> MemoryEstimate:
    """What loading the file so would take, from its header. Without a `context_length` the cache counts with 8,192
    tokens at most, over all sequences. Raises ModelLoadError.
    """

# --- Encoder ---
# Embeddings from models of the BERT family. A request does everything in `wait`, on the caller's thread and the model's
# own, without the GIL; texts of requests that wait at the same time are computed together.

def is_encoder(path: str) -> bool:
    """Does the file hold a model that makes embeddings and no text? Raises ModelLoadError when it cannot be read."""

@final
class EncoderInfo:
    """What a model file says of itself."""

    @property
    def architecture(self) -> str: ...
    @property
    def name(self) -> str:
        """Empty when the file has none."""
    @property
    def parameters(self) -> int: ...
    @property
    def context_length(self) -> int:
        """Tokens of the longest text."""
    @property
    def vocabulary(self) -> int: ...
    @property
    def width(self) -> int:
        """Numbers of an embedding."""
    @property
    def pooling(self) -> str:
        """How the tokens of a text become one vector: `mean`, `cls` or `last`."""
    @property
    def size_bytes(self) -> int: ...

@final
class Embedded:
    """The vectors of a request; each has the length 1."""

    @property
    def width(self) -> int:
        """Numbers of each vector."""
    @property
    def values(self) -> bytes:
        """The vectors one after the other, as little-endian f32."""
    @property
    def tokens(self) -> list[int]:
        """Tokens of each text, those that the model wants at both ends included."""

@final
class EmbeddingTicket:
    """One request for embeddings, from `Encoder.request`."""

    def wait(self) -> Embedded:
        """Reads the inputs, has them computed and waits for that, without the GIL: call it on a thread that may block.

        Raises InvalidRequest for an input without tokens or with an unknown one, ContextOverflow for one that is too
        long, EngineStopped after `cancel` or `Encoder.close`.
        """
    def cancel(self) -> None:
        """Ends `wait` at once."""

@final
class Encoder:
    """A loaded encoder and its thread. Every method may be called from any thread; in a forked child all of them but
    `info` raise EngineError.
    """

    def __new__(cls, path: str, *, threads: int = 0) -> Encoder:
        """Loads the model without the GIL. `threads` 0: one per processor. Raises ModelLoadError."""
    @property
    def info(self) -> EncoderInfo: ...
    def request(self, inputs: list[str | list[int]], *, dimensions: int | None = None) -> EmbeddingTicket:
        """A request that has not begun. Of each vector the first `dimensions` numbers are kept, and made a vector of
        length 1 again: good for models that were trained for it. Raises InvalidRequest when there are not so many.
        """
    def close(self) -> None:
        """Ends the thread after the batch under way, without the GIL. Open requests fail with EngineStopped."""

# --- Tokenizer ---
# For tests, tools and counting. Each call names a model file; the tokenizer of the newest one is kept in memory.

def tokenize(path: str, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
    """The tokens of `text` in the vocabulary of a model file.

    `add_special` adds the begin and end tokens that the model wants. `parse_special` takes the text of a control token
    for the token, as the output of a chat template needs and the text of a user does not. Raises ModelLoadError when
    the file cannot be read or its tokenizer is not supported.
    """

def detokenize(path: str, tokens: list[int]) -> bytes:
    """What the tokens add to the output: nothing for control tokens, perhaps half a character at the end."""

def render_chat(path: str, messages: bytes, *, extra: bytes | None = None, add_generation_prompt: bool = True) -> str:
    """The prompt that the chat template of a model file makes of `messages`, a JSON array.

    `extra` is a JSON object of further variables, such as `tools`. Raises ModelLoadError when the file or its template
    cannot be read, EngineError with the code `chat_template` when the file has none or it fails, and ValueError when
    an argument is not JSON.
    """

# --- Evaluation ---

def evaluate(path: str, tokens: list[int], *, kv_type: str = "f32", backend: str = "fused") -> bytes:
    """The logits at every position of `tokens` as native-endian f32, position by position.

    `kv_type` is how keys and values are kept: `f32`, `f16` or `q8_0`. `backend` is `fused`, what serves, or `candle`, which
    multiplies without rounding activations and knows plain decoders only. For parity tests and perplexity. Raises ValueError
    when the file cannot be loaded, a token is unknown or there are more tokens than the model's context.
    """
