"""What does the gateway add to a request? The same load on a mock backend directly and through Quiver, in one run.

Load generator, mock backend and gateway share the machine; read the ratio, not the absolute figures.
"""

import multiprocessing
import sys
import time
from functools import partial

import trio

from bench.figures import Row, report, row
from bench.running import gateway

CONNECTIONS = (1, 16, 64)
WARM_UP, SECONDS = 1.0, 4.0
BODY = b'{"model": "echo", "messages": [{"role": "user", "content": "hello"}]}'
REPLY_BODY = (
    b'{"id": "x", "object": "chat.completion", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'
)
REPLY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(REPLY_BODY) + REPLY_BODY
)
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    % len(BODY)
    + BODY
)


async def _answer(stream: trio.SocketStream) -> None:
    """The cheapest backend there can be: one reply per received request, nothing parsed."""
    async for data in stream:
        await stream.send_all(REPLY * data.count(b"POST "))


def backend(port: "multiprocessing.Queue[int]") -> None:
    """Run the mock backend; its port goes into the queue."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, _answer, 0, host="127.0.0.1"))
            port.put(listeners[0].socket.getsockname()[1])

    trio.run(main)


async def _client(port: int, latencies: list[float], measuring: trio.Event, done: trio.Event) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        while not done.is_set():
            began = time.perf_counter()
            await stream.send_all(REQUEST)
            received = b""
            while not received.endswith(REPLY_BODY):
                data = await stream.receive_some()
                if not data:
                    raise RuntimeError(f"connection closed: {received[:300]!r}")
                received += data
            if measuring.is_set():
                latencies.append(time.perf_counter() - began)


async def _load(port: int, connections: int) -> tuple[list[float], float]:
    """Latencies in seconds and requests per second."""
    latencies: list[float] = []
    measuring, done = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(connections):
            nursery.start_soon(_client, port, latencies, measuring, done)
        await trio.sleep(WARM_UP)
        measuring.set()
        await trio.sleep(SECONDS)
        done.set()
    return latencies, len(latencies) / SECONDS


def measure(target: str, port: int) -> list[Row]:
    """One row for each number of connections."""
    return [row(f"{target}, {count} connections", *trio.run(_load, port, count), "req/s") for count in CONNECTIONS]


def main(arguments: list[str]) -> int:
    port: multiprocessing.Queue[int] = multiprocessing.Queue()
    process = multiprocessing.Process(target=backend, args=(port,), daemon=True)
    process.start()
    backend_port = port.get(timeout=30)
    config = f"""
[engine]
bolt = false
[log]
level = "warning"
[[backends]]
url = "http://127.0.0.1:{backend_port}"
models = ["echo"]
"""
    try:
        with gateway(config) as running:
            rows = measure("direct", backend_port) + measure("through Quiver", int(running.url.rsplit(":", 1)[1]))
    finally:
        process.terminate()
        process.join()
    report(rows, as_json="--json" in arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
