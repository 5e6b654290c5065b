"""Amounts as people write and read them on a command line: `500k`, `1M/month`, `1 234 567`."""

import re
from typing import get_args

import msgspec
from quiver.schemas.saved import Period

from ..configuration.complaint import SettingsError

NONE = "none"
_FACTORS = {"": 1, "k": 1000, "M": 1_000_000, "G": 1_000_000_000}


class TokenAllowance(msgspec.Struct, frozen=True):
    """So many tokens in each period."""

    tokens: int
    period: Period


def amount(option: str, text: str) -> int:
    """A whole number above zero, such as `500`, `500k` or `1.5M`. Raises `SettingsError` that names the option."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMG]?)", text.strip())
    number = 0 if found is None else round(float(found[1]) * _FACTORS[found[2]])
    if number < 1:
        raise SettingsError(f"`{option}`: expected an amount, got `{text}`", "write it as `500`, `500k` or `1.5M`")
    return number


def allowance(option: str, text: str) -> TokenAllowance:
    """An amount for a period, a month unless it says so. Raises `SettingsError` that names the option."""
    tokens, slash, period = text.partition("/")
    if slash and period not in get_args(Period):
        periods = ", ".join(f"`{name}`" for name in get_args(Period))
        raise SettingsError(f"`{option}`: expected one of {periods}, got `{period}`", "write it as `1M/month`")
    return TokenAllowance(amount(option, tokens), period if slash else "month")  # type: ignore[arg-type] # it is one of them


def shown(number: int) -> str:
    """An amount, short where that loses nothing."""
    for unit, factor in reversed(_FACTORS.items()):
        if number >= factor and number * 10 % factor == 0:
            return f"{number / factor:g}{unit}"
    return str(number)


def many(count: int | None) -> str:
    """A count, with blanks between thousands: `1 234 567`."""
    return "-" if count is None else f"{count:,}".replace(",", " ")


def counted(count: int, noun: str) -> str:
    """`1 model`, `2 models`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
