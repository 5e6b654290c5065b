"""From the queue to stderr, the file and the readers: one thread writes everything that a process logs.

Before `start` and after `close` lines are written at once, where they are logged: so do tests, and what is said very late.
"""

import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import IO, Any, Literal, Self

import msgspec
from quiver.proxy.telemetry.levels import ERROR, WARNING
from quiver.schemas.config import Log
from quiver.schemas.sizes import bytes_of

from . import rendering
from .file import LogFile
from .followers import Followers
from .redactor import REDACTOR, Redactor
from .ring import Ring
from .stream import Stream

Format = Literal["console", "json"]

# Events that may wait for the writer; what comes on top is dropped, and counted.
BACKLOG = 16_384
# Events wait this long for others to be written with: seconds.
PAUSE = 0.02
BATCH = 2048
# A batch of lines waits no longer for the one before it.
STUCK = 5.0
# What closing may take when nobody reads stderr or the disk hangs.
FAREWELL = 3.0
# How often dropped events are told of.
TELL = 5.0


class _Lines(msgspec.Struct):
    """Rendered lines, of JSON, and who waits for them to be written."""

    lines: bytes
    written: threading.Event


class _Mark(msgspec.Struct):
    """Everything before it is written when it is set."""

    reached: threading.Event


_Item = dict[str, Any] | _Lines | _Mark | None


def chosen_format(config: Log, stream: IO[str] | None = None) -> Format:
    """What `auto` stands for, judged by `stream` (stderr)."""
    if config.format != "auto":
        return config.format
    return "console" if (stream or sys.stderr).isatty() else "json"


class Pipeline:
    """Takes events and lines, in any thread, and writes them. `dropped` counts events that found the queue full."""

    def __init__(
        self,
        config: Log,
        stream: IO[str] | None = None,
        file: Path | None = None,
        *,
        redactor: Redactor = REDACTOR,
        clock: Callable[[], float] = time.time,
    ) -> None:
        stream = stream or sys.stderr
        self.ring, self.followers, self.redactor = Ring(), Followers(), redactor
        self.format = chosen_format(config, stream)
        self.file = None
        if file is not None:
            size = bytes_of(config.max_bytes)
            self.file = LogFile(file, max_bytes=size, period=config.rotate, keep=config.keep, clock=clock)
        self.dropped = self.written = 0
        self._clock = clock
        self._columns = rendering.Columns(colors=stream.isatty())
        self._stream = Stream(stream)
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._told_dropped, self._tell_at = 0, 0.0
        self._told_failed: str | None = None

    def __repr__(self) -> str:
        return f"<Pipeline: {self.written} lines written, {self._queue.qsize()} waiting, {self.dropped} dropped>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """Events and batches that are not written yet."""
        return self._queue.qsize()

    def start(self) -> None:
        """Begin to write in a thread. `close` ends it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
            self._thread.start()

    def take(self, **event: Any) -> None:
        """Log one event, as `logger.completed` leaves it. Never waits while the writer runs."""
        if self._thread is None:
            self._write([event])
        elif self._queue.qsize() >= BACKLOG:
            self.dropped += 1
        else:
            self._queue.put(event)

    def take_lines(self, lines: bytes) -> None:
        """Log lines of JSON that hold no secret. Waits for them to be written: not for the event loop."""
        if not lines:
            return
        item = _Lines(lines, threading.Event())
        if self._thread is None:
            self._write([item])
        elif self._queue.qsize() >= BACKLOG:
            self.dropped += lines.count(b"\n")
        else:
            self._queue.put(item)
            item.written.wait(STUCK)

    def flush(self, timeout: float = FAREWELL) -> bool:
        """Whether everything logged so far was written in time."""
        if self._thread is None:
            return True
        mark = _Mark(threading.Event())
        self._queue.put(mark)
        return mark.reached.wait(timeout)

    def close(self, timeout: float = FAREWELL) -> None:
        """Write what waits, and end the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(timeout)
        self._tell_dropped(last=True)
        if self.file is not None:
            with suppress(OSError):
                self.file.close()

    def _run(self) -> None:
        ended = False
        while not ended:
            items: list[_Item] = [self._queue.get()]
            if items[0] is not None:
                time.sleep(PAUSE)
            with suppress(Empty):
                while len(items) < BATCH and items[-1] is not None:
                    items.append(self._queue.get_nowait())
            ended = items[-1] is None
            self._write(items)
            self._tell_dropped()

    def _write(self, items: list[Any]) -> None:
        """Write a batch, whatever happens: who waits for it must not wait for ever."""
        try:
            with self._writing:
                self._write_lines(items)
        except Exception:  # ours, and there is nowhere to log it
            with suppress(Exception):
                self._stream.write(traceback.format_exc())
        for item in items:
            if isinstance(item, _Lines):
                item.written.set()
            elif isinstance(item, _Mark):
                item.reached.set()

    def _write_lines(self, items: list[Any]) -> None:
        pieces: list[bytes] = []
        shown: list[str] = []
        for item in items:
            if isinstance(item, dict):
                fields, line = self._rendered(item)
                pieces.append(line)
                if self.format == "console":
                    shown.append(self._columns.line(fields))
            elif isinstance(item, _Lines):
                pieces.append(item.lines)
                if self.format == "console":
                    shown += [self._columns.line(msgspec.json.decode(line)) for line in item.lines.splitlines()]
        if pieces:
            self._give(b"".join(pieces), "".join(shown) if self.format == "console" else None)

    def _rendered(self, event: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """One event without its secrets: its fields in order, and as a line of JSON."""
        fields = rendering.laid_out(event)
        line = rendering.as_json(fields)
        if self.redactor.suspects(line.decode()):
            fields = self.redactor.event(fields)
            line = rendering.as_json(fields)
        return fields, line

    def _give(self, lines: bytes, shown: str | None) -> None:
        position = self.file.write(lines) if self.file is not None else None
        self.ring.append(lines, position)
        self.followers.push(lines)
        self._stream.write(lines.decode() if shown is None else shown)
        self.written += lines.count(b"\n")
        if self.file is not None and self.file.failed != self._told_failed:
            self._told_failed = failed = self.file.failed
            if failed is None:
                missing, self.file.missing = self.file.missing, 0
                self._say(WARNING, "the log file is written again", file=str(self.file.path), missing=missing)
            else:
                hint = "lines go to stderr only until it can be; see to the disk's space and rights"
                self._say(ERROR, "the log file cannot be written", file=str(self.file.path), error=failed, hint=hint)

    def _tell_dropped(self, *, last: bool = False) -> None:
        now, dropped = self._clock(), self.dropped
        if dropped > self._told_dropped and (last or now >= self._tell_at):
            count, self._told_dropped, self._tell_at = dropped - self._told_dropped, dropped, now + TELL
            with self._writing:
                self._say(ERROR, "log lines were dropped", count=count, backlog=BACKLOG)

    def _say(self, level: int, message: str, **fields: Any) -> None:
        """A line of our own, while the writer's lock is held."""
        event = {"event": message, "component": "log", "level": level, "at": self._clock(), **fields}
        shown, line = self._rendered(event)
        self._give(line, self._columns.line(shown) if self.format == "console" else None)
