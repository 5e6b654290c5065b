"""Clients that remember what they were played, and an answer to play to them."""

from collections.abc import Sequence

import trio
from quiver.proxy.reply import Downstream, DownstreamGone

EVENTS = [b'data: {"n": %d}\n\n' % n for n in range(20)]
DONE = b"data: [DONE]\n\n"
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-request-id", b"the first client's"),
    (b"x-ratelimit-remaining-requests", b"7"),
]
JSON_HEADERS = [(b"content-type", b"application/json"), (b"x-gateway-server-id", b"b1")]


class Listener:
    """Takes `pause` seconds for each write, and is gone after `leaves_after` of them."""

    def __init__(self, pause: float = 0.0, leaves_after: int | None = None) -> None:
        self._pause, self._leaves_after = pause, leaves_after
        self.status = 0
        self.headers: Sequence[tuple[bytes, bytes]] = ()
        self.writes: list[bytes] = []
        self.ended = False
        self.ended_at = 0.0

    def __repr__(self) -> str:
        return f"<Listener: {len(self.writes)} writes{', ended' if self.ended else ''}>"

    @property
    def body(self) -> bytes:
        return b"".join(self.writes)

    async def complete(self, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
        await self._write(body)
        self.status, self.headers = status, headers
        self._end()

    async def send_events(self, events: bytes) -> None:
        await self._write(events)

    async def end_stream(self, last: bytes = b"") -> None:
        await self._write(last)
        self._end()

    async def _write(self, data: bytes) -> None:
        await trio.sleep(self._pause)
        if self._leaves_after is not None and len(self.writes) >= self._leaves_after:
            raise DownstreamGone
        self.writes.append(data)

    def _end(self) -> None:
        self.ended, self.ended_at = True, trio.current_time()


class Client:
    """The far end of a real `Reply`."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.ended = False

    async def send_response(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes | None) -> None:
        self.status, self.headers = status, list(headers)
        self.body += body or b""
        self.ended = body is not None

    async def send_data(self, data: bytes) -> None:
        self.body += data

    async def send_end(self, last: bytes) -> None:
        self.body += last
        self.ended = True


async def produce_stream(downstream: Downstream, pause: float = 0.0, events: Sequence[bytes] = EVENTS) -> None:
    """A streamed answer, with `pause` seconds before each event."""
    await downstream.send_response(200, STREAM_HEADERS, None)
    for event in events:
        await trio.sleep(pause)
        await downstream.send_data(event)
    await downstream.send_end(DONE)
