"""How the real process ends: signals, clients that hold on, loads under way. Each test drives `quiver serve`."""

import json
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from bench.running import Running, gateway
from tests.engine.chat_model import write_chat_model

from .test_process import address, chat, open_stream, post, send_chat, silent_backend, wait_for_in_flight


def messages(running: Running) -> list[str]:
    """What was logged, in order."""
    return [json.loads(line)["message"] for line in running.log.read_text().splitlines()]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_idle_process(number: signal.Signals, code: int) -> None:
    with gateway() as running:
        assert running.stop(number) == code


def test_interrupt_with_open_streams() -> None:
    """Ctrl-C ends the process within 5 s: one client waits for a silent server, some never read, one sends nothing."""
    with silent_backend() as config, gateway(config) as running:
        idle = socket.create_connection(address(running))
        silent = send_chat(running, "silent", stream=True)
        unread = [open_stream(running, temperature=2, max_tokens=1500) for _ in range(3)]
        began = time.monotonic()
        assert running.stop(signal.SIGINT) == 130
        assert time.monotonic() - began < 5
        answer = b"".join(iter(lambda: silent.recv(65_536), b""))
        assert b'"code":"shutting_down"' in answer
        for sock in [idle, silent, *unread]:
            sock.close()


def test_second_signal_forces() -> None:
    with silent_backend() as config, gateway(f"[drain]\ntimeout = 600\n{config}") as running:
        waiting = send_chat(running, "silent")
        wait_for_in_flight(running, 1)
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(0.5)
        assert running.stop(signal.SIGTERM) == 143
        waiting.close()


def test_stopped_requests_are_named() -> None:
    """What did not end in time is logged by its id; the clients are told."""
    with silent_backend() as config, gateway(f"[drain]\ntimeout = 0.5\n{config}") as running:
        waiting = send_chat(running, "silent")
        wait_for_in_flight(running, 1)
        assert running.stop(signal.SIGTERM) == 143
        reply = b"".join(iter(lambda: waiting.recv(65_536), b""))
        waiting.close()
        lines = [json.loads(line) for line in running.log.read_text().splitlines()]
    (stopped,) = (line for line in lines if line["message"].startswith("request stopped"))
    assert f"x-request-id: {stopped['request_id']}".encode() in reply.lower()
    assert lines[-1]["message"] == "stopped"
    assert lines[-1]["reason"] == "SIGTERM"


def state_of(running: Running, model: str) -> str:
    with urllib.request.urlopen(f"{running.url}/admin/models/{model}", timeout=10) as reply:
        return str(json.load(reply)["state"])


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that takes a while to load."""
    return write_chat_model(tmp_path_factory.mktemp("slow") / "slow.gguf", layers=10, feed_forward=32_768)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_load_is_aborted(slow_model: Path, number: signal.Signals) -> None:
    with gateway() as running:
        body = json.dumps({"path": str(slow_model), "wait": False}).encode()
        assert post(running, body, path="/admin/models/load")[0] == 202
        assert state_of(running, "slow") == "loading"
        began = time.monotonic()
        assert running.stop(number) == 128 + number
        assert time.monotonic() - began < 5
        assert "Traceback" not in running.log.read_text()
        assert messages(running)[-1] == "stopped"


def test_locked_database_is_warned_of(tmp_path: Path) -> None:
    """Somebody else holds the database: what cannot be written is told, and the process ends all the same."""
    with gateway(folder=tmp_path) as running:
        database = sqlite3.connect(running.data / "quiver.db", isolation_level=None)
        database.execute("BEGIN EXCLUSIVE")
        assert post(running, chat("bolt", max_tokens=2))[0] == 200
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        code = running.process.wait(60)
        assert time.monotonic() - began < 40
        lines = [json.loads(line) for line in running.log.read_text().splitlines()]
        database.close()
    assert code == 143
    assert lines[-1]["message"] == "stopped"
    assert [line for line in lines if line["level"] in ("warning", "error") and line["component"] == "store"]
    with gateway(folder=tmp_path) as running:
        assert post(running, chat("bolt", max_tokens=2))[0] == 200
        assert running.stop() == 130


def test_starts_cleanly_after_every_end(tmp_path: Path) -> None:
    """Nothing is left that a next start would stumble over, nor any temporary file."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        with gateway(folder=tmp_path) as running:
            assert post(running, chat("bolt", max_tokens=2))[0] == 200
            assert running.stop(number) in (130, 143, -9)
            assert "Traceback" not in running.log.read_text()
    left = {path.name for path in running.data.rglob("*") if path.is_file()}
    assert left == {"quiver.db", "quiver.lock", "registrations.json", "quiver.jsonl"}
