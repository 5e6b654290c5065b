"""What does each proxy add to an event when many streams run at once, and what memory does it hold meanwhile?

The mock spreads the events of all streams evenly over time and stamps each with the moment it is sent. The same load without a
proxy shows what the mock and this client cost themselves.
"""

import gc
import select
import time
from array import array
from dataclasses import dataclass

from bench import traffic
from bench.client import connect
from bench.figures import Cell, Table, quantile
from bench.peers import Lineup
from bench.processes import cpu_seconds, resident, wait_idle
from bench.targets import Target

EVENTS_PER_SECOND = 50
SECONDS, QUICK_SECONDS = 10, 2
STREAMS, QUICK_STREAMS = 512, 256
# What LiteLLM can follow; the others are measured at this number too.
FEW_STREAMS = 32
OPENING_SECONDS = 1.0
GRACE_SECONDS = 5.0
LOOK_SECONDS = 0.25
COLUMNS = (
    "target",
    "streams",
    "complete",
    "p50 ms",
    "p99 ms",
    "added p50 ms",
    "added p99 ms",
    "CPU us/event",
    "resident MB",
)


@dataclass(frozen=True)
class Watched:
    """What came of one load. `delays` are milliseconds from an event's stamp until the client had it.

    `resident` is the most memory seen in MB, `cpu` the processor time in seconds; both of the target.
    """

    complete: int
    delays: list[float]
    resident: float
    cpu: float


def measure(lineup: Lineup, *, quick: bool) -> Table:
    seconds = QUICK_SECONDS if quick else SECONDS
    many = QUICK_STREAMS if quick else STREAMS
    rows = _rows({target.name: watch(target, FEW_STREAMS, seconds) for target in lineup.targets}, FEW_STREAMS)
    able = [target for target in lineup.targets if target.name != "LiteLLM"]
    rows += _rows({target.name: watch(target, many, seconds) for target in able}, many)
    return Table(f"Streams: {EVENTS_PER_SECOND} events a second on each for {seconds} s", COLUMNS, rows)


def _rows(watched: dict[str, Watched], streams: int) -> list[tuple[Cell, ...]]:
    direct50, direct99 = (quantile(watched["direct"].delays, share) for share in (0.5, 0.99))
    rows: list[tuple[Cell, ...]] = []
    for name, seen in watched.items():
        if not seen.delays:
            rows.append((name, streams, seen.complete, *[None] * 6))
            continue
        p50, p99 = quantile(seen.delays, 0.5), quantile(seen.delays, 0.99)
        if name == "direct":
            rows.append((name, streams, seen.complete, p50, p99, *[None] * 4))
            continue
        cost = seen.cpu / len(seen.delays) * 1e6
        rows.append((name, streams, seen.complete, p50, p99, p50 - direct50, p99 - direct99, cost, seen.resident))
    return rows


def watch(target: Target, streams: int, seconds: int) -> Watched:
    """Open the streams one by one within a second, read all to their end, and look at the target's memory meanwhile.

    A stream that has not ended 5 s after the last event was due counts as incomplete.
    """
    gc.collect()
    gc.disable()
    try:
        return _Watch(target, streams, seconds).run()
    finally:
        gc.enable()


class _Watch:
    def __init__(self, target: Target, streams: int, seconds: int) -> None:
        self._target = target
        self._streams = streams
        self._events = seconds * EVENTS_PER_SECOND
        content = f"events {self._events}"
        self._request = traffic.request(traffic.body(content, model=traffic.STREAM_MODEL, stream=True))
        self._epoll = select.epoll()
        self._open: dict[int, _Stream] = {}
        self._delays = array("q")
        self._complete = 0

    def run(self) -> Watched:
        began = now = looked = time.monotonic()
        deadline = began + OPENING_SECONDS + self._events / EVENTS_PER_SECOND + GRACE_SECONDS
        opened, most, used = 0, 0.0, cpu_seconds(self._target.pid)
        while (opened < self._streams or self._open) and now < deadline:
            while opened < self._streams and began + opened * OPENING_SECONDS / self._streams <= now:
                stream = _Stream(self._target.stream_port, self._request)
                self._open[stream.socket.fileno()] = stream
                self._epoll.register(stream.socket, select.EPOLLIN)
                opened += 1
            for descriptor, _ in self._epoll.poll(0.001 if opened < self._streams else 0.1):
                self._on_ready(descriptor)
            now = time.monotonic()
            if now - looked > LOOK_SECONDS:
                looked, most = now, max(most, resident(self._target.pid))
        for stream in self._open.values():
            stream.socket.close()
        self._epoll.close()
        used = cpu_seconds(self._target.pid) - used
        wait_idle(self._target.pid)
        return Watched(self._complete, [delay / 1e6 for delay in self._delays], most, used)

    def _on_ready(self, descriptor: int) -> None:
        stream = self._open[descriptor]
        try:
            data = stream.socket.recv(16384)
        except ConnectionError:
            data = b""
        now = time.monotonic_ns()
        for stamp in stream.stamps(data):
            self._delays.append(now - int(stamp))
        if not data or stream.ended:
            self._complete += stream.seen == self._events and stream.done
            self._epoll.unregister(stream.socket)
            stream.socket.close()
            del self._open[descriptor]


class _Stream:
    """One stream as the client sees it. `done` once `[DONE]` came, `ended` once the response is over."""

    __slots__ = ("_tail", "done", "ended", "seen", "socket")

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = connect(port)
        self.socket.sendall(request)
        self.socket.setblocking(False)
        self._tail = b""
        self.seen = 0
        self.done = self.ended = False

    def stamps(self, data: bytes) -> list[bytes]:
        """The stamps that `data` completes."""
        data = self._tail + data
        found: list[bytes] = traffic.STAMP.findall(data)
        self.seen += len(found)
        end = data.rfind(found[-1]) + traffic.STAMP_LENGTH - 1 if found else 0
        self._tail = data[max(end, len(data) - traffic.STAMP_LENGTH) :]
        self.done = self.done or b"[DONE]" in data
        self.ended = data.endswith(b"0\r\n\r\n")
        return found
