"""The commands, from their arguments to what they print and the code they exit with."""

import json
from pathlib import Path

import pytest
import quiver
from quiver.admin.cli import app
from quiver.admin.report import duration
from typer.testing import CliRunner, Result

from .conftest import Speak, events, reply

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
        app, list(arguments), input=stdin, env={"QUIVER_URL": "", "QUIVER_API_KEY": "", **environ}
    )


def envelope(code: str, message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "t", "param": None, "code": code}}).encode()


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_version_is_printed() -> None:
    result = quiver_command("--version")
    assert (result.exit_code, result.stdout) == (0, f"quiver {quiver.__version__}\n")


@pytest.mark.parametrize("command", ["serve", "chat", "models", "status"])
def test_help_holds_example(command: str) -> None:
    result = quiver_command(command, "--help")
    assert result.exit_code == 0
    assert f"Example:\n    quiver {command}" in result.stdout


SERVE_ERRORS = [
    (["--port", "70000"], "error: --port: `server.port`: expected a whole number <= 65535\n"),
    (
        ["--log-level", "loud"],
        "error: --log-level: `log.level`: expected one of critical, debug, error, info, warning\n",
    ),
    (
        ["--host", "0.0.0.0"],
        "error: `server.host` is `0.0.0.0`, which other machines can reach, and no client keys are set\n"
        "hint: set `auth.keys` or `auth.keys_file`, listen on 127.0.0.1, or let everyone in with `auth.open = true`\n",
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
    body = b'{"object": "list", "data": [{"id": "bolt", "created": 0, "owned_by": "engine:bolt", "object": "model"}]}'
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


@pytest.mark.parametrize("command", ["models", "status"])
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
