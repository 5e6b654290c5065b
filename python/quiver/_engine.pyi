"""Types of the Rust extension: the HTTP codec and the inference engine. One section per binding file."""

from typing import Final, final

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

# --- Tokenizer ---
# For tests, tools and counting. Each call names a model file; the tokenizer of the newest one is kept in memory.

def tokenize(path: str, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
    """The tokens of `text` in the vocabulary of a model file.

    `add_special` adds the begin and end tokens that the model wants. `parse_special` takes the text of a control token
    for the token, as the output of a chat template needs and the text of a user does not. Raises ValueError when the
    file cannot be read or its tokenizer is not supported.
    """

def detokenize(path: str, tokens: list[int]) -> bytes:
    """What the tokens add to the output: nothing for control tokens, perhaps half a character at the end."""

def render_chat(path: str, messages: bytes, *, extra: bytes | None = None, add_generation_prompt: bool = True) -> str:
    """The prompt that the chat template of a model file makes of `messages`, a JSON array.

    `extra` is a JSON object of further variables, such as `tools`. Raises ValueError when the file has no template, and
    with what failed when the template does.
    """

# --- Evaluation ---

def evaluate(path: str, tokens: list[int], *, kv_type: str = "f32") -> bytes:
    """The logits at every position of `tokens` as native-endian f32, position by position.

    `kv_type` is how keys and values are kept, `f32` or `f16`. For parity tests and perplexity. Raises ValueError when the
    file cannot be loaded, a token is unknown or there are more tokens than the model's context.
    """
