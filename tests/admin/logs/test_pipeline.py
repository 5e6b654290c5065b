"""Log lines as they come out: their form, their order, and what they must not hold."""

import io
import json
import logging
from typing import Any

import pytest
import structlog
from quiver.admin.logs.pipeline import chosen_format
from quiver.admin.logs.requests import RecordLog
from quiver.admin.logs.setup import configure
from quiver.proxy.telemetry.record import Record
from quiver.schemas.config import Log
from quiver.schemas.openai import Usage

pytestmark = pytest.mark.usefixtures("_logging_restored")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    def write(self, text: str, /) -> int:
        raise BrokenPipeError


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("setting", "stream", "chosen"),
    [
        ("auto", Terminal(), "console"),
        ("auto", io.StringIO(), "json"),
        ("console", io.StringIO(), "console"),
        ("json", Terminal(), "json"),
    ],
)
def test_format_follows_terminal(setting: Any, stream: io.StringIO, chosen: str) -> None:
    assert chosen_format(Log(format=setting), stream) == chosen


def test_json_line_is_complete() -> None:
    stream = io.StringIO()
    configure(Log(), stream)
    structlog.get_logger(component="server").info("ready", port=8080, odd=int)
    (line,) = lines(stream)
    assert list(line) == ["timestamp", "level", "component", "message", "source", "port", "odd"]
    assert line["source"] == "test_pipeline.py:test_json_line_is_complete"
    assert line["timestamp"].endswith("Z")
    assert (line["level"], line["component"], line["message"], line["port"]) == ("info", "server", "ready", 8080)


def test_level_filters() -> None:
    stream = io.StringIO()
    configure(Log(level="warning"), stream)
    log = structlog.get_logger(component="x")
    log.info("no")
    log.warning("yes")
    assert [line["message"] for line in lines(stream)] == ["yes"]


def test_libraries_log_the_same_way() -> None:
    stream = io.StringIO()
    configure(Log(level="debug"), stream)
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").error("gone %s", "wrong")
    assert [(line["component"], line["level"], line["message"]) for line in lines(stream)] == [
        ("some.library", "error", "gone wrong")
    ]


@pytest.mark.parametrize("form", ["console", "json"])
def test_traceback_shows_no_values(form: Any) -> None:
    stream = io.StringIO()
    configure(Log(format=form), stream)
    key = "".join(["local", "-secret"])
    try:
        raise ZeroDivisionError(len(key))
    except ZeroDivisionError:
        structlog.get_logger(component="x").exception("failed")
    assert "ZeroDivisionError" in stream.getvalue()
    assert "local-secret" not in stream.getvalue()


def test_lost_reader_is_survived() -> None:
    configure(Log(), Broken())
    structlog.get_logger(component="x").error("nobody reads this")


def record(**changes: Any) -> Record:
    """What is kept of one answered request."""
    fields: dict[str, Any] = {
        "request_id": "r-1",
        "at": 1_700_000_000.25,
        "client": "ada",
        "endpoint": "chat/completions",
        "model": "qwen3",
        "server_id": "lab",
        "stream": True,
        "status": 200,
        "outcome": "completed",
        "error": None,
        "source": "server",
        "attempts": 1,
        "queued": 0.01,
        "duration": 0.123456789,
        "first_byte": 0.0612345,
        "usage": Usage(prompt_tokens=5, completion_tokens=3, total_tokens=8),
        "estimated": False,
    }
    return Record(**(fields | changes))


FAILED = record(request_id="r-2", outcome="failed", status=503, error="queue_timeout", usage=None)


def test_record_is_one_json_line() -> None:
    stream = io.StringIO()
    RecordLog(configure(Log(), stream))([record(), FAILED])
    first, second = lines(stream)
    assert first == {
        "timestamp": "2023-11-14T22:13:20.250000Z",
        "level": "info",
        "component": "request",
        "message": "completed",
        "source": "proxy/exchange.py:ExchangeHandler.handle",
        "request_id": "r-1",
        "client": "ada",
        "endpoint": "chat/completions",
        "model": "qwen3",
        "server": "lab",
        "stream": True,
        "status": 200,
        "outcome": "completed",
        "error": None,
        "answered_from": "server",
        "attempts": 1,
        "queue_ms": 10.0,
        "duration_ms": 123.457,
        "first_byte_ms": 61.235,
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "prompt_ms": 51.234,
        "generation_ms": 62.222,
        "prompt_tokens_per_second": 97.59,
        "generation_tokens_per_second": 32.14,
    }
    assert list(first)[:4] == ["timestamp", "level", "component", "message"]
    assert (second["level"], second["message"], second["error"]) == ("warning", "failed", "queue_timeout")


def test_batch_is_one_write() -> None:
    writes: list[str] = []

    class Counted(io.StringIO):
        def write(self, text: str, /) -> int:
            writes.append(text)
            return len(text)

    RecordLog(configure(Log(), Counted()))([record()] * 3)
    assert [text.count("\n") for text in writes] == [3]


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize(("level", "told"), [("info", ["r-1", "r-2"]), ("warning", ["r-2"]), ("error", [])])
def test_record_level_filters(form: Any, level: Any, told: list[str]) -> None:
    stream = io.StringIO()
    config = Log(level=level, format=form)
    RecordLog(configure(config, stream))([record(), FAILED])
    assert [name for name in ("r-1", "r-2") if name in stream.getvalue()] == told
    assert len(stream.getvalue().splitlines()) == len(told)


def test_console_record_is_readable() -> None:
    stream = io.StringIO()
    RecordLog(configure(Log(format="console"), stream))([record()])
    (line,) = stream.getvalue().splitlines()
    assert "completed" in line
    for told in ("component=request", "model=qwen3", "server=lab", "duration_ms=123.457"):
        assert told in line


@pytest.mark.parametrize("form", ["console", "json"])
def test_lost_reader_of_records_is_survived(form: Any) -> None:
    RecordLog(configure(Log(format=form), Broken()))([record()])
