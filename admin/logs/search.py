"""Looking for lines: in memory first, then in the files, backwards. Blocks: not for the event loop."""

import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from quiver.proxy.telemetry.levels import NUMBERS
from quiver.schemas.config import Level
from quiver.schemas.logs import LogLine, LogPage

from . import file
from .file import Position
from .ring import Found, Ring

# What one search may read, in bytes; who wants more asks for the next page.
MOST_READ = 32 * 1024 * 1024
_BLOCK = 256 * 1024
# Lines that are looked at in one go: about a millisecond's work.
_TURN = 200
# Lines may stand this far from the order of their times: requests are logged in batches.
_DISORDER = timedelta(seconds=30)
_FIRST = ("timestamp", "level", "component", "message", "source", "request_id")


class Wanted(msgspec.Struct, frozen=True):
    """Which lines: all that is given must fit. `level` is the least; `search` may stand anywhere in a line, in any case."""

    level: Level | None = None
    component: str | None = None
    request_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    search: str | None = None

    def takes(self, line: bytes) -> LogLine | None:
        """`line` as it is shown, if it is wanted."""
        if self.request_id is not None and self.request_id.encode() not in line:
            return None
        if self.search is not None and self.search.lower() not in line.decode("utf-8", "replace").lower():
            return None
        shown = shown_line(line)
        if shown is None or (self.request_id is not None and shown.request_id != self.request_id):
            return None
        if self.level is not None and NUMBERS[shown.level] < NUMBERS[self.level]:
            return None
        if self.component is not None and shown.component != self.component:
            return None
        if self.since is None and self.until is None:
            return shown
        at = _moment(shown)
        fits = (self.since is None or at >= self.since) and (self.until is None or at <= self.until)
        return shown if fits else None

    def ends_before(self, shown: LogLine) -> bool:
        """Whether nothing older than this line can be wanted."""
        return self.since is not None and _moment(shown) < self.since - _DISORDER


def shown_line(line: bytes) -> LogLine | None:
    """A line of the log; None for what is none, such as half a line that a crash left."""
    try:
        said: dict[str, Any] = msgspec.json.decode(line)
        first = {name: said.pop(name, None) for name in _FIRST}
        return msgspec.convert({**first, "fields": said}, LogLine)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, AttributeError):
        return None


class Cursor(msgspec.Struct, frozen=True):
    """The oldest line that was looked at: its number in memory, if it had one, and its place in a file, if it had one."""

    number: int | None
    position: Position | None

    def __str__(self) -> str:
        place = "" if self.position is None else f"{self.position.file}-{self.position.offset}"
        return f"{self.number or 0}.{place}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Raises `ValueError`."""
        number, _, place = text.partition(".")
        inode, _, offset = place.partition("-")
        return cls(int(number) or None, Position(int(inode), int(offset)) if place else None)


def search(ring: Ring, path: Path | None, wanted: Wanted, limit: int, cursor: Cursor | None) -> LogPage:
    """At most `limit` lines older than `cursor`."""
    found: list[LogLine] = []
    read = 0
    for looked, line in enumerate(_backwards(ring, path, cursor), 1):
        read += len(line.line)
        if looked % _TURN == 0:
            time.sleep(0)  # whoever waits for the interpreter goes first
        here = Cursor(line.number or None, line.position)
        shown = wanted.takes(line.line)
        if shown is not None:
            found.append(shown)
        elif wanted.since is not None and (other := shown_line(line.line)) is not None and wanted.ends_before(other):
            return LogPage(found, None)
        if len(found) == limit or read >= MOST_READ:
            return LogPage(found, str(here))
    return LogPage(found, None)


def _backwards(ring: Ring, path: Path | None, cursor: Cursor | None) -> Iterator[Found]:
    """All lines before `cursor`, the newest first."""
    number = None if cursor is None else cursor.number
    if number is not None and number < ring.first:
        number = 0  # it is not in memory any more
    position = None if cursor is None else cursor.position
    if cursor is None or number:
        position = ring.beginning()
        yield from ring.backwards(number)
    if path is not None:
        yield from _in_files(path, position)


def _in_files(path: Path, before: Position | None) -> Iterator[Found]:
    """The lines in the files before a position; all when there is none."""
    waiting = before is not None
    for name in file.chain(path):
        try:
            with name.open("rb") as opened:
                here = os.fstat(opened.fileno())
                end = here.st_size
                if waiting:
                    assert before is not None
                    if here.st_ino != before.file:
                        continue
                    end, waiting = min(end, before.offset), False
                for offset, line in _lines_backwards(opened.fileno(), end):
                    yield Found(0, line, Position(here.st_ino, offset))
        except OSError:
            continue


def _lines_backwards(fd: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a file before byte `end`, and where each begins."""
    rest = b""
    while end > 0:
        begin = max(0, end - _BLOCK)
        block = os.pread(fd, end - begin, begin) + rest
        lines = block.splitlines(keepends=True)
        offset = begin + len(block)
        for line in reversed(lines[1:]):
            offset -= len(line)
            yield offset, line
        rest = lines[0] if lines else b""
        end = begin
        if begin == 0 and rest:
            yield 0, rest
        elif len(rest) > 4 * _BLOCK:
            rest = b""  # no line of ours


def _moment(shown: LogLine) -> datetime:
    try:
        return datetime.fromisoformat(shown.timestamp)
    except ValueError:
        return datetime.fromisoformat("1970-01-01T00:00:00+00:00")
