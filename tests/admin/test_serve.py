"""`quiver serve` around the gateway: what it says at its start, why it does not start, and one real process."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from quiver.admin.cli.app import app
from quiver.admin.serve import access, reachable_url, welcome, why_not_bound
from quiver.proxy.server import Listening
from quiver.schemas.config import Config, Server
from typer.testing import CliRunner

LOOPBACK = Listening("127.0.0.1", 8080, keys_required=False)

LISTENINGS = [
    (LOOPBACK, "http://127.0.0.1:8080", "open to loopback only"),
    (Listening("::1", 9000, keys_required=False), "http://[::1]:9000", "open to loopback only"),
    (Listening("127.0.0.1", 8080, keys_required=True), "http://127.0.0.1:8080", "keys required"),
    (Listening("0.0.0.0", 8080, keys_required=True), "http://127.0.0.1:8080", "keys required"),
    (Listening("::", 8080, keys_required=False), "http://[::1]:8080", "OPEN to everyone"),
    (Listening("192.168.1.4", 80, keys_required=False), "http://192.168.1.4:80", "OPEN to everyone"),
]


@pytest.mark.parametrize(("listening", "url", "who"), LISTENINGS)
def test_address_and_access(listening: Listening, url: str, who: str) -> None:
    assert (reachable_url(listening), access(listening)) == (url, who)


def test_welcome_says_how_to_ask() -> None:
    assert welcome(LOOPBACK, ["bolt"], 0).splitlines() == [
        "Quiver listens on http://127.0.0.1:8080 (open to loopback only)",
        "  models    bolt",
        '  ask       quiver chat "What is Quiver?"',
        "  clients   base URL http://127.0.0.1:8080/v1",
        "  API page  http://127.0.0.1:8080/docs",
        "Stop it with Ctrl-C",
    ]


@pytest.mark.parametrize(
    ("listening", "models", "remote", "line"),
    [
        (LOOPBACK, ["bolt", "m"], 1, "  models    bolt, m and what 1 backend offers"),
        (LOOPBACK, [], 2, "  models    none of its own and what 2 backends offer"),
        (
            Listening("127.0.0.1", 9000, keys_required=True),
            ["bolt"],
            0,
            '  ask       QUIVER_API_KEY=YOUR_KEY quiver chat --url http://127.0.0.1:9000 "What is Quiver?"',
        ),
    ],
)
def test_welcome_fits_gateway(listening: Listening, models: list[str], remote: int, line: str) -> None:
    assert line in welcome(listening, models, remote).splitlines()


BIND_ERRORS = [
    (OSError(errno.EADDRINUSE, "x"), "port 80 is already in use", "choose another with --port"),
    (OSError(errno.EACCES, "x"), "this user may not listen on port 80", "choose one above 1023 with --port"),
    (OSError(errno.EADDRNOTAVAIL, "x"), "this machine has no address `h`", "choose another with --host"),
    (socket.gaierror(-2, "x"), "the host `h` is not known", "choose another with --host"),
    (
        OSError(errno.EMFILE, "x"),
        "cannot listen on `h`, port 80: Too many open files",
        "choose others with --host and --port",
    ),
]


@pytest.mark.parametrize(("error", "message", "hint"), BIND_ERRORS)
def test_bind_errors_are_explained(error: OSError, message: str, hint: str) -> None:
    assert why_not_bound(Config(server=Server(host="h", port=80)), error) == (message, hint)


@pytest.mark.usefixtures("_logging_restored")
def test_taken_port_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["serve", "--port", str(port)], env={"QUIVER_ENGINE__BOLT": "false"})
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: port {port} is already in use\nhint: choose another with --port\n"


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_process_serves_until_signal(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """One real process over a real socket: it says where it listens, answers, and exits as the signal asks."""
    command = [sys.executable, "-m", "quiver.admin", "serve", "--port", "0", "--json"]
    environ = {**os.environ, "QUIVER_ENGINE__BOLT": "false"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            told = json.loads(line)
            assert told["keys_required"] is False
            with urlopen(f"{told['url']}/health", timeout=10) as reply:
                assert json.load(reply)["status"] == "ok"
            process.send_signal(number)
            _, log = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == code
    assert [json.loads(line)["message"] for line in log.splitlines()] == [
        "listening",
        "gateway.started",
        "draining",
        "gateway.stopped",
        "stopped",
    ]
