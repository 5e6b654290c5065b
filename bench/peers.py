"""All that takes part in a run, each started the way a user would: the model servers, nginx as a proxy, Quiver, LiteLLM.

They serve the same two models over two ports each: `echo`, an nginx with one fixed reply, and `stream` (`bench/mock.py`).
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench import litellm, nginx, traffic
from bench.client import Client
from bench.mock import RunningMock, mock_server
from bench.processes import free_port
from bench.running import gateway
from bench.targets import Target, tool


@dataclass(frozen=True)
class Lineup:
    """All that takes part in a run. `litellm` is None when it was left out."""

    mock: RunningMock
    direct: Target
    nginx: Target
    quiver: Target
    litellm: Target | None

    @property
    def targets(self) -> list[Target]:
        return [self.direct, self.nginx, self.quiver, *([self.litellm] if self.litellm else [])]


@contextmanager
def lineup(*, with_litellm: bool) -> Iterator[Lineup]:
    """Everything started and ready; ended at the end. Raises `BenchmarkError` or `NotStarted`."""
    for name in ("nginx", "wrk"):
        tool(name)
    if with_litellm:
        litellm.install()
    with ExitStack() as stack:
        mock = stack.enter_context(mock_server())
        echo_ports = [free_port() for _ in mock.ports]
        echo = stack.enter_context(nginx.nginx(nginx.echo_server(echo_ports), echo_ports[0]))
        servers = [(traffic.ECHO_MODEL, port) for port in echo_ports]
        servers += [(traffic.STREAM_MODEL, port) for port in mock.ports]
        everything = Lineup(
            mock=mock,
            direct=Target("direct", echo_ports[0], mock.ports[0], echo),
            nginx=stack.enter_context(_nginx(echo_ports, mock.ports)),
            quiver=stack.enter_context(_quiver(servers)),
            litellm=stack.enter_context(litellm.litellm(servers)) if with_litellm else None,
        )
        for target in everything.targets:
            # An error here tells what a load generator would only count.
            with Client(target.echo_port) as client:
                client.ask(traffic.request(traffic.ECHO_BODY))
        yield everything


@contextmanager
def _nginx(echo_ports: Sequence[int], stream_ports: Sequence[int]) -> Iterator[Target]:
    """One worker in front of both models, on a port for each: it cannot look into a request for the model."""
    echo, stream = free_port(), free_port()
    servers = nginx.proxy_server("echo", echo, echo_ports) + nginx.proxy_server("stream", stream, stream_ports)
    with nginx.nginx(servers, echo) as pid:
        yield Target("nginx", echo, stream, pid)


@contextmanager
def _quiver(servers: Sequence[tuple[str, int]]) -> Iterator[Target]:
    """One Quiver with everything on: a key with limits, servers with places to take, records to a file."""
    backends = "".join(
        f'[[backends]]\nname = "{model}-{port}"\nurl = "http://127.0.0.1:{port}"\n'
        f'models = ["{model}"]\nmax_concurrency = 2048\n'
        for model, port in servers
    )
    with gateway(_QUIVER + backends) as running:
        port = int(running.url.rpartition(":")[2])
        yield Target("Quiver", port, port, running.process.pid)


_QUIVER = f"""
[engine]
bolt = false
[log]
level = "info"
format = "json"
[[keys]]
name = "bench"
key = "{traffic.KEY}"
requests_per_minute = 1000000000
tokens_per_minute = 1000000000000
"""


def versions(*, with_litellm: bool) -> dict[str, str]:
    """The versions of what took part."""
    # It prints its version first, then how it is used.
    told = subprocess.run([tool("wrk"), "-v"], capture_output=True, text=True).stdout.split()
    found = {"nginx": nginx.version(), "wrk": told[1].removeprefix("debian/")}
    return found | ({"litellm": litellm.version()} if with_litellm else {})
