"""Registrations against the real process while it is killed at random moments: what was acknowledged is there afterwards.

`REGISTRATIONS=1000 pytest tests/e2e/test_registrations.py -s` is the run that counts; by default it is a short one.
"""

import asyncio
import contextlib
import http.client
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest

from bench.running import Running, gateway

Change = Literal["register", "pause", "deregister"]
REGISTRATIONS = int(os.environ.get("REGISTRATIONS", "40"))
SEED = int(os.environ.get("SEED", "1"))
# About as many kills as there are registrations in this.
BETWEEN_KILLS = 25
CLIENTS = 3
# No other check than the first ones: a thousand servers of one thread would be busy with them.
CONFIG = "[engine]\nbolt = false\n[health]\ninterval = 300\nejection = 300\n[log]\nlevel = 'warning'\n"
MODELS = b'{"object": "list", "data": [{"id": "m", "object": "model"}]}'
REPLY = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"


class ModelServers:
    """As many model servers as there are paths: each lists the same model. One thread serves them all."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        starting = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._server = starting.result(10)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            found = head.split(b" ", 2)[1].endswith(b"/v1/models")
            body = MODELS if found else b"{}"
            writer.write(REPLY % (b"200 OK" if found else b"404 Not Found", len(body), body))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the gateway was killed
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def close(self) -> None:
        async def stop() -> None:
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def servers() -> Iterator[ModelServers]:
    made = ModelServers()
    yield made
    made.close()


class Operators:
    """They register servers, pause some and deregister some, and remember what was acknowledged. What was asked for and not
    answered is uncertain, by the server's name: it may have happened or not.
    """

    def __init__(self, model_servers: str, chance: random.Random) -> None:
        self._model_servers, self._chance = model_servers, chance
        self.modes: dict[str, str] = {}
        self.removed: set[str] = set()
        self.uncertain: dict[str, Change] = {}
        self.seconds: list[float] = []
        self._count = 0
        self._lock = threading.Lock()

    def work(self, url: str) -> None:
        """Until the gateway is gone."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            while len(self.modes) + len(self.removed) < REGISTRATIONS:
                self._turn(url)

    def _turn(self, url: str) -> None:
        with self._lock:
            self._count += 1
            name, chance = f"s{self._count}", self._chance.random()
        self._acknowledged(url, name, "register", "POST", "/admin/register", self._wanted(name))
        self.modes[name] = "serving"
        if chance < 0.1:
            self._acknowledged(url, name, "pause", "POST", f"/admin/servers/{name}/pause")
            self.modes[name] = "paused"
        elif chance < 0.2:
            self._acknowledged(url, name, "deregister", "DELETE", f"/admin/register/{name}")
            del self.modes[name]
            self.removed.add(name)

    def _wanted(self, name: str) -> dict[str, object]:
        return {"endpoint_url": f"{self._model_servers}/{name}", "name": name, "api_key": f"key-of-{name}"}

    def _acknowledged(self, url: str, name: str, change: Change, method: str, path: str, body: object = None) -> None:
        """Raises what a killed gateway's connection raises."""
        self.uncertain[name] = change
        began = time.monotonic()
        status, _ = ask(url, method, path, body)
        self.seconds.append(time.monotonic() - began)
        assert status in (200, 201), (status, name, method)
        del self.uncertain[name]


def ask(url: str, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        content = None if body is None else json.dumps(body).encode()
        connection.request(method, path, content, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def listed(running: Running) -> dict[str, str]:
    """The mode of every server that the gateway knows."""
    modes: dict[str, str] = {}
    cursor = ""
    while True:
        status, page = ask(running.url, "GET", f"/admin/servers?limit=1000{cursor}")
        assert status == 200, page
        found = page["servers"]
        assert isinstance(found, list)
        modes |= {server["id"]: server["mode"] for server in found}
        if page["next_cursor"] is None:
            return modes
        cursor = f"&cursor={page['next_cursor']}"


def assert_nothing_lost(operators: Operators, found: dict[str, str]) -> None:
    uncertain = operators.uncertain
    registered = {name for name in operators.modes if uncertain.get(name) != "deregister"}
    assert registered <= found.keys()
    modes = {name: operators.modes[name] for name in registered if name not in uncertain}
    assert {name: found[name] for name in modes} == modes
    unknown = found.keys() - operators.modes.keys()
    assert unknown <= {name for name, change in uncertain.items() if change == "register"}


def assert_sound(data: Path) -> None:
    """The file as the kill has left it, looked at without changing it."""
    with contextlib.closing(sqlite3.connect(f"file:{data / 'quiver.db'}?mode=ro", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def kill_while_starting(folder: Path, chance: random.Random) -> None:
    """A gateway that does not get far."""
    command = [sys.executable, "-m", "quiver.admin", "serve", "--port", "0"]
    environ = {**os.environ, "QUIVER_DATA_DIR": str(folder / "data")}
    with subprocess.Popen(command, cwd=folder, env=environ, stderr=subprocess.DEVNULL) as process:
        time.sleep(chance.uniform(0.3, 2.5))
        process.kill()


@pytest.mark.timeout(120 + 4 * REGISTRATIONS)
def test_acknowledged_registrations_survive_kills(servers: ModelServers, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    operators = Operators(servers.url, chance)
    kills, began = 0, time.monotonic()
    while len(operators.modes) + len(operators.removed) < REGISTRATIONS:
        if kills % 5 == 3:
            kill_while_starting(tmp_path, chance)
            assert_sound(tmp_path / "data")
        with gateway(CONFIG, folder=tmp_path) as running:
            found = listed(running)
            assert_nothing_lost(operators, found)
            # Now it is known what became of them.
            operators.modes = found
            operators.uncertain.clear()
            threads = [threading.Thread(target=operators.work, args=(running.url,)) for _ in range(CLIENTS)]
            for thread in threads:
                thread.start()
            time.sleep(chance.uniform(0.0, 2 * BETWEEN_KILLS / 50))
            running.process.kill()
            kills += 1
            for thread in threads:
                thread.join()
            assert "Traceback" not in running.log.read_text()
        assert_sound(tmp_path / "data")
    with gateway(CONFIG, folder=tmp_path) as running:
        assert_nothing_lost(operators, listed(running))
        assert running.stop(signal.SIGTERM) == 143
        assert "damaged" not in running.log.read_text()
    assert_sound(tmp_path / "data")
    times = sorted(operators.seconds)
    print(
        f"\n{len(operators.modes) + len(operators.removed)} registrations ({len(operators.removed)} removed again), "
        f"{kills} kills, {time.monotonic() - began:.0f} s; a change took {times[len(times) // 2] * 1000:.0f} ms at the "
        f"median, {times[int(len(times) * 0.99)] * 1000:.0f} ms at p99"
    )
