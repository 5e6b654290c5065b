"""How Quiver logs: structlog to stderr, one line per event, with time (UTC), level and component.

Readable on a terminal, JSON elsewhere. Local variables are never printed with a traceback: they may hold keys and prompts.
What libraries write through the standard library's logging comes out the same way.
"""

import contextlib
import logging
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import IO, Any, Literal

import msgspec
import structlog
from quiver.proxy.record import Record
from quiver.schemas.config import Log

Format = Literal["console", "json"]
# Libraries' own accounts of what they do are of use to their authors only.
_LIBRARY_LEVEL = logging.WARNING


def chosen_format(config: Log, stream: IO[str] | None = None) -> Format:
    """What `auto` stands for, judged by `stream` (stderr)."""
    if config.format != "auto":
        return config.format
    return "console" if (stream or sys.stderr).isatty() else "json"


def configure(config: Log, stream: IO[str] | None = None) -> None:
    """Send every log line of this process to `stream` (stderr)."""
    stream = stream or sys.stderr
    level = logging.getLevelNamesMapping()[config.level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_rendering(chosen_format(config, stream), stream.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _LineLogger(stream),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_ToStructlog()], level=max(level, _LIBRARY_LEVEL), force=True)


def _rendering(form: Format, colors: bool) -> list[structlog.typing.Processor]:
    if form == "console":
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain, pad_event_to=0)]
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(serializer=_as_json),
    ]


def _as_json(event: dict[str, Any], **_: object) -> str:
    """One line; what every line has comes first."""
    first = {
        "timestamp": event.pop("timestamp"),
        "level": event.pop("level"),
        "component": event.pop("component", None),
    }
    return msgspec.json.encode({**first, "message": event.pop("event"), **event}, enc_hook=repr).decode()


class RecordLog:
    """Writes one line for each finished request, all lines of a batch at once. May be called in any thread."""

    def __init__(self, config: Log, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._level = logging.getLevelNamesMapping()[config.level.upper()]
        self._json = chosen_format(config, self._stream) == "json"
        self._log = structlog.get_logger(component="request")

    def __call__(self, records: Sequence[Record]) -> None:
        if self._json:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(_lines(record for record in records if _level(record) >= self._level))
                self._stream.flush()
            return
        for record in records:
            self._log.log(_level(record), record.outcome, **_readable(record))


def _level(record: Record) -> int:
    return logging.INFO if record.outcome == "completed" else logging.WARNING


def _lines(records: Iterable[Record]) -> str:
    """As `_as_json` writes lines, in a fraction of the time: there may be ten thousand a second."""
    pieces, second, date = [], -1, b""
    for record in records:
        if int(record.at) != second:
            second = int(record.at)
            date = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
        level = b"info" if record.outcome == "completed" else b"warning"
        micros = int((record.at - second) * 1_000_000)
        said = record.outcome.encode()
        pieces.append(_HEAD % (date, micros, level, said))
        pieces.append(_encode(record)[1:])
        pieces.append(b"\n")
    return b"".join(pieces).decode()


_HEAD = b'{"timestamp":"%b.%06dZ","level":"%b","component":"request","message":"%b",'
_encode = msgspec.json.Encoder().encode


def _readable(record: Record) -> dict[str, Any]:
    fields = msgspec.structs.asdict(record)
    del fields["at"], fields["outcome"]
    timings = fields.pop("engine")
    if timings is not None:
        fields |= {f"engine_{name}": value for name, value in msgspec.structs.asdict(timings).items()}
    return {name: round(value, 4) if type(value) is float else value for name, value in fields.items()}


class _LineLogger:
    """Writes whole lines. A reader that went away must not bring the gateway down."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = warn = error = critical = exception = log = fatal = msg


class _ToStructlog(logging.Handler):
    """Hands a library's log record to structlog; its logger's name becomes the component."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(component=record.name)
        log.log(record.levelno, record.getMessage(), exc_info=record.exc_info)
