"""What the commands about the history ask the gateway, and what they print."""

import time
from typing import Any

import msgspec
import pytest

from ..conftest import Speak, reply
from .test_cli import quiver_command

ENTRY: dict[str, Any] = {
    "request_id": "r1",
    "at": time.time(),
    "client": "alice",
    "endpoint": "chat/completions",
    "model": "qwen",
    "server": "lab",
    "stream": True,
    "status": 200,
    "outcome": "completed",
    "error": None,
    "source": "server",
    "attempts": 1,
    "queued": 0.0,
    "duration": 1.5,
    "first_byte": 0.0125,
    "prompt_tokens": 1200,
    "completion_tokens": 34,
    "cached_tokens": None,
    "reasoning_tokens": None,
    "estimated": False,
    "charged": 1234,
    "trace_id": None,
    "engine": None,
}
SPREAD = {"mean": 1.0, "p50": 1.0, "p90": 2.0, "p95": 2.5, "p99": 3.0, "max": 4.0}
GROUP = {
    "group": {"model": "qwen", "hour": 1_700_000_000.0 // 3600 * 3600},
    "requests": 12345,
    "failed": 123,
    "error_share": 0.01,
    "retries": 0,
    "prompt_tokens": 10,
    "completion_tokens": 20,
    "duration": SPREAD,
    "first_byte": SPREAD,
    "tokens_per_second": None,
}
ERROR = {
    "code": "queue_full",
    "category": "resource",
    "meaning": "Full.",
    "count": 3,
    "first_at": 1.0,
    "last_at": 2.0,
    "last_request_id": "r9",
    "over_time": [],
}
EVENT = {"at": 1.0, "kind": "server.paused", "subject": "lab", "actor": "me", "request_id": None, "details": {"a": 1}}


def told(value: object) -> bytes:
    return reply("200 OK", msgspec.json.encode(value))


def asked(server: Any) -> str:
    return str(server.requests[0].split(b" ")[1].decode())


def test_requests_are_a_table(speak: Speak) -> None:
    server = speak(told({"requests": [ENTRY], "next": "abc"}))
    result = quiver_command("history", "--model", "qwen", "--errors", "--limit", "5", "--url", server.url)
    assert result.exit_code == 0
    for word in ("r1", "alice", "lab", "1.5 s", "12.5 ms", "1 200 + 34"):
        assert word in result.stdout
    assert "there are more" in result.stderr
    assert asked(server) == "/admin/history?limit=5&model=qwen&troubled=true&sort=time"


def test_times_are_written_as_people_do(speak: Speak) -> None:
    server = speak(told({"requests": [], "next": None}))
    result = quiver_command("history", "--since", "2h", "--url", server.url)
    assert (result.exit_code, result.stdout) == (0, "")
    since = float(asked(server).partition("since=")[2].partition("&")[0])
    assert since == pytest.approx(time.time() - 7200, abs=60)
    assert quiver_command("history", "--since", "yesterday").exit_code == 2


def test_one_request_is_shown(speak: Speak) -> None:
    whole = ENTRY | {"failures": [], "prompt": "Why?", "answer": "So.", "meaning": None, "events": [EVENT]}
    server = speak(told(whole))
    result = quiver_command("history", "show", "a/b", "--url", server.url)
    assert result.exit_code == 0
    assert "server.paused" in result.stdout
    assert "prompt:\nWhy?" in result.stdout
    assert asked(server) == "/admin/history/a%2Fb"


def test_summary_asks_for_its_groups(speak: Speak) -> None:
    server = speak(told({"since": None, "until": None, "groups": [GROUP], "cut": False}))
    result = quiver_command("history", "summary", "--by", "key,hour", "--url", server.url)
    assert result.exit_code == 0
    assert "12 345" in result.stdout
    assert "1.0%" in result.stdout
    assert "2023-11-14 22:00" in result.stdout
    assert asked(server).startswith("/admin/history/aggregate?by=client&by=hour&since=")


def test_csv_is_passed_on(speak: Speak) -> None:
    server = speak(reply("200 OK", b"a,b\r\n1,2\r\n", "text/csv"))
    result = quiver_command("history", "--csv", "--url", server.url)
    assert (result.exit_code, result.stdout_bytes) == (0, b"a,b\r\n1,2\r\n")
    assert asked(server).startswith("/admin/history?format=csv")


def test_errors_and_events_are_tables(speak: Speak) -> None:
    result = quiver_command("errors", "--url", speak(told({"errors": [ERROR], "total": 3})).url)
    assert (result.exit_code, "queue_full" in result.stdout) == (0, True)
    server = speak(told({"events": [EVENT], "next": None}))
    result = quiver_command("events", "--kind", "server.", "--url", server.url)
    assert (result.exit_code, "a=1" in result.stdout) == (0, True)
    assert asked(server) == "/admin/events?kind=server.&limit=30"


def test_json_is_what_the_gateway_said(speak: Speak) -> None:
    server = speak(told({"events": [EVENT], "next": None}))
    result = quiver_command("events", "--json", "--url", server.url)
    assert msgspec.json.decode(result.stdout)["events"] == [EVENT]
