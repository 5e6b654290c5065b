"""The model server of the stream and disconnect cases: one process on raw sockets and epoll, as cheap as Python can be.

The message says what to do. `events N`: N stamped events, 50 a second, then the end. `wait ID`: no answer at all. `endless ID`:
events until the client leaves. For the last two, standard output tells `asked ID NANOSECONDS` and `left ID NANOSECONDS`.
"""

import gc
import heapq
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from bench import traffic

PERIOD = 20_000_000  # nanoseconds between two events of one stream
ENDLESS = 1 << 60
PORTS = 2
COMMAND = re.compile(rb'"(events|wait|endless) (\d+)"')
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
# Multiples of the golden ratio fill a period evenly, however many streams there are.
GOLDEN_RATIO = 0.6180339887498949


class Conversation:
    """One connection: what came in, what could not be sent yet, and the stream it is being told."""

    __slots__ = ("due", "events", "received", "report", "socket", "unsent")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.received = b""
        self.unsent = b""
        self.events = 0
        self.due = 0
        self.report = b""


class Mock:
    """Answers on its listeners until the process is ended."""

    def __init__(self, listeners: list[socket.socket]) -> None:
        self._epoll = select.epoll()
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._conversations: dict[int, Conversation] = {}
        self._due: list[tuple[int, int, Conversation]] = []
        self._streams = 0
        for listener in listeners:
            listener.setblocking(False)
            self._epoll.register(listener, select.EPOLLIN)

    def run(self) -> NoReturn:
        """`select` on the epoll descriptor waits for microseconds, which epoll's own milliseconds would bunch up."""
        while True:
            self._send_due()
            wait = max(self._due[0][0] - time.monotonic_ns(), 0) / 1e9 if self._due else None
            ready, _, _ = select.select([self._epoll.fileno()], [], [], wait)
            if ready:
                for descriptor, _ in self._epoll.poll(0):
                    self._on_ready(descriptor)

    def _on_ready(self, descriptor: int) -> None:
        if descriptor in self._listeners:
            connection, _ = self._listeners[descriptor].accept()
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._conversations[connection.fileno()] = Conversation(connection)
            self._epoll.register(connection, select.EPOLLIN)
            return
        conversation = self._conversations[descriptor]
        try:
            data = conversation.socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self._on_left(descriptor, conversation)
            return
        conversation.received += data
        self._on_request(conversation)

    def _on_left(self, descriptor: int, conversation: Conversation) -> None:
        if conversation.report:
            _report(b"left", conversation.report)
        self._epoll.unregister(descriptor)
        del self._conversations[descriptor]
        conversation.socket.close()
        conversation.events = 0

    def _on_request(self, conversation: Conversation) -> None:
        head, separator, rest = conversation.received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = CONTENT_LENGTH.search(head)
        if length and len(rest) < int(length[1]):
            return
        conversation.received = b""
        command = COMMAND.search(rest)
        if command is None:
            answer = traffic.MODELS if head.startswith(b"GET") else traffic.COMPLETION
            conversation.socket.send(traffic.response(answer))
            return
        if command[1] != b"events":
            conversation.report = command[2]
            _report(b"asked", command[2])
        if command[1] != b"wait":
            self._begin(conversation, int(command[2]) if command[1] == b"events" else ENDLESS)

    def _begin(self, conversation: Conversation, events: int) -> None:
        conversation.socket.send(traffic.STREAM_HEAD)
        conversation.events = events
        phase = int(self._streams * GOLDEN_RATIO % 1 * PERIOD)
        now = time.monotonic_ns()
        conversation.due = now + (phase - now) % PERIOD
        self._streams += 1
        heapq.heappush(self._due, (conversation.due, self._streams, conversation))

    def _send_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic_ns():
            _, stream, conversation = self._due[0]
            if conversation.socket.fileno() >= 0 and self._tell(conversation):
                conversation.due += PERIOD
                heapq.heapreplace(self._due, (conversation.due, stream, conversation))
            else:
                heapq.heappop(self._due)

    def _tell(self, conversation: Conversation) -> bool:
        """Send the next event; whether there is more to send."""
        if conversation.events:
            data = b"%b%019d%b" % (traffic.EVENT_BEFORE, time.monotonic_ns(), traffic.EVENT_AFTER)
            conversation.events -= 1
            if not conversation.events:
                data += traffic.STREAM_TAIL
        else:
            data = b""
        if conversation.unsent:
            data = conversation.unsent + data
        try:
            sent = conversation.socket.send(data)
        except BlockingIOError:
            sent = 0
        except ConnectionError:
            return False
        conversation.unsent = data[sent:]
        return conversation.events > 0 or sent < len(data)


def _report(kind: bytes, report: bytes) -> None:
    os.write(1, b"%b %b %d\n" % (kind, report, time.monotonic_ns()))


class RunningMock:
    """A mock in a process of its own, and what it reports."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.process = process
        self._reports = process.stdout
        self._received = b""
        self.ports = [int(port) for port in self._reports.readline().split()]

    def wait_report(self, kind: str, identity: int, seconds: float) -> int | None:
        """When, in nanoseconds of the monotonic clock, the mock saw this; None if it did not within `seconds`."""
        wanted, deadline = f"{kind} {identity}".encode(), time.monotonic() + seconds
        while True:
            line, newline, rest = self._received.partition(b"\n")
            if newline:
                self._received = rest
                what, _, at = line.rpartition(b" ")
                if what == wanted:
                    return int(at)
                continue
            ready, _, _ = select.select([self._reports], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                return None
            self._received += os.read(self._reports.fileno(), 65536)


@contextmanager
def mock_server() -> Iterator[RunningMock]:
    """The mock on two free ports; killed at the end."""
    command = [sys.executable, "-m", "bench.mock"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, bufsize=0)
    try:
        yield RunningMock(process)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def main() -> NoReturn:
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=2048) for _ in range(PORTS)]
    print(*(listener.getsockname()[1] for listener in listeners), flush=True)
    gc.disable()
    Mock(listeners).run()


if __name__ == "__main__":
    main()
