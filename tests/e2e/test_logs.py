"""A real run with secrets planted everywhere a client, an operator or a server can put one: none comes out anywhere."""

import http.client
import http.server
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bench.running import Running, gateway

SECRETS = {
    "client": "qv-planted-client-key-1",
    "ada": "planted$ada\"key'with\\marks-2",
    "admin": "planted-admin-key-3",
    "backend": "planted-backend-key-4",
    "wrong": "sk-planted-wrong-key-5",
    "registered": "planted-registered-key-6",
    "query": "planted-query-secret-7",
    "cookie": "planted-cookie-8",
    "user": "planted-user-9",
    "prompt": "planted prompt that nobody may read 10",
    "answer": "planted answer that nobody may read 11",
    "path": "sk-planted-path-12",
    "model": "sk-planted-model-13",
    "request id": "Bearer-sk-planted-id-14",
    "echoed": "planted-backend-key-4 was wrong, said the server",
}


class Server(http.server.BaseHTTPRequestHandler):
    """A model server that repeats the gateway's own key in its errors, as some do."""

    def do_GET(self) -> None:
        self._reply(200, {"data": [{"id": "far"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body.get("user") == "fail":
            text = (
                f"{self.headers['Authorization']}: {SECRETS['echoed']}; Authorization: {self.headers['Authorization']}"
            )
            self._reply(500, {"error": {"message": text, "type": "x"}})
        else:
            self._reply(200, {"choices": [{"message": {"content": SECRETS["answer"]}}]})

    def _reply(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{found.server_address[1]}"
        finally:
            found.shutdown()
            thread.join()


def ask(running: Running, path: str, body: object = None, method: str | None = None, **headers: str) -> tuple[int, str]:
    """Status, and everything that came back."""
    parts = urlsplit(running.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        sent["Content-Type"] = "application/json"
    data = None if body is None else json.dumps(body).encode()
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, data, sent)
        reply = connection.getresponse()
        return reply.status, f"{reply.getheaders()} {reply.read().decode()}"
    finally:
        connection.close()


def chat(model: str = "far", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": SECRETS["prompt"]}], **fields}


def test_planted_secrets_come_out_nowhere(server: str, tmp_path: Path) -> None:
    config = (
        f"[auth]\nkeys = [{json.dumps(SECRETS['client'])}]\nadmin_key = {json.dumps(SECRETS['admin'])}\n"
        f'[log]\nlevel = "trace"\n'
        f'[[keys]]\nname = "ada"\nkey = {json.dumps(SECRETS["ada"])}\n'
        f'[[backends]]\nname = "far"\nurl = "{server}"\napi_key = "{SECRETS["backend"]}"\n'
        f'[[backends]]\nname = "dead"\nurl = "http://127.0.0.1:9"\nmodels = ["gone"]\napi_key = "{SECRETS["backend"]}"\n'
    )
    replies: list[str] = []
    admin = {"X_API_Key": SECRETS["admin"]}
    with gateway(config, folder=tmp_path) as running:
        for key in (SECRETS["client"], SECRETS["ada"], SECRETS["wrong"]):
            allowed = {"Authorization": f"Bearer {key}"}
            for body in (chat(), chat(user="fail"), chat("gone"), chat(SECRETS["model"]), chat("bolt", max_tokens=2)):
                _, text = ask(running, "/v1/chat/completions", body, X_Request_ID=SECRETS["request id"], **allowed)
                replies += [] if SECRETS["answer"] in text else [without_own(text)]
            _, text = ask(running, f"/v1/{SECRETS['path']}?api_key={SECRETS['query']}", chat(), **allowed)
            replies.append(without_own(text))
            ask(
                running,
                f"/admin/servers?token={SECRETS['query']}",
                Cookie=f"session={SECRETS['cookie']}",
                X_API_Key=key,
            )
        wanted = {"endpoint_url": server, "name": "more", "api_key": SECRETS["registered"]}
        status, text = ask(running, "/admin/register", wanted, **admin)
        assert status == 201, text
        replies.append(text)
        bad = {"endpoint_url": f"http://me:{SECRETS['user']}@127.0.0.1:9", "api_key": SECRETS["registered"]}
        replies.append(ask(running, "/admin/register", bad, **admin)[1])
        status, made = ask(running, "/admin/keys", {"name": "made"}, **admin)
        assert status == 201, made
        key = "qv-" + made.partition('"qv-')[2].partition('"')[0]
        assert ask(running, "/v1/chat/completions", chat(), Authorization=f"Bearer {key}")[0] == 200
        for path in ("/metrics", "/status", "/admin/servers", "/admin/keys", "/admin/logs?limit=1000", "/admin/stats"):
            status, text = ask(running, path, **admin, Authorization=f"Bearer {SECRETS['client']}")
            assert status == 200, (path, text)
            replies.append(text)
        assert running.stop() == 130
        outputs = {"stderr": running.log.read_bytes(), "replies": "\n".join(replies).encode()}
    data = running.data
    files = [path for path in data.rglob("*") if path.is_file()]
    outputs |= {str(path.relative_to(data)): path.read_bytes() for path in files}
    assert {"stderr", "logs/quiver.jsonl", "quiver.db"} <= outputs.keys()
    # Servers that were registered must be known again after a restart, with the keys they want; and a request is found by the
    # id that its client gave it.
    kept = {name for name in outputs if name.startswith(("quiver.db", "registrations"))}
    found = [
        (name, what)
        for name, content in outputs.items()
        for what, secret in {**SECRETS, "made": key}.items()
        if any(form in content for form in spellings(secret))
        and not (what in ("registered", "request id") and name in kept)
    ]
    assert found == []
    log = [json.loads(line) for line in outputs["logs/quiver.jsonl"].splitlines()]
    assert {"request", "api", "audit", "routing", "health", "attempts"} <= {line["component"] for line in log}
    assert b"[redacted]" in outputs["logs/quiver.jsonl"]


def without_own(text: str) -> str:
    """A reply without what its own client wrote into the request, and reads there again."""
    for what in ("request id", "model", "path"):
        text = text.replace(SECRETS[what], "")
    return text


def spellings(secret: str) -> set[bytes]:
    return {secret.encode(), json.dumps(secret)[1:-1].encode(), repr(secret)[1:-1].encode()}


def wait_for_lines(running: Running, request_id: str) -> list[dict[str, Any]]:
    """What was logged of a request; a thread of its own does that, some time after the reply."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{running.url}/admin/logs?request_id={request_id}", timeout=30) as reply:
            lines: list[dict[str, Any]] = json.load(reply)["lines"]
        if lines:
            return lines
        time.sleep(0.05)
    raise AssertionError(f"nothing was logged of {request_id}")


def test_file_is_rotated_and_searched(tmp_path: Path) -> None:
    config = '[log]\nmax_bytes = "4KiB"\nkeep = 3\nlevels = { api = "debug" }\n'
    with gateway(config, folder=tmp_path) as running:
        for number in range(60):
            ask(running, "/healthz", X_Request_ID=f"r-{number}")
        (line,) = wait_for_lines(running, "r-50")
        assert line["fields"]["path"] == "/healthz"
        assert running.stop() == 130
    files = sorted((running.data / "logs").iterdir())
    assert 2 <= len(files) <= 4
    for file in files:
        assert file.stat().st_mode & 0o777 == 0o600
        assert all(json.loads(text) for text in file.read_text().splitlines())
