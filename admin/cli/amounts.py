"""Times and amounts as people write them on a command line: `30d`, `12h`, `500k`, `1M/month`."""

import re
from collections.abc import Callable
from typing import TypeVar, get_args

import msgspec
import typer
from quiver.schemas.saved import Period

T = TypeVar("T")
NONE = "none"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_FACTORS = {"": 1, "k": 1000, "M": 1_000_000, "G": 1_000_000_000}


class TokenAllowance(msgspec.Struct, frozen=True):
    """So many tokens in each period."""

    tokens: int
    period: Period


def value_of(option: str, text: str, read: Callable[[str], T]) -> T:
    """What `read` makes of an option's text. Raises its `typer.BadParameter`, which then names the option."""
    try:
        return read(text)
    except typer.BadParameter as error:
        error.param_hint = f"'{option}'"
        raise


def span(text: str) -> float:
    """Seconds. Raises `typer.BadParameter`, as those below."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip())
    if found is None:
        if text.strip() == "0":
            return 0.0
        raise typer.BadParameter(f"`{text}` is no time; write it as 30d, 12h, 15m or 90s")
    return float(found[1]) * _SECONDS[found[2]]


def amount(text: str) -> int:
    """A whole number above zero, such as `500`, `500k` or `1.5M`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMG]?)", text.strip())
    number = 0 if found is None else round(float(found[1]) * _FACTORS[found[2]])
    if number < 1:
        raise typer.BadParameter(f"`{text}` is no amount; write it as 500, 500k or 1.5M")
    return number


def allowance(text: str) -> TokenAllowance:
    """An amount for a period, a month unless it says so."""
    tokens, slash, period = text.partition("/")
    if slash and period not in get_args(Period):
        raise typer.BadParameter(f"`{period}` is no period; write it as 1M/month: {', '.join(get_args(Period))}")
    return TokenAllowance(amount(tokens), period if slash else "month")  # type: ignore[arg-type] # it is one of them


def shown(number: int) -> str:
    """An amount, short where that loses nothing."""
    for unit, factor in reversed(_FACTORS.items()):
        if number >= factor and number * 10 % factor == 0:
            return f"{number / factor:g}{unit}"
    return str(number)
