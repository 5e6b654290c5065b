"""Times, counts and sizes, as people write and read them on the command line."""

import re
import time
from datetime import UTC, datetime

import typer

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def moment(text: str) -> float:
    """Unix time of `2h` (ago), `2026-01-31`, `2026-01-31 14:00` (this machine's time), ISO 8601, or of itself.

    Raises `typer.BadParameter`.
    """
    if ago := _AGO.fullmatch(text.strip().lower()):
        return time.time() - float(ago[1]) * _UNITS[ago[2]]
    if re.fullmatch(r"\d{9,}(\.\d+)?", text):
        return float(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise typer.BadParameter("write it as `2h` (ago), `30m`, `7d`, `2026-01-31` or `2026-01-31 14:00`") from None


def clock(at: float | None) -> str:
    """The time on this machine; with the date when that is not today's."""
    if at is None:
        return "-"
    then = datetime.fromtimestamp(at)
    return f"{then:%H:%M:%S}" if then.date() == datetime.now().date() else f"{then:%Y-%m-%d %H:%M:%S}"


def step(at: float, *, day: bool) -> str:
    """An hour or a day of a summary, which are UTC."""
    then = datetime.fromtimestamp(at, UTC)
    return f"{then:%Y-%m-%d}" if day else f"{then:%Y-%m-%d %H:%M}"


def took(seconds: float | None) -> str:
    """A duration with three digits: `4.31 ms`, `1.20 s`, `3m 20s`."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest}s"


def many(count: int | None) -> str:
    """A count, with blanks between thousands: `1 234 567`."""
    return "-" if count is None else f"{count:,}".replace(",", " ")
