"""`quiver join` over real sockets: behind a router, with the link pulled, with either end killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bench import traffic
from bench.mock import mock_server
from bench.running import Running, gateway

from .joiners import PATIENCE, RunningJoiner, at_home, joiner, why_no_namespaces

KEY = "client-key-0123456789"
JOIN_KEY = "join-key-0123456789"
HEARTBEAT = 0.5
QUICK = f"[engine]\nbolt = false\n[health]\ninterval = 2\n[join]\nheartbeat = {HEARTBEAT}\n"
MODEL = traffic.STREAM_MODEL


class Client:
    """Asks a gateway; every request on a connection of its own."""

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urlsplit(url)
        self._address = str(parts.hostname), parts.port
        self._headers = {"Content-Type": "application/json", "Connection": "close"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"

    def ask(self, command: str = "hello", *, stream: bool = False) -> HTTPResponse:
        connection = HTTPConnection(*self._address, timeout=PATIENCE)
        connection.request(
            "POST", "/v1/chat/completions", traffic.body(command, model=MODEL, stream=stream), self._headers
        )
        return connection.getresponse()

    def server(self) -> str:
        """Which server answers a whole request; its status if none does."""
        reply = self.ask()
        reply.read()
        return str(reply.headers["X-Gateway-Server-ID"]) if reply.status == 200 else str(reply.status)

    def stream_from(self, server: str, command: str) -> HTTPResponse:
        """A stream that this server has begun."""
        for _ in range(10):
            reply = self.ask(command, stream=True)
            if reply.headers["X-Gateway-Server-ID"] == server:
                assert reply.readline().startswith(b"data: ")
                return reply
            reply.close()
        raise AssertionError(f"`{server}` gets no requests")


def wait_until_offered(client: Client, server: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while client.server() != server:
        assert time.monotonic() < deadline, f"`{server}` answers nothing"
        time.sleep(0.05)


def servers(running: Running) -> dict[str, dict[str, Any]]:
    with urllib.request.urlopen(f"{running.url}/admin/servers", timeout=PATIENCE) as reply:
        return {server["id"]: server for server in json.load(reply)["servers"]}


def last_event(reply: HTTPResponse) -> bytes:
    """The last event of a stream that must be well-formed; how it ended."""
    return reply.read().strip().rpartition(b"\n\n")[2]


@pytest.fixture
def reason() -> None:
    why = why_no_namespaces()
    if why is not None:
        pytest.skip(f"NOT TRIED: this machine has no network namespaces for us ({why}); run it as root on Linux")


@pytest.mark.usefixtures("reason")
def test_laptop_behind_a_router(tmp_path: Path) -> None:
    key_file = tmp_path / "join.key"
    key_file.write_text(JOIN_KEY)
    with at_home() as home, home.model_server() as model, mock_server() as other:
        config = (
            f'{QUICK}key = "{JOIN_KEY}"\n[auth]\nkeys = ["{KEY}"]\n[egress]\nallow = ["127.0.0.1/32"]\n'
            f'[[backends]]\nname = "other"\nurl = "http://127.0.0.1:{other.ports[0]}"\n'
        )
        with gateway(config, ("--host", home.outside)) as front:
            port, client = urlsplit(front.url).port, Client(front.url, KEY)
            assert port is not None
            for host in (home.laptop_address, home.router_outside):
                with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
                    socket.create_connection((host, model.ports[0]), timeout=1)
            server, options = f"http://127.0.0.1:{model.ports[0]}", ("--key-file", str(key_file))
            with (
                home.routing_to(port) as way_out,
                joiner(way_out, server, "laptop", tmp_path, options, home.inside(home.laptop)) as owned,
            ):
                owned.wait_for(state="joined")
                wait_until_offered(client, "laptop")
                whole = client.stream_from("laptop", "events 20").read()
                assert whole.endswith(b"data: [DONE]\n\n")

                reply = client.stream_from("laptop", "endless 1")
                pulled = time.monotonic()
                home.link("down")
                ended = last_event(reply)
                assert time.monotonic() - pulled < 3 * HEARTBEAT + 2
                assert b'"code":"upstream_truncated"' in ended
                assert [client.server() for _ in range(4)] == ["other"] * 4
                owned.wait_for(state="waiting")
                assert model.wait_report("left", 1, PATIENCE) is not None, "the server goes on for nobody"

                home.link("up")
                owned.wait_for(state="joined")
                wait_until_offered(client, "laptop")
                assert client.stream_from("laptop", "events 20").read().endswith(b"data: [DONE]\n\n")
                assert owned.stop(signal.SIGTERM) == 143
                assert [client.server() for _ in range(4)] == ["other"] * 4
                assert JOIN_KEY not in front.log.read_text()


@pytest.fixture
def joined(tmp_path: Path) -> Iterator[tuple[Running, Any, RunningJoiner]]:
    """A gateway on loopback, a model server, and a joiner between them."""
    with (
        gateway(QUICK) as front,
        mock_server() as model,
        joiner(front.url, f"http://127.0.0.1:{model.ports[0]}", "laptop", tmp_path) as owned,
    ):
        owned.wait_for(state="joined")
        wait_until_offered(Client(front.url), "laptop")
        yield front, model, owned


def test_client_that_leaves_is_told_to_the_server(joined: tuple[Running, Any, RunningJoiner]) -> None:
    front, model, _ = joined
    reply = Client(front.url).stream_from("laptop", "endless 7")
    began = time.monotonic()
    reply.close()
    assert model.wait_report("left", 7, 5) is not None
    assert time.monotonic() - began < 2


def test_killed_joiner(joined: tuple[Running, Any, RunningJoiner]) -> None:
    front, model, owned = joined
    reply = Client(front.url).stream_from("laptop", "endless 8")
    owned.process.kill()
    assert b'"code":"upstream_truncated"' in last_event(reply)
    assert model.wait_report("left", 8, 5) is not None
    assert Client(front.url).server() == "503"
    assert "link is down" in str(servers(front)["laptop"]["reason"])


def test_leaves_after_open_requests(joined: tuple[Running, Any, RunningJoiner]) -> None:
    front, _, owned = joined
    reply = Client(front.url).stream_from("laptop", "events 50")
    owned.process.send_signal(signal.SIGINT)
    assert last_event(reply) == b"data: [DONE]", "what was open is finished"
    assert owned.process.wait(PATIENCE) == 130
    assert "laptop" not in servers(front)


def test_pause_and_resume(joined: tuple[Running, Any, RunningJoiner]) -> None:
    front, _, owned = joined
    environ = {**os.environ, "QUIVER_DATA_DIR": str(owned.data)}

    def told(word: str) -> str:
        command = [sys.executable, "-m", "quiver.admin", "join", word]
        return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout

    reply = Client(front.url).stream_from("laptop", "events 100")
    told("pause")
    owned.wait_for(paused=True)
    assert "paused" in told("status")
    time.sleep(0.2)
    assert Client(front.url).server() == "503"
    assert last_event(reply) == b"data: [DONE]", "what was open goes on"
    owned.process.send_signal(signal.SIGUSR1)
    owned.wait_for(paused=False)
    wait_until_offered(Client(front.url), "laptop")
    told("leave")
    assert owned.process.wait(PATIENCE) == 0


def test_gateway_that_is_started_again(tmp_path: Path) -> None:
    with mock_server() as model, gateway(QUICK) as front:
        again = "--port", str(urlsplit(front.url).port)
        with joiner(front.url, f"http://127.0.0.1:{model.ports[0]}", "laptop", tmp_path) as owned:
            owned.wait_for(state="joined")
            assert front.stop() == 130
            assert "shuts down" in owned.wait_for(state="waiting")["reason"]
            with gateway(QUICK, again) as second:
                owned.wait_for(state="joined")
                wait_until_offered(Client(second.url), "laptop")
                second.process.kill()
                owned.wait_for(state="waiting")
            with gateway(QUICK, again) as third:
                owned.wait_for(state="joined")
                wait_until_offered(Client(third.url), "laptop")


def test_two_joiners_share_a_model(tmp_path: Path) -> None:
    with (
        gateway(QUICK) as front,
        mock_server() as one,
        mock_server() as two,
        joiner(front.url, f"http://127.0.0.1:{one.ports[0]}", "one", tmp_path) as first,
        joiner(front.url, f"http://127.0.0.1:{two.ports[0]}", "two", tmp_path) as second,
    ):
        first.wait_for(state="joined")
        second.wait_for(state="joined")
        client = Client(front.url)
        wait_until_offered(client, "one")
        wait_until_offered(client, "two")
        assert sorted(client.server() for _ in range(10)) == ["one"] * 5 + ["two"] * 5
