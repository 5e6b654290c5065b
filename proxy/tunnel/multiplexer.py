"""Many byte streams over one tunnel, as a state machine without I/O: bytes in, events and bytes out.

Everything that is a rule of the protocol lives here. Each stream has a window of its own in each direction: who receives
grants more only for what was taken out, so a reader that stops holds up its own stream, and a stream never takes more
memory than its windows. The gateway opens streams; a joiner only answers them.
"""

from collections import deque
from typing import NamedTuple

from .frames import MAX_STREAM, Frame, FrameReader, Kind, ProtocolError, encode, encode_window, window_size

# Bytes a stream may have under way in each direction; 5 MB a second over a line of 50 ms.
WINDOW = 262_144
# More is granted in steps of this, lest every token be answered by a frame.
GRANT = WINDOW // 2
MAX_CREDIT = 2**31 - 1
# What a stream may have waiting to be sent on this side, beside what is in its window on the other.
BACKLOG = 65_536
# The largest piece of one stream before another has its turn.
PIECE = 16_384
# What is handed to the connection at once.
BATCH = 65_536
# Streams at a time, so that a tunnel's memory has a bound: 64 MiB, if all are full.
MAX_STREAMS = 256
# Answers to a peer's frames that may wait to be sent; only a peer that floods and does not read needs more.
MAX_URGENT = 2048


class Said(NamedTuple):
    """A frame about the whole tunnel."""

    kind: Kind
    payload: bytes


class Opened(NamedTuple):
    """The peer wants a stream; answer with `accept` or `reset`."""

    stream: "Stream"


Event = Said | Opened


class Stream:
    """One stream as its holder sees it; all changes go through the multiplexer.

    `opened`: it leads somewhere. `broken`: why nothing more will come or go. `readable` and `writable` say whether `take`
    and `put` would do something.
    """

    __slots__ = (
        "_credit",
        "_finished",
        "_granted",
        "_incoming",
        "_outgoing",
        "_peer_finished",
        "_said_eof",
        "_taken",
        "broken",
        "id",
        "opened",
        "queued",
    )

    def __init__(self, id: int) -> None:
        self.id = id
        self.opened = False
        self.broken: str | None = None
        self.queued = False
        self._incoming, self._outgoing = bytearray(), bytearray()
        self._credit = self._granted = WINDOW
        self._taken = 0
        self._finished = self._said_eof = self._peer_finished = False

    def __repr__(self) -> str:
        state = self.broken or ("open" if self.opened else "opening")
        return f"<Stream {self.id}: {state}, {len(self._incoming)} in, {len(self._outgoing)} out>"

    @property
    def readable(self) -> bool:
        return bool(self._incoming) or self._peer_finished or self.broken is not None

    @property
    def writable(self) -> bool:
        return self.broken is not None or len(self._outgoing) < BACKLOG

    @property
    def over(self) -> bool:
        """Whether both ends have said all, and all of it has arrived and was taken."""
        return self._said_eof and self._peer_finished and not self._incoming

    @property
    def buffered(self) -> int:
        """Bytes held, in both directions."""
        return len(self._incoming) + len(self._outgoing)


class Statistics(NamedTuple):
    """Streams that are open, the bytes they hold here, and what went through since the start."""

    streams: int
    buffered: int
    sent: int
    received: int


class Multiplexer:
    """One end of a tunnel. `opens`: whether this end, the gateway's, opens the streams. There are none before its welcome: it
    calls `establish` with that, the joiner's end sees it come.

    After every call look at `stirred`: streams on which something can be done now that could not be done before.
    """

    def __init__(self, *, opens: bool) -> None:
        self._opens = opens
        self._reader = FrameReader()
        self._streams: dict[int, Stream] = {}
        self._last = 0
        self._urgent: deque[bytes] = deque()
        self._pong: bytes | None = None
        self._fresh: dict[int, Stream] = {}
        self._grants: dict[int, Stream] = {}
        self._turns: deque[Stream] = deque()
        self._established = False
        self._sent = self._received = 0
        self.stirred: list[Stream] = []

    def __repr__(self) -> str:
        return f"<Multiplexer: {len(self._streams)} streams, {len(self._turns)} to send>"

    def statistics(self) -> Statistics:
        buffered = sum(stream.buffered for stream in self._streams.values())
        return Statistics(len(self._streams), buffered, self._sent, self._received)

    def establish(self) -> None:
        """From now on there may be streams."""
        self._established = True

    @property
    def full(self) -> bool:
        """Whether there are as many streams as there may be."""
        return len(self._streams) >= MAX_STREAMS or self._last >= MAX_STREAM

    # What this end does.

    def say(self, kind: Kind, payload: bytes = b"") -> None:
        """Send a frame about the whole tunnel."""
        self._urgent.append(encode(kind, 0, payload))

    def open(self) -> Stream:
        """A new stream, which leads somewhere once the peer says so. There must be room: see `full`."""
        self._last += 1
        stream = self._streams[self._last] = self._fresh[self._last] = Stream(self._last)
        return stream

    def accept(self, stream: Stream) -> None:
        """Tell the peer that its stream leads somewhere."""
        if stream.broken is None:
            stream.opened = True
            self._urgent.append(encode(Kind.OPENED, stream.id))

    def put(self, stream: Stream, data: bytes | memoryview) -> int:
        """Send as much of `data` as there is room for; how much that was. The stream must not be broken or finished."""
        size = min(len(data), BACKLOG - len(stream._outgoing))
        if size <= 0:
            return 0
        stream._outgoing += data[:size]
        self._give_turn(stream)
        return size

    def take(self, stream: Stream, size: int) -> bytes:
        """What has arrived, at most `size` bytes; b"" at the end, or when there is nothing yet: see `readable`."""
        incoming = stream._incoming
        data = bytes(incoming[:size])
        del incoming[: len(data)]
        stream._taken += len(data)
        if stream._taken >= GRANT and not stream._peer_finished and stream.broken is None:
            self._grants[stream.id] = stream
        self._forget_if_over(stream)
        return data

    def finish(self, stream: Stream) -> None:
        """Say that nothing more will be sent, once what waits is out."""
        if not stream._finished and stream.broken is None:
            stream._finished = True
            self._give_turn(stream)

    def reset(self, stream: Stream, reason: str = "") -> None:
        """Give the stream up: nothing more comes or goes."""
        if self._streams.get(stream.id) is stream and stream.id not in self._fresh:
            self._urgent.append(encode(Kind.RESET, stream.id, reason.encode()[:512]))
        self._break(stream, reason or "it was closed")

    def break_all(self, reason: str) -> None:
        """The tunnel is gone, and its streams with it."""
        for stream in list(self._streams.values()):
            self._break(stream, reason)

    # What the peer does.

    def receive(self, data: bytes) -> list[Event]:
        """What `data` brings that is not about a stream that is known. Raises `ProtocolError`; the tunnel is then useless."""
        self._received += len(data)
        events: list[Event] = []
        for frame in self._reader.feed(data):
            if frame.kind < Kind.OPEN:
                event = self._hear(frame)
            elif not self._established:
                raise ProtocolError(f"a {frame.kind.name} frame before the welcome")
            elif frame.kind is Kind.OPEN:
                event = self._opened_by_peer(frame)
            else:
                event = None
                self._step(frame)
            if event is not None:
                events.append(event)
        if len(self._urgent) > MAX_URGENT:
            raise ProtocolError("more is asked than the peer reads answers to")
        return events

    def _hear(self, frame: Frame) -> Event | None:
        if frame.kind is Kind.PING:
            if len(frame.payload) > 64:
                raise ProtocolError("a PING frame of over 64 bytes")
            self._pong = encode(Kind.PONG, 0, frame.payload)  # the latest is enough
            return None
        if frame.kind is Kind.WELCOME and not self._opens:
            self._established = True
        return Said(frame.kind, frame.payload)

    def _opened_by_peer(self, frame: Frame) -> Event | None:
        if self._opens:
            raise ProtocolError("a joiner cannot open streams")
        if frame.stream <= self._last:
            raise ProtocolError(f"the stream {frame.stream} is opened again")
        if frame.payload:
            raise ProtocolError("an OPEN frame with content")
        full, self._last = self.full, frame.stream
        if full:
            self._urgent.append(encode(Kind.RESET, frame.stream, b"it has too many connections"))
            return None
        stream = self._streams[frame.stream] = Stream(frame.stream)
        return Opened(stream)

    def _step(self, frame: Frame) -> None:
        if frame.stream > self._last:
            raise ProtocolError(f"a {frame.kind.name} frame for the stream {frame.stream}, which nobody opened")
        stream = self._streams.get(frame.stream)
        if stream is None:  # it was given up here while the frame was under way
            return
        match frame.kind:
            case Kind.DATA:
                self._refuse_after_end(stream, frame)
                self._arrive(stream, frame.payload)
            case Kind.WINDOW:
                self._grant(stream, window_size(frame.payload))
            case Kind.EOF:
                self._refuse_after_end(stream, frame)
                stream._peer_finished = True
                self._grants.pop(stream.id, None)
                self._forget_if_over(stream)
            case Kind.RESET:
                self._break(stream, frame.payload.decode(errors="replace") or "its owner's end closed it")
            case Kind.OPENED:
                if stream.opened or not self._opens:
                    raise ProtocolError(f"the stream {stream.id} is answered twice")
                stream.opened = True
        self.stirred.append(stream)

    def _arrive(self, stream: Stream, data: bytes) -> None:
        if not data:
            raise ProtocolError("an empty DATA frame")
        if self._opens and not stream.opened:
            raise ProtocolError(f"data on the stream {stream.id}, which is not open yet")
        stream._granted -= len(data)
        if stream._granted < 0:
            raise ProtocolError(f"more than the window allows on the stream {stream.id}")
        stream._incoming += data

    def _grant(self, stream: Stream, size: int) -> None:
        stream._credit += size
        if stream._credit > MAX_CREDIT:
            raise ProtocolError(f"the window of the stream {stream.id} overflows")
        self._give_turn(stream)

    def _refuse_after_end(self, stream: Stream, frame: Frame) -> None:
        if stream._peer_finished:
            raise ProtocolError(f"a {frame.kind.name} frame after the end of the stream {stream.id}")

    # What goes out.

    @property
    def pending(self) -> bool:
        """Whether `outgoing` has something."""
        return bool(self._urgent or self._pong or self._fresh or self._grants or self._turns)

    def outgoing(self) -> bytes:
        """What to send next, about `BATCH` bytes at most; b"" for nothing. Streams that have something take turns."""
        pieces: list[bytes] = []
        if self._pong is not None:
            pieces.append(self._pong)
            self._pong = None
        pieces += self._urgent
        self._urgent.clear()
        pieces += [encode(Kind.OPEN, number) for number in self._fresh]
        self._fresh.clear()
        for stream in self._grants.values():
            stream._granted += stream._taken
            pieces.append(encode_window(stream.id, stream._taken))
            stream._taken = 0
        self._grants.clear()
        size = 0
        while self._turns and size < BATCH:
            stream = self._turns.popleft()
            stream.queued = False
            size += self._take_turn(stream, pieces)
        data = b"".join(pieces)
        self._sent += len(data)
        return data

    def _take_turn(self, stream: Stream, pieces: list[bytes]) -> int:
        waiting = stream._outgoing
        size = min(len(waiting), stream._credit, PIECE)
        if size:
            pieces.append(encode(Kind.DATA, stream.id, waiting[:size]))
            del waiting[:size]
            stream._credit -= size
            self.stirred.append(stream)
        if stream._finished and not waiting and not stream._said_eof:
            pieces.append(encode(Kind.EOF, stream.id))
            stream._said_eof = True
            self._forget_if_over(stream)
        self._give_turn(stream)
        return size

    def _give_turn(self, stream: Stream) -> None:
        able = (stream._outgoing and stream._credit > 0) or (
            stream._finished and not stream._outgoing and not stream._said_eof
        )
        if able and not stream.queued and stream.broken is None:
            stream.queued = True
            self._turns.append(stream)

    def _break(self, stream: Stream, reason: str) -> None:
        if stream.broken is None:
            stream.broken = reason
            stream._incoming.clear()
            stream._outgoing.clear()
        self._drop(stream)
        self.stirred.append(stream)

    def _forget_if_over(self, stream: Stream) -> None:
        if stream.over:
            self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        if self._streams.get(stream.id) is stream:
            del self._streams[stream.id]
        self._fresh.pop(stream.id, None)
        self._grants.pop(stream.id, None)
        if stream.queued:
            stream.queued = False
            self._turns.remove(stream)
