"""Lengths of time and moments as people type them: `10m`, `2h`, `2026-05-01T12:00`."""

import re
from datetime import UTC, datetime, timedelta

from ..configuration.complaint import SettingsError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?) ?([smhdw])")


def seconds_in(option: str, text: str) -> float:
    """A length of time. Raises `SettingsError` that names the option."""
    found = _SPAN.fullmatch(text.strip().lower())
    if found is None:
        raise SettingsError(f"`{option}`: expected a length of time, got `{text}`", "write it as `30s`, `10m` or `2h`")
    return float(found[1]) * _UNITS[found[2]]


def moment(option: str, text: str, now: datetime | None = None) -> datetime:
    """A moment, in this machine's zone unless another is given; or how long ago it was. Raises `SettingsError`."""
    if _SPAN.fullmatch(text.strip().lower()):
        return (now or datetime.now(UTC)) - timedelta(seconds=seconds_in(option, text))
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        hint = "write it as `2026-05-01T12:00`, or how long ago: `10m`, `2h`"
        raise SettingsError(f"`{option}`: expected a time, got `{text}`", hint) from None
