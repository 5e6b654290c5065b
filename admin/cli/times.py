"""Times as people write and read them on a command line: `30d`, `2h` (ago), `2026-01-31 14:00`, `4.31 ms`."""

import re
import time
from datetime import UTC, datetime

from ..configuration.complaint import SettingsError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?) ?([smhdw])")
_UNIX = re.compile(r"\d{9,11}(\.\d+)?")


def seconds_in(option: str, text: str) -> float:
    """A length of time, such as `90s`, `1.5h`, `30d` or `0`. Raises `SettingsError` that names the option."""
    if text.strip() == "0":
        return 0.0
    found = _SPAN.fullmatch(text.strip().lower())
    if found is None:
        raise SettingsError(f"`{option}`: expected a length of time, got `{text}`", "write it as `30s`, `10m` or `2h`")
    return float(found[1]) * _UNITS[found[2]]


def moment(option: str, text: str) -> float:
    """Unix time of `2h` (ago), `2026-01-31`, `2026-01-31 14:00` (this machine's time), ISO 8601, or of itself.

    Raises `SettingsError` that names the option.
    """
    if _SPAN.fullmatch(text.strip().lower()):
        return max(0.0, time.time() - seconds_in(option, text))
    if _UNIX.fullmatch(text):
        return float(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        hint = "write it as `2h` (ago), `30m`, `7d`, `2026-01-31` or `2026-01-31 14:00`"
        raise SettingsError(f"`{option}`: expected a time, got `{text}`", hint) from None


def clock(at: float | None) -> str:
    """The time on this machine; with the date when that is not today's."""
    if at is None:
        return "-"
    then = datetime.fromtimestamp(at)
    return f"{then:%H:%M:%S}" if then.date() == datetime.now().date() else day_and_clock(at)


def day_and_clock(at: float | None) -> str:
    """The day and the time on this machine."""
    return "-" if at is None else f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S}"


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
