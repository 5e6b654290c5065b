"""One reply on its way downstream: the only thing that writes to a client during an exchange.

It knows the commit point - the first content byte - and that a reply is started once, whoever starts it: a backend, a
heartbeat, or an error. Errors after the start of a stream become an event in the stream.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import msgspec
import trio
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import Usage

Headers = Sequence[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")
STREAM_HEADERS: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
)
HEARTBEAT = b": heartbeat\n\n"
DONE = b"data: [DONE]\n\n"


def _last_event(status: int, body: bytes) -> bytes:
    """A whole reply as the end of a stream. Line ends have no meaning in JSON, and would end the event."""
    event = b"data: " + body.replace(b"\r", b"").replace(b"\n", b"") + b"\n\n"
    return event + DONE if status < 400 else event


class DownstreamGone(Exception):
    """The client closed its connection or stopped reading; there is nobody to answer."""


class Downstream(Protocol):
    """The client's side of one exchange. Every method raises `DownstreamGone`."""

    async def send_response(self, status: int, headers: Headers, body: bytes | None) -> None:
        """The whole reply, or with `body` None the head of a stream."""
        ...

    async def send_data(self, data: bytes) -> None: ...

    async def send_end(self, last: bytes) -> None:
        """The end of a stream, with its last bytes (perhaps none) in the same write."""
        ...


class Reply:
    """Writes one reply. `started`: the head is out. `committed`: content is out, so no other backend may
    answer. `gone`: the client is not there any more. `usage`: what it cost, set by the backend as soon as that is known.
    """

    def __init__(self, downstream: Downstream, request_id: str) -> None:
        self._downstream = downstream
        self._lock = trio.Lock()
        self._last_write = trio.current_time()
        self.request_id = request_id
        self.server_id: str | None = None
        self.status = 0
        self.started = False
        self.committed = False
        self.committed_at: float | None = None
        self.finished = False
        self.gone = False
        self.usage: Usage | None = None

    def __repr__(self) -> str:
        state = "finished" if self.finished else "committed" if self.committed else "open"
        return f"<Reply {self.request_id}: {self.status or 'no status'}, {state}>"

    async def complete(self, status: int, body: bytes, headers: Headers = (JSON_TYPE,)) -> None:
        """Send a whole reply. Where a heartbeat has promised a stream, `body` (JSON) becomes its last event."""
        async with self._lock:
            self._commit()
            promised, self.started, self.finished = self.started, True, True
            with self._noting_departure():
                if promised:
                    await self._downstream.send_end(_last_event(status, body))
                    return
                self.status = status
                await self._downstream.send_response(status, self._with_standard(headers), body)

    async def send_events(self, events: bytes) -> None:
        """Send complete server-sent events, after the head if that is not out yet."""
        async with self._lock:
            self._commit()
            await self._open_stream()
            with self._noting_departure():
                await self._downstream.send_data(events)
            self._last_write = trio.current_time()

    async def end_stream(self, last: bytes = b"") -> None:
        """End the stream cleanly, with its last events."""
        async with self._lock:
            self._commit()
            await self._open_stream()
            self.finished = True
            with self._noting_departure():
                await self._downstream.send_end(last)

    async def fail(self, error: ApiError) -> None:
        """Tell the client of `error`: an envelope, or the last event of a stream that already runs."""
        if not self.finished:
            envelope = msgspec.json.encode(error.envelope())
            await self.complete(error.kind.status, envelope, [JSON_TYPE, *error.headers()])

    async def keep_alive(self, interval: float) -> None:
        """Until the reply is finished: a comment after each `interval` of silence, so that no proxy on the way gives up."""
        while not self.finished:
            await trio.sleep_until(self._last_write + interval)
            async with self._lock:
                if self.finished or trio.current_time() < self._last_write + interval:
                    continue
                await self._open_stream()
                with self._noting_departure():
                    await self._downstream.send_data(HEARTBEAT)
                self._last_write = trio.current_time()

    async def _open_stream(self) -> None:
        if not self.started:
            self.started = True
            self.status = 200
            with self._noting_departure():
                await self._downstream.send_response(200, self._with_standard(STREAM_HEADERS), None)

    @contextmanager
    def _noting_departure(self) -> Iterator[None]:
        try:
            yield
        except DownstreamGone:
            self.gone = True
            raise

    def _commit(self) -> None:
        if not self.committed:
            self.committed = True
            self.committed_at = trio.current_time()

    def _with_standard(self, headers: Headers) -> Headers:
        standard = [*headers, (b"x-request-id", self.request_id.encode())]
        if self.server_id is not None:
            standard.append((b"x-gateway-server-id", self.server_id.encode()))
        return standard
