"""The logger behind `structlog.get_logger`: whether a component logs a level is decided before anything is put together."""

import logging
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import structlog
from quiver.proxy.request import REQUEST_ID
from quiver.proxy.telemetry.levels import CRITICAL, DEBUG, ERROR, INFO, LEVELS, TRACE, WARNING

# What comes through without a copy: nobody can change it before it is written.
_LASTING = (str, int, float, bool, type(None))
# What every line has; a field that is called so gets another name.
_OURS = frozenset({"level", "at", "source", "raised", "timestamp", "message"})
# What is nested deeper comes as text.
_DEEPEST = 12
# Files are named from their package's folder on.
_ROOTS = ("/quiver/", "/site-packages/")


class Logger(structlog.BoundLoggerBase):
    """Builds an event and hands it on. Never waits."""

    def trace(self, event: str, *args: Any, **fields: Any) -> None:
        if LEVELS.least <= TRACE:
            self._say(TRACE, event, args, fields)

    def debug(self, event: str, *args: Any, **fields: Any) -> None:
        if LEVELS.least <= DEBUG:
            self._say(DEBUG, event, args, fields)

    def info(self, event: str, *args: Any, **fields: Any) -> None:
        if LEVELS.least <= INFO:
            self._say(INFO, event, args, fields)

    def warning(self, event: str, *args: Any, **fields: Any) -> None:
        self._say(WARNING, event, args, fields)

    def error(self, event: str, *args: Any, **fields: Any) -> None:
        self._say(ERROR, event, args, fields)

    def critical(self, event: str, *args: Any, **fields: Any) -> None:
        self._say(CRITICAL, event, args, fields)

    def exception(self, event: str, *args: Any, **fields: Any) -> None:
        fields.setdefault("exc_info", True)
        self._say(ERROR, event, args, fields)

    def log(self, level: int, event: str, *args: Any, **fields: Any) -> None:
        self._say(level, event, args, fields)

    warn, fatal, msg = warning, critical, info

    def _say(self, level: int, event: str, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
        if level < LEVELS.of(self._context.get("component", "")):
            return
        if not _OURS.isdisjoint(fields):
            fields = {f"{name}_" if name in _OURS else name: value for name, value in fields.items()}
        fields["level"] = level
        fields["at"] = time.time()
        fields["source"] = place(sys._getframe(2))
        self._proxy_to_logger("take", event % args if args else event, **fields)


def place(frame: FrameType) -> str:
    """Where a line comes from: file and function."""
    code = frame.f_code
    file = code.co_filename
    for root in _ROOTS:
        _, found, inner = file.rpartition(root)
        if found:
            return f"{inner}:{code.co_qualname}"
    return f"{file.rpartition('/')[2]}:{code.co_qualname}"


def completed(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The last step on the caller's side: what must not change, or not live on, until the line is written."""
    if "request_id" not in event and (request_id := REQUEST_ID.get()) is not None:
        event["request_id"] = request_id
    raised = event.pop("exc_info", None)
    if raised:
        event["raised"] = _captured(raised)
    for name, value in event.items():
        if type(value) not in _LASTING:
            event[name] = value if name == "raised" else lasting(value)
    return event


def _captured(raised: Any) -> traceback.TracebackException | None:
    """A traceback without its frames, which would keep alive what their variables hold."""
    if raised is True:
        raised = sys.exc_info()
    error = raised[1] if isinstance(raised, tuple) else raised
    if not isinstance(error, BaseException):
        return None
    return traceback.TracebackException.from_exception(error, lookup_lines=False, capture_locals=False)


def lasting(value: Any, depth: int = 0) -> Any:
    """`value` as it is now, of plain types."""
    kind = type(value)
    if kind in _LASTING:
        return value
    if depth < _DEEPEST:
        if kind in (list, tuple, set, frozenset):
            return [lasting(each, depth + 1) for each in value]
        if isinstance(value, Mapping):
            return {str(lasting(name, _DEEPEST)): lasting(each, depth + 1) for name, each in value.items()}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "backslashreplace")
    try:
        return repr(value)
    except Exception:  # a `__repr__` of somebody's must not end the request that logs it
        return f"<{kind.__name__}>"


class FromLibraries(logging.Handler):
    """Takes what libraries log through the standard library; their logger's name becomes the component. `logging.shutdown`
    writes all that waits, as who ends the process at once expects.
    """

    def __init__(self, take: Callable[..., None], write_all: Callable[[], object]) -> None:
        super().__init__()
        self._take, self._write_all = take, write_all

    def flush(self) -> None:
        self._write_all()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # the library's mistake
            message = str(record.msg)
        event: dict[str, Any] = {
            "event": message,
            "component": record.name,
            "level": _nearest(record.levelno),
            "at": record.created,
            "source": f"{record.module}.py:{record.funcName}",
        }
        if record.exc_info:
            event["exc_info"] = record.exc_info
        self._take(**completed(None, "", event))


def _nearest(level: int) -> int:
    """Libraries have levels of their own."""
    return max((number for number in (TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL) if number <= level), default=TRACE)
