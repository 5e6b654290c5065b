"""A tunnel that runs: a multiplexer over a WebSocket, with a task that reads, one that writes, and a heart.

Streams inside it are wires like any others, so that the code above does not know the difference. Reading never waits for a
stream's holder; its window does. A link that is silent for three heartbeats, two pings without an answer, is dead.
"""

from collections.abc import Callable, Sequence
from typing import Final

import trio

from ..network import Address, Unreachable, Wire
from .frames import Kind, ProtocolError
from .multiplexer import Event, Multiplexer, Said, Statistics, Stream
from .websocket import WebSocket, WebSocketBroken

# Heartbeats of silence after which a link is dead.
SILENCE: Final = 3

# What the peer of a link that is closed gets to close its own end.
LINGER = 1.0


class LinkLost(Exception):
    """The link is gone; why, in words for the people at both ends."""


class Link:
    """One end of a tunnel. `heard` gets what is not about a stream that is known, at once, and must not wait. Run with `run`.

    `name` is what errors call the other end. `round_trip`: seconds to the peer and back, once known.
    """

    def __init__(self, socket: WebSocket, multiplexer: Multiplexer, name: str, heard: Callable[[Event], None]) -> None:
        self._socket, self._multiplexer, self._name, self._heard = socket, multiplexer, name, heard
        self._ends: dict[int, StreamEnd] = {}
        self._to_send = trio.Event()
        self._closing = False
        self._running = trio.CancelScope()
        self._last_heard = trio.current_time()
        self._pinged_at = 0.0
        self.round_trip: float | None = None
        self.lost: str | None = None
        socket.wake = self._wake_writer

    def __repr__(self) -> str:
        return f"<Link to {self._name}: {self.lost or self._multiplexer!r}>"

    def statistics(self) -> Statistics:
        return self._multiplexer.statistics()

    async def run(self, heartbeat: float, early: Sequence[Event] = ()) -> None:
        """Carry streams until the link ends; `early` was received before. Raises `LinkLost`, always; every stream is broken
        then.
        """
        reason = "its link was closed"
        try:
            try:
                for event in early:
                    self._hear(event)
            except ProtocolError as error:
                self._end(_broken(error))
            with self._running:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._beat, heartbeat)
            reason = self.lost or reason
        finally:
            self.lost = reason
            self._multiplexer.break_all(reason)
            self._stir()
        raise LinkLost(reason)

    def say(self, kind: Kind, payload: bytes = b"") -> None:
        """Send a frame about the whole tunnel."""
        if self.lost is None:
            self._multiplexer.say(kind, payload)
            self._wake_writer()

    def close(self) -> None:
        """End the link once everything said so far is out."""
        self._closing = True
        self._wake_writer()

    def cut(self, reason: str) -> None:
        """End the link at once."""
        self._end(reason)

    async def open(self) -> Wire:
        """A wire through the tunnel to the server at its end. Raises `Unreachable`."""
        if self.lost is not None or self._closing:
            raise Unreachable(self.lost or "its link is being closed")
        if self._multiplexer.full:
            raise Unreachable("its tunnel has too many connections")
        end = self.end_of(self._multiplexer.open())
        self._wake_writer()
        try:
            await end.wait_opened()
        except BaseException:
            end.close()
            raise
        return end.wire()

    def end_of(self, stream: Stream) -> "StreamEnd":
        """What holds `stream`; close it."""
        end = self._ends[stream.id] = StreamEnd(stream, self, self._multiplexer, self._name)
        return end

    def accept(self, end: "StreamEnd") -> None:
        """Tell the peer that its stream leads somewhere."""
        self._multiplexer.accept(end.stream)
        self._wake_writer()

    def released(self, end: "StreamEnd") -> None:
        """For `StreamEnd`: nobody waits on it any more."""
        self._ends.pop(end.stream.id, None)
        self.changed()

    def changed(self) -> None:
        """For `StreamEnd`: it has put or taken something."""
        if self._multiplexer.pending:
            self._wake_writer()
        if self._multiplexer.stirred:
            self._stir()

    async def _read(self) -> None:
        try:
            while data := await self._socket.receive():
                self._last_heard = trio.current_time()
                for event in self._multiplexer.receive(data):
                    self._hear(event)
                self.changed()
            self._end("the other end closed it")
        except (ProtocolError, WebSocketBroken) as error:
            self._end(_broken(error))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._end("the connection broke")

    def _hear(self, event: Event) -> None:
        if isinstance(event, Said) and event.kind is Kind.PONG:
            if self._pinged_at:
                self.round_trip = trio.current_time() - self._pinged_at
                self._pinged_at = 0.0
        else:
            self._heard(event)

    async def _write(self) -> None:
        try:
            while True:
                while self._multiplexer.pending or self._socket.owes:
                    data = self._multiplexer.outgoing()
                    self._stir()
                    await self._socket.send(data)
                    await trio.lowlevel.checkpoint()
                if self._closing:
                    await self._socket.close()
                    self.lost = "it was closed"
                    # The reader ends it, when the peer has closed its end. Closing with bytes unread would reset the
                    # connection, and take the last words from the peer (RFC 9112, 9.6).
                    with trio.move_on_after(LINGER):
                        await trio.sleep_forever()
                    self._end(self.lost)
                    return
                self._to_send = trio.Event()
                await self._to_send.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            if not self._socket.ended:  # else the reader has last words in hand, and ends the link after them
                self._end("the connection broke")

    async def _beat(self, heartbeat: float) -> None:
        """Ping at every beat; give up after `SILENCE` of them without a word."""
        self._last_heard = trio.current_time()
        due = self._last_heard
        while True:
            now = trio.current_time()
            if now >= self._last_heard + SILENCE * heartbeat:
                self._end(f"nothing was heard for {SILENCE * heartbeat:g} s")
                return
            if now >= due:
                due = now + heartbeat
                self._pinged_at = now
                self._multiplexer.say(Kind.PING)
                self._wake_writer()
            await trio.sleep_until(min(due, self._last_heard + SILENCE * heartbeat))

    def _end(self, reason: str) -> None:
        if self.lost is None:
            self.lost = reason
        self._running.cancel()

    def _wake_writer(self) -> None:
        self._to_send.set()

    def _stir(self) -> None:
        stirred = self._multiplexer.stirred
        for stream in stirred:
            end = self._ends.get(stream.id)
            if end is not None:
                end.stir()
        stirred.clear()


def _broken(error: Exception) -> str:
    return f"the other end broke the protocol: {error}"


class StreamEnd:
    """One stream as a `Wire` wants a socket. Close with `close`."""

    def __init__(self, stream: Stream, link: Link, multiplexer: Multiplexer, name: str) -> None:
        self.stream, self._link, self._multiplexer, self._name = stream, link, multiplexer, name
        self._readers, self._writers = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()
        self._closed = False

    def __repr__(self) -> str:
        return f"<StreamEnd of {self.stream!r}>"

    def wire(self) -> Wire:
        """A wire on it, which closes it."""
        return Wire(self, Address(self._name, 0), self._wait_readable, self._wait_writable)

    def recv(self, size: int, /) -> bytes:
        stream = self.stream
        if not stream.readable:
            raise BlockingIOError
        if stream.broken is not None:
            raise ConnectionResetError(stream.broken)
        data = self._multiplexer.take(stream, size)
        self._link.changed()
        return data

    def send(self, data: bytes | memoryview, /) -> int:
        if self.stream.broken is not None:
            raise BrokenPipeError(self.stream.broken)
        size = self._multiplexer.put(self.stream, data)
        if not size and len(data):
            raise BlockingIOError
        self._link.changed()
        return size

    def shutdown(self, how: int, /) -> None:
        """Say that nothing more will be sent; the only `how` there is."""
        self._multiplexer.finish(self.stream)
        self._link.changed()

    def close(self) -> None:
        self.close_because("")

    def close_because(self, reason: str) -> None:
        """Close it, and tell the peer why unless both have said all."""
        if not self._closed:
            self._closed = True
            if not self.stream.over:
                self._multiplexer.reset(self.stream, reason)
            self.stir()
            self._link.released(self)

    def stir(self) -> None:
        """Something can be done now."""
        self._readers.unpark_all()
        self._writers.unpark_all()

    async def wait_opened(self) -> None:
        """Return once the stream leads somewhere. Raises `Unreachable`."""
        while not self.stream.opened and self.stream.broken is None:
            await self._readers.park()
        if self.stream.broken is not None:
            raise Unreachable(self.stream.broken)

    async def wait_broken(self) -> None:
        """Return once the stream was given up, by either end or with the tunnel."""
        while self.stream.broken is None:
            await self._readers.park()

    async def _wait_readable(self) -> None:
        if self._readable():
            await trio.lowlevel.checkpoint()
        while not self._readable():
            await self._readers.park()

    async def _wait_writable(self) -> None:
        if self._writable():
            await trio.lowlevel.checkpoint()
        while not self._writable():
            await self._writers.park()

    def _readable(self) -> bool:
        if self._closed:
            raise trio.ClosedResourceError
        return self.stream.readable

    def _writable(self) -> bool:
        if self._closed:
            raise trio.ClosedResourceError
        return self.stream.writable
