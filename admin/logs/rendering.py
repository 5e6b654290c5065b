"""Turning an event into a line: JSON for machines, columns for people. Runs on the writer's thread."""

import re
import traceback
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from quiver.proxy.telemetry.levels import NAMES

# No line is longer; what is longest in it is cut until it fits.
LONGEST = 64 * 1024
_CUT = 2048
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]|\n(?=.)", re.S)
_SURROGATE = re.compile(r"[\ud800-\udfff]")

_encode = msgspec.json.Encoder(enc_hook=repr).encode


def laid_out(event: dict[str, Any]) -> dict[str, Any]:
    """The fields of a line in their order: what every line has comes first."""
    first = {
        "timestamp": timestamp(event.pop("at")),
        "level": NAMES.get(event["level"], "info"),
        "component": event.pop("component", None),
        "message": str(event.pop("event", "")),
    }
    del event["level"]
    for name in ("source", "request_id"):
        if (value := event.pop(name, None)) is not None:
            first[name] = value
    raised = event.pop("raised", None)
    if raised is not None:
        event["exception"] = told(raised)
    return {**first, **event}


def timestamp(at: float) -> str:
    """Unix time in ISO 8601, UTC, to the microsecond."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def as_json(fields: dict[str, Any]) -> bytes:
    """One line of JSON, with its end."""
    try:
        line = _encode(fields)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, halves of characters, circles
        line = _encode({name: _plain(value) for name, value in fields.items()})
    if len(line) > LONGEST:
        line = _encode({name: _short(value) for name, value in fields.items()})
        if len(line) > LONGEST:
            first = ("timestamp", "level", "component", "message", "source", "request_id")
            line = _encode(
                {name: _short(fields[name]) for name in first if name in fields} | {"left_out": "too many fields"}
            )
    return line + b"\n"


class Columns:
    """Renders lines for a terminal, or for a file that a person reads."""

    def __init__(self, *, colors: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )

    def line(self, fields: dict[str, Any]) -> str:
        """`fields`, as `laid_out` gives them, as one line; a traceback follows on its own. No text moves the cursor."""
        shown = {name: _still(value) for name, value in fields.items() if name != "source"}
        shown["event"] = shown.pop("message")
        raised = fields.get("exception")
        if raised is not None:
            shown["exception"] = _CONTROL.sub(_escaped, raised) if "\x1b" in raised else raised
        return str(self._render(None, "", shown)) + "\n"


def told(raised: traceback.TracebackException) -> str:
    """A traceback, without the values of variables: they may hold keys and prompts."""
    return "".join(raised.format()).rstrip("\n")


def _still(value: Any) -> Any:
    return _CONTROL.sub(_escaped, value) if isinstance(value, str) else value


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _plain(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:  # a `__repr__` of somebody's
        text = f"<{type(value).__name__}>"
    return _SURROGATE.sub("\ufffd", text)


def _short(value: Any) -> Any:
    text = value if isinstance(value, str) else _plain(value)
    return value if len(text) <= _CUT else f"{text[:_CUT]}… [{len(text) - _CUT} more characters]"
