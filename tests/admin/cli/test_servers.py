"""The commands that register, change, pause and try servers: what they send, print and exit with."""

import json
from pathlib import Path

import pytest

from ..conftest import Speak, Speaker, events, reply
from .test_cli import DETAILS, LAB, REGISTERED, quiver_command

FOUND = {"software": "llama.cpp", "version": "b8681", "models": [{"id": "qwen3", "context_length": 8192}], "slots": 4}
MODE = {"registration_id": "lab", "mode": "paused", "in_flight": 0}
TRIAL = {"url": "http://lab:8000/v1", "passed": True, "reason": None, "seconds": 0.018, "detected": FOUND}
CHECK = {
    "registration_id": "lab",
    "passed": False,
    "health_status": "unhealthy",
    "state": "suspect",
    "reason": "`/v1/models` answered 500",
    "seconds": 0.25,
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def told(body: object) -> bytes:
    return reply("200 OK", json.dumps(body).encode())


def sent(speaker: Speaker, number: int = 0) -> tuple[str, object]:
    """A request's first line without the version, and its body."""
    head, _, body = speaker.requests[number].partition(b"\n\n")
    return head.split(b" HTTP/")[0].decode(), json.loads(body) if body else None


@pytest.mark.parametrize("form", [["lab:8000"], ["--url", "lab:8000"], ["--url", "http://lab:8000"]])
def test_server_is_named_in_both_forms(speak: Speak, form: list[str]) -> None:
    speaker = speak(told({**json.loads(REGISTERED), "detected": FOUND}))
    said = ["--owner", "anna", "--description", "room 4", "--tag", "gpu", "--tag", "fast", "--context-length", "4096"]
    result = quiver_command("register", *form, "--detect", *said, "--gateway", speaker.url)
    assert (result.exit_code, result.stdout) == (
        0,
        "registered `lab` (healthy)\nllama.cpp b8681, 1 model, 4 requests at a time\n",
    )
    assert sent(speaker) == (
        "POST /admin/register",
        {
            "endpoint_url": "http://lab:8000",
            "detect": True,
            "capabilities": {"context_length": 4096},
            "metadata": {"owner": "anna", "description": "room 4", "tags": ["gpu", "fast"]},
        },
    )


WRONG = [
    (["register"], "error: the server's address is missing\n"),
    (["register", "a", "--url", "b"], "error: the server's address is given twice\n"),
    (["update", "lab"], "error: nothing is to be changed\n"),
    (["update", "lab", "--unset", "colour"], "error: `--unset colour`: there is no such option\n"),
    (["update", "lab", "--weight", "2", "--unset", "weight"], "error: `weight` is set and unset at once\n"),
]


@pytest.mark.parametrize(("arguments", "text"), WRONG)
def test_wrong_use_is_explained(arguments: list[str], text: str) -> None:
    result = quiver_command(*arguments, QUIVER_URL="http://127.0.0.1:9")
    assert result.exit_code == 2
    assert result.stderr.startswith(text)


def test_update_sends_what_is_given(speak: Speak) -> None:
    speaker = speak(told(DETAILS))
    changes = ["--url", "https://new.example", "--tag", "gpu", "--unset", "owner", "--unset", "max-concurrency"]
    result = quiver_command("update", "lab", *changes, QUIVER_URL=speaker.url)
    assert (result.exit_code, result.stdout) == (0, "`lab` is at version 3 (unhealthy)\n")
    assert sent(speaker) == (
        "PATCH /admin/servers/lab",
        {
            "endpoint_url": "https://new.example",
            "max_concurrency": None,
            "metadata": {"owner": None, "tags": ["gpu"]},
        },
    )


def test_filters_are_sent(speak: Speak) -> None:
    speaker = speak(told({"servers": [], "total": 0, "next_cursor": None}))
    asked = ["--model", "q/3", "--mode", "paused", "--tag", "a", "--tag", "b", "--sort", "-latency", "--limit", "7"]
    result = quiver_command("servers", *asked, QUIVER_URL=speaker.url)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no server is like that\n")
    assert sent(speaker)[0] == (
        "GET /admin/servers?model=q%2F3&mode=paused&tag=a&tag=b&sort=latency&order=desc&limit=7"
    )


def test_paused_server_shows(speak: Speak) -> None:
    page = {"servers": [{**LAB, "mode": "paused"}], "total": 3, "next_cursor": "x"}
    result = quiver_command("servers", "--limit", "1", QUIVER_URL=speak(told(page)).url)
    assert "ejected, paused" in result.stdout
    assert result.stderr == "2 more; `--limit` shows others\n"


@pytest.mark.parametrize("words", [["lab", "--json"], ["--json", "lab"], ["show", "lab", "--json"]])
def test_one_server_has_short_forms(speak: Speak, words: list[str]) -> None:
    speaker = speak(told(DETAILS))
    assert json.loads(quiver_command("servers", *words, QUIVER_URL=speaker.url).stdout)["id"] == "lab"
    assert sent(speaker)[0] == "GET /admin/servers/lab"


# What is called, what the gateway says, what is asked of it, what is printed, and the exit code.
DONE: list[tuple[list[str], bytes, str, str, int]] = [
    (["pause", "lab"], told(MODE), "POST /admin/servers/lab/pause", "`lab` is paused\n", 0),
    (
        ["resume", "lab"],
        told({**MODE, "mode": "serving", "in_flight": 2}),
        "POST /admin/servers/lab/resume",
        "`lab` is serving; 2 in flight\n",
        0,
    ),
    (
        ["check", "lab"],
        told(CHECK),
        "POST /admin/servers/lab/health-check",
        "`lab` failed: `/v1/models` answered 500 (suspect, 0.250 s)\n",
        1,
    ),
    (
        ["drain", "lab", "--wait", "60"],
        events(json.dumps({**MODE, "mode": "draining", "in_flight": 2}).encode(), json.dumps(MODE).encode(), b"[DONE]"),
        "POST /admin/servers/lab/drain?wait=60",
        "`lab` is paused\n",
        0,
    ),
    (
        ["drain", "lab", "--wait", "1"],
        events(json.dumps({**MODE, "mode": "draining", "in_flight": 2}).encode(), b"[DONE]"),
        "POST /admin/servers/lab/drain?wait=1",
        "`lab` is draining; 2 in flight\n",
        1,
    ),
]


@pytest.mark.parametrize(("arguments", "raw", "request_line", "text", "code"), DONE)
def test_server_is_looked_after(
    speak: Speak, arguments: list[str], raw: bytes, request_line: str, text: str, code: int
) -> None:
    speaker = speak(raw)
    result = quiver_command("servers", *arguments, QUIVER_URL=speaker.url)
    assert (result.exit_code, result.stdout) == (code, text)
    assert sent(speaker)[0] == request_line


def test_trial_says_what_it_found(speak: Speak) -> None:
    speaker = speak(told(TRIAL))
    result = quiver_command("servers", "test", "lab:8000", QUIVER_URL=speaker.url)
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["http://lab:8000/v1", "passes", "(0.018", "s)"]
    assert lines[-1] == ["qwen3", "8192", "text"]
    speaker.reply = told({**TRIAL, "passed": False, "reason": "no answer", "detected": {"software": None}})
    result = quiver_command("servers", "test", "lab:8000", QUIVER_URL=speaker.url)
    assert (result.exit_code, result.stdout) == (
        1,
        "http://lab:8000/v1 fails: no answer (0.018 s)\nit does not say what it is\n",
    )
