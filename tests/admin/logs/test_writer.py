"""The writer's thread: who logs never waits for who reads."""

import io
import json
import os
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from quiver.admin.logs.file import RETRY
from quiver.admin.logs.pipeline import BACKLOG, Pipeline
from quiver.admin.logs.requests import RecordLog
from quiver.admin.logs.setup import configure
from quiver.schemas.config import Log

from .test_pipeline import record

pytestmark = pytest.mark.usefixtures("_logging_restored")
LOG = structlog.get_logger(component="x")


class Gate(io.StringIO):
    """A stream whose reader sleeps until `open` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()

    def write(self, text: str, /) -> int:
        self.open.wait(30)
        return super().write(text)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_all_is_written_in_order_at_the_end(tmp_path: Path) -> None:
    stream, path = io.StringIO(), tmp_path / "log.jsonl"
    with configure(Log(), stream, path):
        for number in range(3000):
            LOG.info("said", number=number)
        RecordLog(configured())([record()])
    assert [line.get("number") for line in lines(stream.getvalue())] == [*range(3000), None]
    assert stream.getvalue() == path.read_text()


def configured() -> Pipeline:
    """The pipeline that structlog uses now."""
    found = structlog.get_config()["logger_factory"]()
    assert isinstance(found, Pipeline)
    return found


def test_sleeping_reader_holds_nobody_up() -> None:
    gate = Gate()
    with configure(Log(), gate) as logs:
        took = []
        for number in range(BACKLOG + 5000):
            began = time.perf_counter()
            LOG.info("said", number=number)
            took.append(time.perf_counter() - began)
        assert logs.dropped > 0
        gate.open.set()
        assert logs.flush(30)
    found = lines(gate.getvalue())
    told = [line for line in found if line["message"] == "log lines were dropped"]
    assert sum(line["count"] for line in told) == logs.dropped
    assert len(found) - len(told) + logs.dropped == BACKLOG + 5000
    assert sum(took) < 30


def test_thousand_calls_take_little_time(tmp_path: Path) -> None:
    """The bounds are the requirement's: 5 ms a call in all but one of a hundred, and 5 s for a thousand."""
    with configure(Log(), io.StringIO(), tmp_path / "log.jsonl"):
        took = []
        for number in range(1000):
            began = time.perf_counter()
            LOG.info("said", number=number, text="some words", more={"a": [1, 2]})
            took.append(time.perf_counter() - began)
    assert sum(took) < 5
    assert statistics.quantiles(took, n=100)[98] < 0.005


def test_full_pipe_loses_lines_for_stderr_only(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    path = tmp_path / "log.jsonl"
    with os.fdopen(reading), os.fdopen(writing, "w") as stream:
        with configure(Log(), stream, path) as logs:
            for number in range(2000):
                LOG.info("said", number=number, text="x" * 100)
            assert logs.flush(30)
        assert len(path.read_text().splitlines()) == 2000


def test_file_comes_back_and_says_what_is_missing(tmp_path: Path) -> None:
    clock, path, stream = [1.7e9], tmp_path / "log.jsonl", io.StringIO()
    path.mkdir()
    logs = Pipeline(Log(), stream, path, clock=lambda: clock[0])
    logs.take(event="one", component="x", level=20, at=1.7e9)
    logs.take(event="two", component="x", level=20, at=1.7e9)
    path.rmdir()
    clock[0] += RETRY
    logs.take(event="three", component="x", level=20, at=1.7e9)
    told = [line["message"] for line in lines(stream.getvalue())]
    assert told == ["one", "the log file cannot be written", "two", "three", "the log file is written again"]
    assert [line["message"] for line in lines(path.read_text())] == ["three", "the log file is written again"]
    assert lines(stream.getvalue())[-1]["missing"] == 3  # the two, and that it cannot be written


@pytest.mark.parametrize("value", [float("nan"), "\ud800", {1: 2}, {"a": "\udcff"}, b"\xff", 10**400], ids=repr)
def test_odd_values_are_logged(value: Any) -> None:
    stream = io.StringIO()
    configure(Log(), stream)
    LOG.info("odd", value=value)
    (line,) = lines(stream.getvalue())
    assert line["message"] == "odd"


def test_circle_is_logged() -> None:
    stream = io.StringIO()
    configure(Log(), stream)
    circle: list[Any] = []
    circle.append(circle)
    LOG.info("odd", value=circle)
    assert lines(stream.getvalue())[0]["message"] == "odd"


def test_later_change_of_value_is_not_logged() -> None:
    stream, value = Gate(), [1]
    with configure(Log(), stream):
        LOG.info("said", value=value)
        value.append(2)
        stream.open.set()
    assert lines(stream.getvalue())[0]["value"] == [1]


def test_long_line_is_cut() -> None:
    stream = io.StringIO()
    configure(Log(), stream)
    LOG.info("long", text="x" * 1_000_000, short="y")
    (line,) = lines(stream.getvalue())
    assert len(stream.getvalue()) < 100_000
    assert line["text"].endswith("more characters]")
    assert line["short"] == "y"


@pytest.mark.parametrize("form", ["json", "console"])
def test_text_moves_no_cursor_and_makes_no_line(form: Any) -> None:
    stream = io.StringIO()
    configure(Log(format=form), stream)
    LOG.info("one\n2026-01-01 two\x1b[2J\r", value="three\x1b[2J\nfour")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


async def test_follower_gets_lines_of_other_threads() -> None:
    with configure(Log(), io.StringIO()) as logs:
        follower = logs.followers.add()
        LOG.info("said")
        with trio.fail_after(10):
            found = await follower.take(10)
        assert json.loads(found)["message"] == "said"
        logs.followers.remove(follower)
        assert len(logs.followers) == 0


async def test_slow_follower_is_let_go() -> None:
    logs = configure(Log(), io.StringIO())
    follower = logs.followers.add()
    for _ in range(200):
        LOG.info("said", text="x" * 10_000)
    assert follower.late
    assert len(await follower.take(1)) < 2_000_000
