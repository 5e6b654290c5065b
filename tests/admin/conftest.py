"""A gateway that is not running, for the control plane to look at; a server that says what it is told, for the client."""

import logging
import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import structlog
from quiver.proxy.gateway import Gateway
from quiver.proxy.registry import Call, Health
from quiver.proxy.reply import Reply
from quiver.proxy.telemetry.levels import LEVELS
from quiver.proxy.testing import ScriptedBackend, fixed_world
from quiver.schemas.config import Auth, Config, Engine, Server

KEY = "quiver-test-key"

BuildGateway = Callable[..., Gateway]
Speak = Callable[[bytes], "Speaker"]


async def silent(call: Call, reply: Reply) -> None:
    """The script of a backend that is never asked."""


@pytest.fixture
def build_gateway() -> BuildGateway:
    def build(
        *health: Health, host: str = "127.0.0.1", keys: tuple[str, ...] = (), admin_key: str | None = None
    ) -> Gateway:
        """A ready gateway with one scripted backend for each `health`."""
        config = Config(engine=Engine(bolt=False), server=Server(host=host), auth=Auth(keys=keys, admin_key=admin_key))
        gateway = Gateway(config, fixed_world(), lambda batch: None, on_loopback=True)
        for number, state in enumerate(health):
            backend = ScriptedBackend(f"b{number}", [f"model-{number}"], silent)
            backend.health = state
            gateway.registry.add(backend)
        gateway.state = "ready"
        return gateway

    return build


@pytest.fixture
def _logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    LEVELS.changed = lambda: None
    LEVELS.configure("info", {})
    root.handlers[:], root.level = handlers, level


class Speaker(socketserver.ThreadingTCPServer):
    """A server on a real socket that answers every request with the same bytes, and remembers the requests."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, reply: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Turn)
        self.reply = reply
        self.requests: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Turn(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Speaker)
        head = b""
        while line := self.rfile.readline().strip():
            head += line + b"\n"
        length = re.search(rb"(?i)content-length: (\d+)", head)
        self.server.requests.append(head + b"\n" + self.rfile.read(int(length[1]) if length else 0))
        self.wfile.write(self.server.reply)


@pytest.fixture
def speak() -> Iterator[Callable[[bytes], Speaker]]:
    """Start a `Speaker` for a reply."""
    with ExitStack() as stack:

        def start(reply: bytes) -> Speaker:
            speaker = stack.enter_context(Speaker(reply))
            thread = threading.Thread(target=speaker.serve_forever, args=(0.01,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(speaker.shutdown)
            return speaker

        yield start


def reply(status: str, body: bytes, content_type: str = "application/json") -> bytes:
    """A whole HTTP reply."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def events(*data: bytes, ended: bool = True) -> bytes:
    """A streamed HTTP reply, one chunk an event; without `ended` the connection is cut."""
    chunks = [b": heartbeat\n\n", *(b"data: " + item + b"\n\n" for item in data)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + coded + (b"0\r\n\r\n" if ended else b"")
