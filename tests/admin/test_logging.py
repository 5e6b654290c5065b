"""Log lines as they come out: their form, their order, and what they must not hold."""

import io
import json
import logging
from typing import Any

import pytest
import structlog
from quiver.admin.logging import chosen_format, configure
from quiver.schemas.config import Log

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
    assert list(line) == ["timestamp", "level", "component", "message", "port", "odd"]
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
