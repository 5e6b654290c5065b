"""The commands, from their arguments to what they print and the code they exit with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import quiver
from quiver.admin.api.status import duration
from quiver.admin.cli.app import app
from typer.testing import CliRunner, Result

from ..conftest import Speak, events, reply

CHUNKS = (
    b'{"model": "bolt", "choices": [{"delta": {"role": "assistant", "content": "One "}}]}',
    b'{"model": "bolt", "choices": [{"delta": {"content": "address."}}]}',
    b'{"model": "bolt", "choices": [{"delta": {}, "finish_reason": "stop"}]}',
    b'{"model": "bolt", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}}',
    b"[DONE]",
)

STATUS = {
    "state": "ready",
    "version": "1.2.3",
    "uptime": 3725.0,
    "keys_required": True,
    "in_flight": 2,
    "backends": [
        {
            "id": "lab",
            "kind": "remote",
            "address": "http://lab:8000/v1",
            "models": ["a", "b"],
            "health": "unhealthy",
            "reason": "no answer",
            "in_flight": 1,
        }
    ],
}


def quiver_command(*arguments: str, stdin: str | None = None, **environ: str) -> Result:
    return CliRunner().invoke(
        app,
        list(arguments),
        input=stdin,
        env={"QUIVER_URL": "", "QUIVER_API_KEY": "", "QUIVER_ADMIN_KEY": "", **environ},
    )


def envelope(code: str, message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "t", "param": None, "code": code}}).encode()


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_version_is_printed() -> None:
    result = quiver_command("--version")
    assert (result.exit_code, result.stdout) == (0, f"quiver {quiver.__version__}\n")


@pytest.mark.parametrize(
    "command", ["serve", "chat", "models", "status", "register", "deregister", "servers", "bench engine"]
)
def test_help_holds_example(command: str) -> None:
    result = quiver_command(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"Example:\n    quiver {command}" in result.stdout


SERVE_ERRORS = [
    (["--port", "70000"], "error: --port: `server.port`: expected a whole number <= 65535\n"),
    (
        ["--log-level", "loud"],
        "error: --log-level: `log.level`: expected one of critical, debug, error, info, trace, warning\n",
    ),
    (
        ["--host", "0.0.0.0"],
        "error: --host: `server.host` is `0.0.0.0`, which other machines can reach, and no client keys are set\n"
        "hint: set `auth.admin_key` and make keys with `quiver keys create`, set `auth.keys` or `[[keys]]`, listen on "
        "127.0.0.1, or let everyone in with `auth.open = true`\n",
    ),
    (["--config", "gone.toml"], "error: there is no configuration file `gone.toml`\n"),
    (
        ["--model", "my model.gguf"],
        "error: `my model.gguf` makes no model name\nhint: give it an `id` without blanks in quiver.toml\n",
    ),
]


@pytest.mark.parametrize(("arguments", "text"), SERVE_ERRORS)
def test_serve_refuses_bad_settings(arguments: list[str], text: str) -> None:
    result = quiver_command("serve", *arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", text)


def test_answer_is_printed(speak: Speak) -> None:
    speaker = speak(events(*CHUNKS))
    result = quiver_command("chat", "What?", "--system", "Be brief", "--max-tokens", "9", "--url", speaker.url)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "One address.\n", "")
    sent = json.loads(speaker.requests[0].split(b"\n\n", 1)[1])
    assert sent == {
        "model": "bolt",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "What?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "temperature": 0.0,
    }


def test_question_comes_from_stdin(speak: Speak) -> None:
    speaker = speak(events(*CHUNKS))
    quiver_command("chat", "-", "--model", "m", stdin="Piped?\n", QUIVER_URL=speaker.url, QUIVER_API_KEY="the-key")
    head, body = speaker.requests[0].split(b"\n\n", 1)
    assert b"Authorization: Bearer the-key" in head
    sent = json.loads(body)
    assert (sent["model"], sent["messages"]) == ("m", [{"role": "user", "content": "Piped?\n"}])


def test_answer_as_json(speak: Speak) -> None:
    result = quiver_command("chat", "What?", "--json", "--url", speak(events(*CHUNKS)).url)
    found = json.loads(result.stdout)
    figures = [found.pop(name) for name in ("seconds", "first_token_seconds", "tokens_per_second")]
    assert all(isinstance(figure, float) for figure in figures)
    assert found == {
        "model": "bolt",
        "content": "One address.",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    }


def test_stats_go_to_stderr(speak: Speak) -> None:
    result = quiver_command("chat", "What?", "--stats", "--url", speak(events(*CHUNKS)).url)
    assert result.stdout == "One address.\n"
    assert result.stderr.startswith("3 tokens, ")
    assert "tokens/s, first token after " in result.stderr


CHAT_ERRORS = [
    (
        reply("401 Unauthorized", envelope("invalid_api_key", "No API key was sent")),
        "error: No API key was sent (invalid_api_key)\nhint: give your key with --api-key or QUIVER_API_KEY\n",
    ),
    (
        reply("404 Not Found", envelope("model_not_found", "No server offers the model `m`")),
        "error: No server offers the model `m` (model_not_found)\nhint: `quiver models` lists what is on offer\n",
    ),
    (
        reply("503 Service Unavailable", envelope("no_healthy_backend", "Nobody is there")),
        "error: Nobody is there (no_healthy_backend)\nhint: `quiver status` says which server is ill and why\n",
    ),
    (
        reply("400 Bad Request", envelope("invalid_request", "Too hot")),
        "error: Too hot (invalid_request)\n",
    ),
    (
        reply("500 Oops", b"<html>"),
        "error: what answered is no Quiver gateway (status 500)\nhint: check `--url` or QUIVER_URL\n",
    ),
    (events(b"{]"), "error: the stream holds something that is no chat chunk\n"),
]


@pytest.mark.parametrize(("raw", "text"), CHAT_ERRORS)
def test_chat_explains_errors(speak: Speak, raw: bytes, text: str) -> None:
    result = quiver_command("chat", "What?", "--url", speak(raw).url)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", text)


def test_error_after_text_keeps_text(speak: Speak) -> None:
    raw = events(CHUNKS[0], envelope("shutting_down", "The gateway is shutting down"))
    result = quiver_command("chat", "What?", "--url", speak(raw).url)
    assert (result.exit_code, result.stdout) == (1, "One ")
    assert result.stderr == "error: The gateway is shutting down (shutting_down)\n"


def test_models_are_listed(speak: Speak) -> None:
    card = b'{"id": "bolt", "created": 0, "owned_by": "engine:bolt", "object": "model", "available_servers": 1}'
    body = b'{"object": "list", "data": [%b]}' % card
    speaker = speak(reply("200 OK", body))
    assert json.loads(quiver_command("models", "--json", "--url", speaker.url).stdout) == json.loads(body)
    result = quiver_command("models", "--url", speaker.url)
    assert [line.split() for line in result.stdout.splitlines()] == [["MODEL", "SERVER"], ["bolt", "engine:bolt"]]


def test_status_is_shown(speak: Speak) -> None:
    speaker = speak(reply("200 OK", json.dumps(STATUS).encode()))
    assert json.loads(quiver_command("status", "--json", "--url", speaker.url).stdout) == STATUS
    lines = quiver_command("status", "--url", speaker.url).stdout.splitlines()
    assert lines[0] == "ready, 2 in flight, up 1h 2m, keys required, version 1.2.3"
    assert lines[3].split() == ["lab", "unhealthy", "1", "http://lab:8000/v1", "a,", "b", "no", "answer"]
    assert lines[-1] == "0 of 1 backends healthy, 2 models on offer"


def test_status_begins_with_who_is_ill(speak: Speak) -> None:
    states = {"one": "healthy", "two": "unknown", "three": "unhealthy", "four": "healthy"}
    backends = [STATUS["backends"][0] | {"id": id, "health": health} for id, health in states.items()]  # type: ignore[index]
    speaker = speak(reply("200 OK", json.dumps({**STATUS, "backends": backends}).encode()))
    lines = quiver_command("status", "--url", speaker.url).stdout.splitlines()
    assert [line.split()[0] for line in lines[3:7]] == ["three", "two", "one", "four"]


REGISTERED = b'{"registration_id": "lab", "status": "registered", "health_status": "healthy"}'
DEREGISTERED = b'{"registration_id": "a b/c", "status": "deregistered"}'

LAB = {
    "id": "lab",
    "url": "http://lab:8000/v1",
    "models": ["a", "b"],
    "health": "unhealthy",
    "state": "ejected",
    "reason": "no answer",
    "since": 1_700_000_000.0,
    "until": 1_700_000_005.0,
    "failures": 3,
    "checked_at": 1_700_000_000.0,
    "success_rate": 0.5,
    "mean_seconds": 0.0123,
    "uptime": None,
    "in_flight": 1,
    "reported_load": None,
    "weight": 1.0,
    "max_concurrency": 4,
    "connections": {"busy": 1, "idle": 2},
    "mode": "serving",
    "origin": "registered",
    "metadata": {"owner": "anna"},
    "created": 1_700_000_000.0,
    "changed": 1_700_000_000.0,
    "version": 3,
    "joined": None,
}
HISTORY = [
    {"at": 1_700_000_000.0 + number, "ok": number < 11, "seconds": 0.25, "reason": None, "source": "check"}
    for number in range(12)
]
DETAILS = {**LAB, "capabilities": {}, "has_key": True, "history": HISTORY}


def test_server_is_registered(speak: Speak) -> None:
    Path("lab.key").write_text("the-key\n")
    speaker = speak(reply("201 Created", REGISTERED))
    arguments = ["register", "10.0.0.2:8000", "--name", "lab", "--model", "a", "--model", "b"]
    limits = ["--api-key-file", "lab.key", "--weight", "2", "--max-concurrency", "4"]
    result = quiver_command(*arguments, *limits, QUIVER_URL=speaker.url, QUIVER_ADMIN_KEY="the-admin-key")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "registered `lab` (healthy)\n", "")
    head, body = speaker.requests[0].split(b"\n\n", 1)
    assert head.startswith(b"POST /admin/register ")
    assert b"Authorization: Bearer the-admin-key" in head
    assert json.loads(body) == {
        "endpoint_url": "http://10.0.0.2:8000",
        "name": "lab",
        "models": ["a", "b"],
        "api_key": "the-key",
        "weight": 2.0,
        "max_concurrency": 4,
    }


def test_unset_options_are_not_sent(speak: Speak) -> None:
    speaker = speak(reply("200 OK", REGISTERED))
    result = quiver_command("register", "https://lab/v1", "--json", "--gateway", speaker.url)
    assert json.loads(result.stdout) == json.loads(REGISTERED)
    assert json.loads(speaker.requests[0].split(b"\n\n", 1)[1]) == {"endpoint_url": "https://lab/v1"}


def test_server_is_deregistered(speak: Speak) -> None:
    speaker = speak(reply("200 OK", DEREGISTERED))
    result = quiver_command("deregister", "a b/c", "--url", speaker.url)
    assert (result.exit_code, result.stdout) == (0, "deregistered `a b/c`\n")
    assert speaker.requests[0].startswith(b"DELETE /admin/register/a%20b%2Fc ")


def test_servers_are_listed(speak: Speak) -> None:
    page = {"servers": [LAB], "total": 1, "next_cursor": None}
    speaker = speak(reply("200 OK", json.dumps(page).encode()))
    assert json.loads(quiver_command("servers", "--json", "--url", speaker.url).stdout) == page
    lines = quiver_command("servers", "--url", speaker.url).stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["SERVER", "STATE", "IN", "FLIGHT", "ADDRESS", "MODELS", "REASON"],
        ["lab", "ejected", "1", "of", "4", "http://lab:8000/v1", "a,", "b", "no", "answer"],
    ]


def test_no_servers_is_said(speak: Speak) -> None:
    result = quiver_command("servers", "--url", speak(reply("200 OK", b'{"servers": [], "total": 0}')).url)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "no servers are registered\nhint: add one with `quiver register URL`\n"


def test_one_server_is_shown(speak: Speak) -> None:
    speaker = speak(reply("200 OK", json.dumps(DETAILS).encode()))
    lines = quiver_command("servers", "lab", "--url", speaker.url).stdout.splitlines()
    figures = [" ".join(line.split()) for line in lines]
    for line in (
        "failures in a row 3",
        "uptime -",
        "checks passed 50.0%",
        "connections 1 busy, 2 idle",
        "has a key yes",
    ):
        assert line in figures
    results = [line.split()[-3:] for line in lines[-10:]]
    assert results == [["check", "failed", "0.250"], *([["check", "ok", "0.250"]] * 9)]
    assert json.loads(quiver_command("servers", "lab", "--json", "--url", speaker.url).stdout)["id"] == "lab"
    assert speaker.requests[0].startswith(b"GET /admin/servers/lab ")


SERVER_ERRORS = [
    (
        reply("401 Unauthorized", envelope("invalid_api_key", "No API key was sent")),
        "error: No API key was sent (invalid_api_key)\nhint: give the admin key with --admin-key or QUIVER_ADMIN_KEY\n",
    ),
    (
        reply("403 Forbidden", envelope("admin_forbidden", "Set `auth.admin_key`")),
        "error: Set `auth.admin_key` (admin_forbidden)\n"
        "hint: give the admin key with --admin-key or QUIVER_ADMIN_KEY\n",
    ),
    (
        reply("503 Service Unavailable", envelope("check_failed", "The server failed its first check: no answer")),
        "error: The server failed its first check: no answer (check_failed)\n"
        "hint: the server has to run, at an address that the gateway's machine can reach\n",
    ),
    (
        reply("404 Not Found", envelope("not_found", "No server is registered as `model`")),
        "error: No server is registered as `model` (not_found)\nhint: `quiver servers` lists what is registered\n",
    ),
    (
        reply("404 Not Found", envelope("not_found", "No server is registered as `lab`")),
        "error: No server is registered as `lab` (not_found)\nhint: `quiver servers` lists what is registered\n",
    ),
]


@pytest.mark.parametrize(("raw", "text"), SERVER_ERRORS)
@pytest.mark.parametrize("command", [["register", "http://lab"], ["deregister", "lab"], ["servers", "lab"]])
def test_server_commands_explain_errors(speak: Speak, raw: bytes, text: str, command: list[str]) -> None:
    result = quiver_command(*command, QUIVER_URL=speak(raw).url)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", text)


def test_missing_key_file_is_named() -> None:
    result = quiver_command("register", "http://lab", "--api-key-file", "gone", "--gateway", "http://127.0.0.1:9")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: `--api-key-file`: `gone` cannot be read: No such file or directory\n"


@pytest.mark.parametrize("command", ["models", "status", "servers"])
def test_foreign_server_is_recognised(speak: Speak, command: str) -> None:
    result = quiver_command(command, "--url", speak(reply("200 OK", b'{"hello": 1}')).url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: what answered is no Quiver gateway\nhint: check `--url` or QUIVER_URL\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0s"), (59, "59s"), (60, "1m 0s"), (3725, "1h 2m"), (86_400, "1d 0h"), (90_061, "1d 1h")],
)
def test_durations_are_short(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_command_line_loads_no_gateway() -> None:
    """Whoever asks for a version, or presses Tab, waits for what is imported."""
    script = "import sys, quiver.admin.cli.app; print([name for name in sys.argv[1:] if name in sys.modules])"
    heavy = ("quiver._engine", "trio", "quart", "hypercorn", "structlog", "yaml", "prometheus_client")
    done = subprocess.run([sys.executable, "-c", script, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
