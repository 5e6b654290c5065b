"""The real process on a disk that fills up: it goes on serving, says so, refuses changes, and recovers by itself."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.running import Running, gateway

from .test_process import chat, post
from .test_registrations import CONFIG, ModelServers, ask

# Room for the database and its log, not for much more.
SIZE = 3_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own as the data folder of a gateway in `tmp_path`."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", data], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("no small disk can be mounted here")
    try:
        yield data
    finally:
        subprocess.run(["umount", data], check=True)


@pytest.fixture
def servers() -> Iterator[ModelServers]:
    made = ModelServers()
    yield made
    made.close()


def register(running: Running, servers: ModelServers, name: str) -> tuple[int, object]:
    status, told = ask(running.url, "POST", "/admin/register", {"endpoint_url": f"{servers.url}/{name}", "name": name})
    error = told.get("error")
    return status, error["code"] if isinstance(error, dict) else None


def wait_for_log(running: Running, words: str) -> None:
    deadline = time.monotonic() + 60
    while words not in running.log.read_text():
        assert time.monotonic() < deadline, f"the log does not say `{words}`:\n{running.log.read_text()[-3000:]}"
        time.sleep(0.1)


def fill(data: Path) -> Path:
    """Take what is left of the disk."""
    filler = data / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filler


def test_full_disk_is_survived(servers: ModelServers, small_disk: Path, tmp_path: Path) -> None:
    config = CONFIG.replace("bolt = false", "bolt = true").replace("'warning'", "'info'")
    with gateway(config, folder=tmp_path) as running:
        assert register(running, servers, "before") == (201, None)
        filler = fill(small_disk)
        # The log has room that was reserved before; requests use that up.
        for _ in range(2000):
            status, code = register(running, servers, "refused")
            if status != 201:
                break
            assert ask(running.url, "DELETE", "/admin/register/refused")[0] in (200, 503)
        assert (status, code) == (503, "store_unavailable")
        assert post(running, chat(max_tokens=2))[0] == 200
        known = [server["id"] for server in _servers(running)]
        wait_for_log(running, "store.degraded")
        for _ in range(20):
            assert post(running, chat(max_tokens=2))[0] == 200
        filler.unlink()
        deadline = time.monotonic() + 30
        while (answer := register(running, servers, "after")) != (201, None):
            assert time.monotonic() < deadline, answer
            time.sleep(0.2)
        wait_for_log(running, "store.recovered")
        assert {server["id"] for server in _servers(running)} == {*known, "after"}
        assert running.stop() == 130
        assert "Traceback" not in running.log.read_text()
    with contextlib.closing(sqlite3.connect(small_disk / "quiver.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with gateway(config, folder=tmp_path) as running:
        assert {server["id"] for server in _servers(running)} == {*known, "after"}
        assert json.loads((small_disk / "registrations.json").read_text())


def _servers(running: Running) -> list[dict[str, object]]:
    found = ask(running.url, "GET", "/admin/servers")[1]["servers"]
    assert isinstance(found, list)
    return found
