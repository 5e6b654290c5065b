"""One answer as it is produced, to be played to any number of clients.

A backend's `Reply` writes into the recording as if it were a client, and each client's own `Reply` plays it: what is there
at once, the rest as it comes. Clients come, fall behind and leave without disturbing each other or the backend, with two
exceptions: when the last one leaves, production is cancelled; and while one lags further behind than what may be held,
production waits for it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import trio
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import Usage

from ..telemetry.record import EngineTimings
from .identity import ALLOW_ALL, Directives

EVENT_STREAM = b"text/event-stream"


class Audience(Protocol):
    """What a recording is played to: the part of `Reply` that it needs."""

    async def complete(self, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]], /) -> None: ...

    async def send_events(self, events: bytes, /) -> None: ...

    async def end_stream(self, last: bytes, /) -> None: ...


class Notes(Protocol):
    """What is known of an answer beside its bytes: who gave it, and what it cost. A `Reply` has both."""

    @property
    def server_id(self) -> str | None: ...

    @property
    def usage(self) -> Usage | None: ...

    @property
    def estimated(self) -> bool: ...

    @property
    def engine(self) -> EngineTimings | None: ...


class _NothingKnown:
    server_id: str | None = None
    usage: Usage | None = None
    estimated = False
    engine: EngineTimings | None = None


NOTHING_KNOWN: Notes = _NothingKnown()


class Recording:
    """A `Downstream` that remembers. Of the headers only the content type is kept: the others belong to one reply.

    Resource handling: the answer is produced inside `production`, a cancel scope that ends when the last client has left.
    Whoever produces it reports a failure with `fail`, not with `Reply.fail`, so that it is not taken for an answer, and lets
    no heartbeats into it: each client's reply has its own.

    `deserted_at`: when the last client left before the end, on Trio's clock. `notes` tells those who play it what the
    producer knows of the answer; the producer sets it before it begins.
    """

    __slots__ = (
        "_arrivals",
        "_dropped",
        "_error",
        "_headers",
        "_held",
        "_max_entry",
        "_next_player",
        "_positions",
        "_room",
        "begun",
        "deserted_at",
        "directives",
        "finished",
        "key",
        "notes",
        "production",
        "status",
        "streams",
    )

    def __init__(self, key: bytes, begun: float, max_entry: int, directives: Directives = ALLOW_ALL) -> None:
        self.key, self.begun, self.directives = key, begun, directives
        self.production = trio.CancelScope()
        self.notes: Notes = NOTHING_KNOWN
        self.status = 0
        self.streams = False
        self.finished = False
        self._max_entry = max_entry
        self._headers: list[tuple[bytes, bytes]] = []
        self._held: bytearray | bytes = bytearray()
        self._dropped = 0
        self._error: ApiError | None = None
        self.deserted_at: float | None = None
        self._positions: dict[int, int] = {}
        self._next_player = 0
        self._arrivals = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        state = "running" if not self.finished else "finished" if self.ok else "failed"
        return f"<Recording: {state}, {self.size} bytes held, {self.players} players>"

    @property
    def size(self) -> int:
        """Bytes held. A streamed answer over the limit holds only what some client has yet to get."""
        return len(self._held)

    @property
    def players(self) -> int:
        """Clients it is being played to."""
        return len(self._positions)

    @property
    def ok(self) -> bool:
        """Whether all of the answer is there; its status may still tell of an error."""
        return self.finished and self._error is None

    @property
    def body(self) -> bytes:
        """What is held so far."""
        return bytes(self._held)

    @property
    def joinable(self) -> bool:
        """Whether one more client can be played the answer from its beginning."""
        return self._error is None and self.deserted_at is None and self._produced <= self._max_entry

    async def send_response(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes | None) -> None:
        """Take a whole reply, or with `body` None the head of one that follows in pieces."""
        self.status = status
        self._headers = [header for header in headers if header[0] == b"content-type"]
        self.streams = body is None and any(value.startswith(EVENT_STREAM) for _, value in self._headers)
        if body is not None:
            self._finish(body)

    async def send_data(self, data: bytes) -> None:
        """Take whole events. Waits while some client is further behind than what may be held."""
        self._held += data
        self._arrivals.unpark_all()
        self._drop_played()
        while self.streams and len(self._held) > self._max_entry and not self.finished:
            await self._room.park()

    async def send_end(self, last: bytes) -> None:
        """Take the last bytes of a reply that came in pieces."""
        self._finish(last)

    def fail(self, error: ApiError) -> None:
        """End it with an error, unless it has already ended."""
        if not self.finished:
            self._error = error
            self._finish(b"")

    async def play(self, reply: Audience, begun: Callable[[], None] | None = None) -> None:
        """Pass all of the answer on to `reply`, as it comes. `begun` is called just before the first write, when status and
        `notes.server_id` are known.

        From finding a recording to playing it there must be no checkpoint: until then the client does not count.

        Error handling: raises the error that production ended with, at once if this client has had nothing yet (it may
        still be answered in another way), else after what was produced before it. What `reply` raises passes through.
        """
        if self._dropped:
            raise RuntimeError(f"{self!r} has lost its beginning: only a joinable recording may be joined")
        player = self._next_player
        self._next_player += 1
        self._positions[player] = 0
        try:
            await self._play(player, reply, begun)
        finally:
            del self._positions[player]
            self._left()

    async def _play(self, player: int, reply: Audience, begun: Callable[[], None] | None) -> None:
        position = 0
        while True:
            if self._error is not None and position in (0, self._produced):
                raise _again(self._error)
            if not self.finished and (position == self._produced or not self.streams):
                await self._arrivals.park()
                continue
            if begun is not None:
                begun()
                begun = None
            if not self.streams:
                await reply.complete(self.status, self.body, self._headers)
                return
            events = bytes(self._held[position - self._dropped :])
            if self.ok:
                await reply.end_stream(events)
                return
            await reply.send_events(events)
            position += len(events)
            self._positions[player] = position
            self._drop_played()

    @property
    def _produced(self) -> int:
        return self._dropped + len(self._held)

    def _finish(self, last: bytes) -> None:
        # As bytes, a kept answer is sent again and again without a copy.
        self._held = bytes(self._held) + last
        self.finished = True
        self._arrivals.unpark_all()
        self._room.unpark_all()

    def _drop_played(self) -> None:
        """Of a stream that is too long to be joined, let go of what every client has had."""
        if self._produced <= self._max_entry or self.finished or not self._positions:
            return
        played = min(self._positions.values()) - self._dropped
        if played:
            self._held = self._held[played:]
            self._dropped += played
            self._room.unpark_all()

    def _left(self) -> None:
        self._drop_played()
        if not self._positions and not self.finished:
            self.deserted_at = trio.current_time()
            self.production.cancel(reason="the last client of a shared answer has left")


def _again(error: ApiError) -> ApiError:
    """The same error to be raised once more: one exception object raised in many tasks would collect all their tracebacks."""
    return ApiError(
        error.kind, error.message, param=error.param, retry_after=error.retry_after, extra=tuple(error.extra)
    )
