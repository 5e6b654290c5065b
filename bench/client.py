"""A client that costs next to nothing: one kept-alive connection on a blocking socket, requests encoded beforehand."""

import re
import socket
import time
from types import TracebackType

from bench.targets import BenchmarkError

TIMEOUT = 30
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def connect(port: int) -> socket.socket:
    """A connection to this machine that sends at once. The caller closes it."""
    connection = socket.create_connection(("127.0.0.1", port), TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Client:
    """Asks one thing after the other. Use as a context manager."""

    def __init__(self, port: int) -> None:
        self._connection = connect(port)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def ask(self, request: bytes) -> float:
        """Milliseconds from the first byte sent to the last one received. Raises `BenchmarkError` unless it is a 200."""
        began = time.perf_counter_ns()
        self._connection.sendall(request)
        reply = self._connection.recv(65536)
        while not _is_complete(reply):
            data = self._connection.recv(65536)
            if not data:
                break
            reply += data
        taken = (time.perf_counter_ns() - began) / 1e6
        if not reply.startswith(b"HTTP/1.1 200 "):
            raise BenchmarkError(f"answered {reply[:300]!r}")
        return taken


def _is_complete(reply: bytes) -> bool:
    """Whether a response with a length is all there; one without counts as complete when its last chunk came."""
    head, separator, rest = reply.partition(b"\r\n\r\n")
    length = CONTENT_LENGTH.search(head)
    if length:
        return bool(separator) and len(rest) >= int(length[1])
    return rest.endswith(b"0\r\n\r\n")
