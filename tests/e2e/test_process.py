"""The real process: signals, bad input, bad model files, secrets. Each test drives `quiver serve` over real sockets."""

import contextlib
import http.client
import json
import socket
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from quiver.admin.cli.app import app
from quiver.proxy.local.backend import BOLT
from typer.testing import CliRunner

from bench.running import Running, gateway

from .conftest import KEY

HEADERS = {"Content-Type": "application/json"}


def post(
    running: Running, body: bytes, headers: dict[str, str] = HEADERS, path: str = "/v1/chat/completions"
) -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(running.url + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def chat(model: str = "bolt", **fields: object) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def code_of(reply: dict[str, object]) -> object:
    error = reply["error"]
    assert isinstance(error, dict)
    return error["code"]


def address(running: Running) -> tuple[str, int]:
    parts = urlsplit(running.url)
    assert parts.port is not None
    return str(parts.hostname), parts.port


def send_chat(running: Running, model: str, **fields: object) -> socket.socket:
    """A connection on which a request was sent and nothing is read."""
    sock = socket.create_connection(address(running), timeout=30)
    body = chat(model, **fields)
    sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return sock


def open_stream(running: Running, **fields: object) -> socket.socket:
    """A connection on which a stream has begun, and on which nothing more is read."""
    sock = send_chat(running, "bolt", **fields, stream=True)
    assert sock.recv(12) == b"HTTP/1.1 200"
    return sock


def test_still_serving_after_bad_input(served: Running) -> None:
    cases = [
        (b"not json", 400, "invalid_json"),
        (b"", 400, "invalid_json"),
        (b'{"model": "bolt"}', 400, "invalid_request"),
        (b'{"model": "nope", "messages": []}', 404, "model_not_found"),
    ]
    for body, status, code in cases:
        found, reply = post(served, body)
        assert (found, code_of(reply)) == (status, code)
    status, _ = post(served, chat(max_tokens=2))
    assert status == 200


def test_huge_body_is_refused_early(served: Running) -> None:
    connection = http.client.HTTPConnection(*address(served), timeout=30)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the refusal comes before the body is through
        connection.request("POST", "/v1/chat/completions", b"x" * 100_000_000, HEADERS)
    reply = connection.getresponse()
    assert (reply.status, code_of(json.load(reply))) == (413, "body_too_large")
    connection.close()


def test_engine_tells_its_figures(served: Running) -> None:
    post(served, chat(max_tokens=3, temperature=1.0))
    with urllib.request.urlopen(f"{served.url}/metrics", timeout=30) as page:
        lines = page.read().decode().splitlines()
    told = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}
    assert told['quiver_engine_completion_tokens_total{model="bolt"}'] >= 3
    assert told['quiver_engine_kv_bytes{model="bolt"}'] > 0
    for name in ("first_token_seconds", "prompt_tokens_per_second", "generation_tokens_per_second", "queue_seconds"):
        assert told[f'quiver_engine_{name}_count{{model="bolt"}}'] >= 1, name


def test_engine_is_idle_after_departures(served: Running) -> None:
    for _ in range(10):
        open_stream(served, temperature=1.5, logit_bias={}).close()
    wait_for_in_flight(served, 0)


@contextlib.contextmanager
def silent_backend() -> Iterator[str]:
    """The configuration of a server that takes requests for the model `silent` and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        yield f'[[backends]]\nurl = "http://127.0.0.1:{port}"\nmodels = ["silent"]\n'


def wait_for_in_flight(running: Running, expected: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{running.url}/status", timeout=10) as reply:
            if json.load(reply)["in_flight"] == expected:
                return
        time.sleep(0.02)
    pytest.fail(f"after 10 s there are not {expected} requests in flight")


def corrupt(kind: str, folder: Path) -> Path:
    """A model file that cannot be loaded."""
    good, path = Path(BOLT.path).read_bytes(), folder / f"{kind}.gguf"
    at = good.index(b"general.architecture") + len("general.architecture") + 4
    damaged = {
        "empty": b"",
        "noise": b"PK\x03\x04" + b"\0" * 200,
        "truncated": good[: len(good) // 2],
        "header-only": good[:16],
        "architecture": good[:at] + struct.pack("<Q", 5) + b"zebra" + good[at + 8 + 5 :],
    }
    if kind != "missing":
        path.write_bytes(damaged[kind])
    return path


KINDS = ("missing", "empty", "noise", "truncated", "header-only", "architecture")


def test_bad_model_files_leave_the_server_up(tmp_path: Path) -> None:
    paths = [corrupt(kind, tmp_path) for kind in KINDS]
    config = "".join(f"[[models]]\npath = '{path}'\n" for path in paths)
    with gateway(config) as running:
        for kind in KINDS:
            status, reply = post(running, chat(kind))
            assert (status, code_of(reply)) == (503, "model_not_loaded"), kind
            assert str(tmp_path) not in json.dumps(reply), "a client was told a path"
        status, _ = post(running, chat(max_tokens=2))
        assert status == 200
        assert running.stop() == 130
        log = running.log.read_text()
    for path in paths:
        assert str(path) in log
    assert "zebra" in log


def quiver_command(running: Running, *arguments: str) -> str:
    """What a command prints about `running`."""
    result = CliRunner().invoke(app, arguments, env={"QUIVER_ADMIN_KEY": "", "QUIVER_URL": running.url})
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_server_comes_and_goes(served: Running) -> None:
    with gateway("[engine]\nbolt = false\n") as front:
        assert post(front, chat(max_tokens=2))[0] == 404
        assert quiver_command(front, "register", served.url, "--name", "second") == "registered `second` (healthy)\n"
        assert "healthy" in quiver_command(front, "servers", "second")
        status, _ = post(front, chat(max_tokens=2))
        assert status == 200
        assert quiver_command(front, "deregister", "second") == "deregistered `second`\n"
        assert post(front, chat(max_tokens=2))[0] == 404


def test_no_secret_is_logged() -> None:
    config = (
        f'[auth]\nkeys = ["{KEY}"]\nadmin_key = "{KEY}-admin"\n'
        f'[[keys]]\nname = "ada"\nkey = "{KEY}-ada"\nrequests_per_minute = 1\n'
        f'[[backends]]\nurl = "http://127.0.0.1:9"\nmodels = ["far"]\napi_key = "{KEY}-up"\n'
    )
    planted = "a-prompt-nobody-may-read"
    with gateway(config) as running:
        for key in (KEY, f"{KEY}-ada", "sk-some-wrong-key"):
            headers = {**HEADERS, "Authorization": f"Bearer {key}"}
            for model in ("bolt", "far"):
                body = chat(model, max_tokens=2).replace(b'"hi"', f'"{planted}"'.encode())
                post(running, body, headers)
        for key in (f"{KEY}-admin", "sk-some-wrong-key"):
            wanted = json.dumps({"endpoint_url": "http://127.0.0.1:10", "api_key": f"{KEY}-other"}).encode()
            status, _ = post(running, wanted, {**HEADERS, "X-API-Key": key}, "/admin/register")
            assert status == (503 if key.endswith("admin") else 401)
        assert running.stop() == 130
        log = running.log.read_text()
    assert [secret for secret in (KEY, "sk-some-wrong-key", planted) if secret in log] == []
    assert "invalid_api_key" in log
    assert '"client":"ada"' in log
    assert "rate_limit_exceeded" in log
