"""Reading the log: from memory and from the files, each line once, whatever is set aside meanwhile."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from quiver.admin.logs.pipeline import Pipeline
from quiver.admin.logs.ring import Ring
from quiver.admin.logs.search import Cursor, Wanted, search
from quiver.admin.logs.setup import configure
from quiver.schemas.config import Log
from quiver.schemas.logs import LogLine

pytestmark = pytest.mark.usefixtures("_logging_restored")
LOG = structlog.get_logger(component="x")


def pipeline(path: Path | None, **settings: Any) -> Pipeline:
    return configure(Log(level="trace", **settings), io.StringIO(), path)


def pages(found: Pipeline, wanted: Wanted = Wanted(), limit: int = 7) -> list[LogLine]:  # noqa: B008 - it is frozen
    """All lines, page by page."""
    lines: list[LogLine] = []
    cursor = None
    for _ in range(1000):
        page = search(found.ring, None if found.file is None else found.file.path, wanted, limit, cursor)
        assert len(page.lines) <= limit
        lines += page.lines
        if page.next is None:
            return lines
        cursor = Cursor.parse(page.next)
    raise AssertionError("there is no end")


def numbers(lines: list[LogLine]) -> list[int]:
    return [line.fields["number"] for line in lines]


@pytest.mark.parametrize("in_file", [True, False])
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_every_line_once_newest_first(tmp_path: Path, in_file: bool, limit: int) -> None:
    logs = pipeline(tmp_path / "log.jsonl" if in_file else None)
    for number in range(50):
        LOG.info("said", number=number)
    assert numbers(pages(logs, limit=limit)) == list(reversed(range(50)))


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_files_go_on_where_memory_ends(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "log.jsonl"
    before = pipeline(path, max_bytes="2000B", keep=100)
    for number in range(60):
        LOG.info("said", number=number)
    before.close()
    logs = pipeline(path, max_bytes="2000B", keep=100)
    logs.ring = Ring(held=1500)
    for number in range(60, 100):
        LOG.info("said", number=number)
    assert len(list(tmp_path.iterdir())) > 4
    assert numbers(pages(logs, limit=limit)) == list(reversed(range(100)))


def test_pages_go_on_while_the_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    logs = pipeline(path, max_bytes="3000B", keep=100)
    logs.ring = Ring(held=100)
    for number in range(30):
        LOG.info("said", number=number)
    found, cursor = [], None
    for round in range(100):
        page = search(logs.ring, path, Wanted(component="x"), 4, cursor)
        found += [line.fields["number"] for line in page.lines if "number" in line.fields]
        for _ in range(5):
            LOG.info("later", round=round)
        if page.next is None:
            break
        cursor = Cursor.parse(page.next)
    assert found == list(reversed(range(30)))


WANTED = [
    (Wanted(level="warning"), [2, 3]),
    (Wanted(level="debug"), [1, 2, 3]),
    (Wanted(component="y"), [3]),
    (Wanted(request_id="r-1"), [1]),
    (Wanted(request_id="r"), []),
    (Wanted(search="GRÜN"), [2]),
    (Wanted(search="said"), [0, 1, 2, 3]),
    (Wanted(level="info", search="grün"), [2]),
    (Wanted(since=datetime.now(UTC) - timedelta(hours=1)), [0, 1, 2, 3]),
    (Wanted(since=datetime.now(UTC) + timedelta(days=1000)), []),
    (Wanted(until=datetime.now(UTC) - timedelta(hours=1)), []),
]


@pytest.mark.parametrize(("wanted", "found"), WANTED)
@pytest.mark.parametrize("in_file", [True, False])
def test_what_is_given_must_fit(tmp_path: Path, wanted: Wanted, found: list[int], in_file: bool) -> None:
    logs = pipeline(tmp_path / "log.jsonl" if in_file else None)
    LOG.log(5, "said", number=0)
    LOG.info("said", number=1, request_id="r-1")
    LOG.warning("said", number=2, color="grün")
    structlog.get_logger(component="y").error("said", number=3)
    if in_file:
        logs.ring = Ring()
    assert numbers(pages(logs, wanted)) == list(reversed(found))


def test_half_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    logs = pipeline(path)
    LOG.info("said", number=0)
    with path.open("ab") as file:
        file.write(b'{"half": \n\xff\xff\n[]\n"text"\n')
    LOG.info("said", number=1)
    logs.ring = Ring()
    assert numbers(pages(logs)) == [1, 0]


def test_ring_is_bounded() -> None:
    ring = Ring(held=1000)
    for _ in range(100):
        ring.append(b"x" * 99 + b"\n", None)
    found = list(ring.backwards())
    assert [line.number for line in found] == list(range(100, 90, -1))
    assert ring.first == 91


@pytest.mark.parametrize("text", ["", "x", "1", ".", "1.2", "1.2-", "1.x-y", "-1.-1-1"])
def test_bad_cursor_is_refused_or_harmless(tmp_path: Path, text: str) -> None:
    logs = pipeline(tmp_path / "log.jsonl")
    LOG.info("said", number=0)
    try:
        cursor = Cursor.parse(text)
    except ValueError:
        return
    search(logs.ring, tmp_path / "log.jsonl", Wanted(), 10, cursor)
