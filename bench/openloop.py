"""Requests at a fixed rate, whatever the answers take: a process of its own, which prints what it saw as JSON.

A request is due at its moment and its latency counts from then, so a gateway that stalls is not spared the requests it held up.
"""

import argparse
import gc
import json
import select
import socket
import sys
import time

from bench import traffic
from bench.client import connect
from bench.figures import quantile

CONNECTIONS = 64


class Load:
    """A due request waits for a free connection, and its wait counts."""

    def __init__(self, port: int, requests: list[bytes], rate: float, seconds: float) -> None:
        self._free = [connect(port) for _ in range(CONNECTIONS)]
        self._requests, self._rate, self._seconds = requests, rate, seconds
        self._asked: dict[int, tuple[socket.socket, float, bytes]] = {}
        self.seconds: list[float] = []
        self.failed = 0

    def run(self) -> None:
        epoll = select.epoll()
        for connection in self._free:
            epoll.register(connection.fileno(), select.EPOLLIN)
        began, sent, total = time.perf_counter(), 0, int(self._rate * self._seconds)
        while sent < total or (self._asked and time.perf_counter() < began + self._seconds + 10):
            now = time.perf_counter()
            while sent < total and self._free and began + sent / self._rate <= now:
                connection = self._free.pop()
                connection.sendall(self._requests[sent % len(self._requests)])
                self._asked[connection.fileno()] = (connection, began + sent / self._rate, b"")
                sent += 1
            wait = max(began + sent / self._rate - time.perf_counter(), 0) if sent < total and self._free else 0.1
            # `select` waits for microseconds, which epoll's own milliseconds would bunch up.
            if select.select([epoll.fileno()], [], [], wait)[0]:
                for descriptor, _ in epoll.poll(0):
                    self._on_readable(descriptor)

    def _on_readable(self, descriptor: int) -> None:
        connection, due, received = self._asked[descriptor]
        received += connection.recv(65536)
        head, separator, rest = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0) if separator else 0
        if not separator or len(rest) < length:
            self._asked[descriptor] = (connection, due, received)
            return
        del self._asked[descriptor]
        self._free.append(connection)
        self.seconds.append(time.perf_counter() - due)
        self.failed += not head.startswith(b"HTTP/1.1 200 ")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.openloop", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("rate", type=float)
    parser.add_argument("seconds", type=float)
    parser.add_argument("models", nargs="*", default=[traffic.ECHO_MODEL])
    options = parser.parse_args()
    requests = [traffic.request(traffic.body("Say hello in a few words.", model=model)) for model in options.models]
    load = Load(options.port, requests, options.rate, options.seconds)
    gc.disable()
    load.run()
    told = {
        "answered": len(load.seconds),
        "failed": load.failed,
        "p50": quantile(load.seconds, 0.5) * 1000,
        "p99": quantile(load.seconds, 0.99) * 1000,
    }
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
