"""One direction of a simulated connection: bytes on their way, how much may be unread, and what breaks it.

Two pipes back to back are a TCP connection. What was sent arrives in order after the latency; a FIN and a reset travel
the same way. Everything here is synchronous but the two waits.
"""

import errno
from collections import deque
from collections.abc import Callable
from math import inf
from random import Random
from typing import Final, Literal

import msgspec
import trio

FaultKind = Literal["reset", "eof", "stall"]


class Fault(msgspec.Struct, frozen=True):
    """What befalls a direction once `after` bytes went through it.

    `reset`: both ends learn that the connection is gone. `eof`: the reader is told of an end that the writer did not
    ask for. `stall`: nothing arrives any more, not even the end, and nobody is told.
    """

    kind: FaultKind
    after: int


class Direction(msgspec.Struct, frozen=True):
    """How one direction behaves. Seconds and bytes; `ragged`: the chance that a read or write takes only a part."""

    latency: float = 0.001
    window: int = 65_536
    ragged: float = 0.0
    fault: Fault | None = None


class _End:
    """The last thing that travels: a FIN or a reset."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


FIN: Final = _End("FIN")
RESET: Final = _End("RESET")


class Pipe:
    """Carries bytes from one writer to one reader. `reverse` is the other direction of the same connection."""

    reverse: "Pipe"

    def __init__(self, direction: Direction, random: Random, strikes: Callable[[FaultKind, int], None]) -> None:
        self._random, self._strikes = random, strikes
        self._latency, self._window, self._ragged = direction.latency, direction.window, direction.ragged
        self.fault = direction.fault
        self._travelling: deque[tuple[float, bytes | _End]] = deque()
        self._last_arrival = -inf
        self._sent = 0
        self._unread = 0
        self._ended = False
        self._severed = False
        self.stalled = False
        self.reader_closed = False
        self.writer_closed = False
        # When the writer learns that its connection was reset.
        self._broken_at = inf
        self._reader, self._writer = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<Pipe: {self._sent} bytes sent, {self._unread} unread{', stalled' if self.stalled else ''}>"

    def put(self, data: bytes | memoryview) -> int:
        """Send as much of `data` as the window has room for; how much that was. Raises `OSError`."""
        if self.writer_closed or self._ended or trio.current_time() >= self._broken_at:
            raise BrokenPipeError
        if self.reader_closed or self._severed:
            self._answer_reset()
            return len(data)
        size = min(len(data), self._window - self._unread)
        if size <= 0:
            raise BlockingIOError
        if self._ragged and size > 1 and self._random.random() < self._ragged:
            size = self._random.randint(1, size)
        if self.fault is not None and self._sent + size >= self.fault.after:
            self._strike(self.fault, bytes(data[:size]))
        else:
            self._carry(bytes(data[:size]))
        self._sent += size
        return size

    def take(self, size: int) -> bytes:
        """What has arrived, at most `size` bytes; b"" after a FIN. Raises `OSError`."""
        if self.reader_closed:
            raise OSError(errno.EBADF, "the socket is closed")
        if not self._readable():
            raise BlockingIOError
        at, item = self._travelling[0]
        if item is FIN:
            return b""
        if not isinstance(item, bytes):
            raise ConnectionResetError
        size = min(size, len(item))
        if self._ragged and size > 1 and self._random.random() < self._ragged:
            size = self._random.randint(1, size)
        if size < len(item):
            self._travelling[0] = at, item[size:]
        else:
            self._travelling.popleft()
        self._unread -= size
        self._writer.unpark_all()
        return item[:size]

    async def wait_readable(self) -> None:
        """Return once `take` would not block. Always a checkpoint. Raises `trio.ClosedResourceError`."""
        if self._readable():
            await trio.lowlevel.checkpoint()
        while not self._readable():
            with trio.CancelScope(deadline=self._travelling[0][0] if self._travelling else inf):
                await self._reader.park()

    async def wait_writable(self) -> None:
        """Return once `put` would not block. Always a checkpoint. Raises `trio.ClosedResourceError`."""
        if self._writable():
            await trio.lowlevel.checkpoint()
        while not self._writable():
            with trio.CancelScope(deadline=self._broken_at):
                await self._writer.park()

    def finish(self) -> None:
        """The writer has said all."""
        if not self._ended:
            self._push(FIN)

    def abort(self) -> None:
        """The writer is gone: what has not arrived is lost, and the reader gets a reset."""
        while self._travelling and self._travelling[-1][0] > trio.current_time():
            self._travelling.pop()
        self._ended = False
        self.reset()

    def reset(self) -> None:
        """Tell the reader's end, in both directions, that the connection is gone."""
        if not self._ended:
            self._push(RESET)
        self.reverse.break_writer(trio.current_time() + self._latency)

    def break_writer(self, at: float) -> None:
        """From `at` on, sending fails."""
        self._broken_at = min(self._broken_at, at)
        self._writer.unpark_all()

    def close_reader(self) -> bool:
        """Nobody will read any more. Returns whether bytes had arrived that nobody read."""
        unread = self._readable() and isinstance(self._travelling[0][1], bytes)
        if any(isinstance(item, bytes) for _, item in self._travelling):
            self._answer_reset()
        self.reader_closed = True
        self._travelling.clear()
        self._unread = 0
        self._reader.unpark_all()
        self._writer.unpark_all()
        return unread

    def close_writer(self) -> None:
        """Whoever waits to write is told that the wire was closed."""
        self.writer_closed = True
        self._writer.unpark_all()

    def heal(self) -> None:
        """No fault will come any more; a stalled connection turns out to be gone."""
        self.fault = None
        if self.stalled:
            self.stalled = self._ended = False
            self.reset()
            self.reverse.reset()

    def _readable(self) -> bool:
        if self.reader_closed:
            raise trio.ClosedResourceError
        return bool(self._travelling) and self._travelling[0][0] <= trio.current_time()

    def _writable(self) -> bool:
        if self.writer_closed:
            raise trio.ClosedResourceError
        return (
            self.reader_closed or self._severed or self._unread < self._window or trio.current_time() >= self._broken_at
        )

    def _strike(self, fault: Fault, data: bytes) -> None:
        """Let what is left of `fault.after` bytes through; then the fault happens."""
        self.fault = None
        self._strikes(fault.kind, fault.after)
        through = fault.after - self._sent
        if through > 0:
            self._carry(data[:through])
        match fault.kind:
            case "reset":
                self.reset()
                self._severed = True
                self.reverse.reset()
            case "eof":
                self._push(FIN)
                self._severed, self._ended = True, False
            case "stall":
                self.stalled = True
                self._unread += len(data) - max(through, 0)

    def _carry(self, data: bytes) -> None:
        self._unread += len(data)
        if not self.stalled:
            self._push(data)

    def _push(self, item: bytes | _End) -> None:
        if isinstance(item, _End):
            self._ended = True
        if self.stalled or self.reader_closed:
            return
        jitter = 0.5 + self._random.random()
        self._last_arrival = max(self._last_arrival, trio.current_time() + self._latency * jitter)
        if not self._travelling:
            self._reader.unpark_all()
        self._travelling.append((self._last_arrival, item))

    def _answer_reset(self) -> None:
        """Bytes reach an end that is gone: a reset comes back."""
        if self._broken_at == inf:
            self.reverse.reset()
            self.break_writer(trio.current_time() + 2 * self._latency)
