"""One reply on its way downstream: the only thing that writes to a client during an exchange.

It knows the commit point - the first content byte - and that a reply is started once, whoever starts it: a backend, a
heartbeat, or an error. Errors after the start of a stream become an event in the stream.
"""

from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Protocol

import msgspec
import trio
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import Usage

from .access.limits import Limited
from .content import Content
from .telemetry.histogram import Histogram
from .telemetry.record import EngineTimings

Headers = Sequence[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")
JSON_HEADERS: Headers = (JSON_TYPE,)
STREAM_HEADERS: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
)
HEARTBEAT = b": heartbeat\n\n"
# White space before a JSON value means nothing (RFC 8259, 2), and keeps an idle connection open.
BLANK = b" "
DONE = b"data: [DONE]\n\n"


def _last_event(status: int, body: bytes) -> bytes:
    """A whole reply as the end of a stream. Line ends have no meaning in JSON, and would end the event."""
    event = b"data: " + body.replace(b"\r", b"").replace(b"\n", b"") + b"\n\n"
    return event + DONE if status < 400 else event


class DownstreamGone(Exception):
    """The client closed its connection or stopped reading; there is nobody to answer."""


class Downstream(Protocol):
    """The client's side of one exchange. Every method raises `DownstreamGone`."""

    def send_response(self, status: int, headers: Headers, body: bytes | None) -> Awaitable[None]:
        """The whole reply, or with `body` None the head of a reply that follows in pieces."""
        ...

    def send_data(self, data: bytes) -> Awaitable[None]: ...

    def send_end(self, last: bytes) -> Awaitable[None]:
        """The end of a reply in pieces, with its last bytes (perhaps none) in the same write."""
        ...


class Reader(Protocol):
    """Who wants to know what is in a reply."""

    def read(self, data: bytes) -> None: ...


class Reply:
    """Writes one reply.

    `started`: the head, which has `status`, is out. `committed`: content is out, so no other backend may answer. `refused`: the
    content is an error. `gone`: the client is not there any more, which was noticed at `left_at`. `gaps` counts the times
    between pieces of a stream; `answer` is shown all of its content. `usage`: what it cost, set by the backend as soon as that
    is known, or `estimated`. `engine`: where the built-in engine's time went. `extra`: headers that come on top. `limits`:
    whose limits the headers tell of. `cors`: headers for pages of other origins. `content` gets what is sent, when somebody
    asked for that to be kept. `beat_due`: when silence has to be broken, on Trio's clock; `inf` until `beats` was called.
    """

    # Most replies never change these: they stand here once instead of being set for each.
    beat_due = inf
    extra: Headers = ()
    cors: Headers = ()
    limits: Limited | None = None
    server_id: str | None = None
    status = 0
    started = False
    committed = False
    committed_at: float | None = None
    finished = False
    refused = False
    gone = False
    left_at: float | None = None
    gaps: Histogram | None = None
    answer: Reader | None = None
    usage: Usage | None = None
    estimated = False
    engine: EngineTimings | None = None
    content: Content | None = None
    _beating: trio.Event | None = None
    _comment: Callable[[], bytes] | None = None
    _comment_interval = inf
    _interval = 0.0
    _sent_at = 0.0
    _streams = False
    _writing = False

    def __init__(self, downstream: Downstream, request_id: str) -> None:
        self._downstream, self.request_id = downstream, request_id

    def __repr__(self) -> str:
        state = "finished" if self.finished else "committed" if self.committed else "open"
        return f"<Reply {self.request_id}: {self.status or 'no status'}, {state}>"

    def beats(self, interval: float, *, stream: bool) -> None:
        """Break a silence of `interval` seconds: with comments in a stream, with blanks before a JSON reply."""
        self._interval, self._streams = interval, stream
        self.beat_due = trio.current_time() + interval

    def say_meanwhile(self, comment: Callable[[], bytes] | None, interval: float = inf) -> None:
        """While there is a `comment`, it breaks the silence of a stream in the heartbeat's place, every `interval` seconds."""
        self._comment, self._comment_interval = comment, interval
        if self._streams and comment is not None:
            self.beat_due = min(self.beat_due, trio.current_time() + interval)

    async def complete(self, status: int, body: bytes, headers: Headers = JSON_HEADERS) -> None:
        """Send a whole reply. Where a heartbeat has promised a stream, `body` (JSON) becomes its last event."""
        if self.answer is not None:
            self.answer.read(body)
        self._writing = True  # keeps further heartbeats back
        if self._beating is not None:
            await self._wait_for_beat(self._beating)
        self._commit()
        promised, self.started, self.finished, self.refused = self.started, True, True, status >= 400
        if self.content is not None and not self.refused:
            self.content.take_body(body)
        try:
            if promised:
                await self._downstream.send_end(_last_event(status, body) if self._streams else body)
                return
            self.status = status
            await self._downstream.send_response(status, self._with_standard(headers), body)
        except DownstreamGone:
            self._gone()
            raise

    async def send_events(self, events: bytes) -> None:
        """Send complete server-sent events, after the head if that is not out yet."""
        if self.answer is not None:
            self.answer.read(events)
        self._writing = True  # keeps further heartbeats back
        if self._beating is not None:
            await self._wait_for_beat(self._beating)
        self._commit()
        if self.content is not None:
            self.content.take_events(events)
        try:
            if not self.started:
                await self._open(STREAM_HEADERS)
            await self._downstream.send_data(events)
        except DownstreamGone:
            self._gone()
            raise
        self._writing = False
        if self._interval or self.gaps is not None:
            now = trio.current_time()
            if self._interval:
                self.beat_due = now + self._interval
            if self.gaps is not None:
                if self._sent_at:
                    self.gaps.observe(now - self._sent_at)
                self._sent_at = now

    async def end_stream(self, last: bytes = b"") -> None:
        """End the stream cleanly, with its last events."""
        if self.answer is not None:
            self.answer.read(last)
        self._writing = True  # keeps further heartbeats back
        if self._beating is not None:
            await self._wait_for_beat(self._beating)
        self._commit()
        if self.content is not None:
            self.content.take_events(last)
        try:
            if not self.started:
                await self._open(STREAM_HEADERS)
            self.finished = True
            await self._downstream.send_end(last)
        except DownstreamGone:
            self._gone()
            raise

    async def fail(self, error: ApiError) -> None:
        """Tell the client of `error`: an envelope, or the last event of a stream that already runs."""
        if not self.finished:
            if error.extra:
                self.limits = None  # the error has told of them
            envelope = msgspec.json.encode(error.envelope())
            await self.complete(error.kind.status, envelope, [JSON_TYPE, *error.headers()])

    async def beat(self) -> None:
        """Break the silence, so that no proxy on the way gives up. For the exchange's guard, beside whatever writes."""
        self.beat_due = trio.current_time() + min(self._interval, self._comment_interval)
        if self._writing:
            return
        self._beating = beating = trio.Event()
        try:
            if not self.started:
                await self._open(STREAM_HEADERS if self._streams else JSON_HEADERS)
            comment = self._comment() if self._comment is not None else HEARTBEAT
            await self._downstream.send_data(comment if self._streams else BLANK)
        except DownstreamGone:
            self._gone()
            raise
        finally:
            self._beating = None
            beating.set()

    async def _open(self, headers: Headers) -> None:
        self.started = True
        self.status = 200
        await self._downstream.send_response(200, self._with_standard(headers), None)

    def _gone(self) -> None:
        if not self.gone:
            self.gone, self.left_at = True, trio.current_time()

    def _commit(self) -> None:
        if not self.committed:
            self.committed = True
            self.committed_at = trio.current_time()

    async def _wait_for_beat(self, beating: trio.Event) -> None:
        try:
            await beating.wait()
        except trio.Cancelled:
            self._writing = False  # another attempt may follow this one
            raise

    def _with_standard(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        standard = [*headers, *self.extra, *self.cors, (b"x-request-id", self.request_id.encode())]
        if self.limits is not None:
            standard += self.limits.limit_headers(self.committed_at or trio.current_time())
        if self.server_id is not None:
            standard.append((b"x-gateway-server-id", self.server_id.encode()))
        return standard
