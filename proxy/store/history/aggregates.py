"""Questions about many requests: what they add up to, by one or two dimensions, from the roll-ups where those know it."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from quiver.schemas.history import Aggregate, AggregateQuery, Distribution

from .pages import Conditions, Question, conditions
from .percentiles import DURATION, FIGURES, FIRST_BYTE, SPEED, Figure, quantiles
from .rollups import COUNTS, DAY, DIMENSIONS, FROM_REQUESTS, HOUR, SPEED_OF, SUMS, VIEWS

# How many values, their sum, the largest, and how many were not above each bound.
Spread = tuple[int, float, float, tuple[int, ...]]
# The group, the totals below, and the spread of each figure.
Row = tuple[list[str | int], int, int, int, int, int, Spread, Spread, Spread]
_TOTALS = ("requests", "failed", "retries", "prompt_tokens", "completion_tokens")
_COUNT = {DURATION: "requests", FIRST_BYTE: "first_bytes", SPEED: "speeds"}


def question(asked: AggregateQuery) -> Question:
    """`Row`s, one more than there may be groups."""
    wanted = {name for name in DIMENSIONS if name in asked.by or getattr(asked, name) is not None}
    view = next((number for number, known in VIEWS.items() if wanted <= set(known)), None)
    return _of_requests(asked) if view is None else _of_rollups(asked, view)


def covered(asked: AggregateQuery) -> tuple[float | None, float | None]:
    """The time that an answer covers: whole hours, or days where those are asked for."""
    step = DAY if "day" in asked.by else HOUR
    since = None if asked.since is None else asked.since // step * step
    until = None if asked.until is None else -(-asked.until // step) * step
    return since, until


def aggregate(by: Sequence[str], row: Row) -> Aggregate:
    """A row as it is told."""
    values, requests, failed, retries, prompt, completion, duration, first_byte, speed = row
    return Aggregate(
        group={
            name: float(value) if name in ("hour", "day") else str(value) or None
            for name, value in zip(by, values, strict=True)
        },
        requests=requests,
        failed=failed,
        error_share=round(failed / requests, 6),
        retries=retries,
        prompt_tokens=prompt,
        completion_tokens=completion,
        duration=_distribution(DURATION, duration),
        first_byte=_distribution(FIRST_BYTE, first_byte) if first_byte[0] else None,
        tokens_per_second=_distribution(SPEED, speed) if speed[0] else None,
    )


@lru_cache(maxsize=4096)  # hours that are over are asked for again and again, and do not change
def _distribution(figure: Figure, spread: Spread) -> Distribution:
    count, total, most, below = spread
    found = quantiles(figure.bounds, below, count, most)
    p50, p90, p95, p99 = (round(value, 6) for value in found)
    return Distribution(round(total / count, 6), p50, p90, p95, p99, round(most, 6))


def _of_rollups(asked: AggregateQuery, view: int) -> Question:
    found = Conditions()
    for name in DIMENSIONS:
        found.equal(name, getattr(asked, name))
    ranges = _ranges(asked)
    each = f"SELECT * FROM rollups WHERE span = ? AND view = {view} AND start >= ? AND start < ? AND {found}"  # noqa: S608
    source = f"({' UNION ALL '.join([each] * len(ranges))})"
    values = [value for wide in ranges for value in (*wide, *found.parameters)]
    return _statement(asked, source, "start", lambda column: column), [*values, asked.limit + 1]


def _of_requests(asked: AggregateQuery) -> Question:
    found = conditions(asked)
    since, until = covered(asked)
    found.between(since, until)
    expressions = SUMS | COUNTS | {f"most_{figure.name}": figure.name for figure in FIGURES}
    source = f"(SELECT *, {SPEED_OF} AS speed FROM ({FROM_REQUESTS} WHERE {found}))"  # noqa: S608
    return _statement(asked, source, "at", expressions.__getitem__), [*found.parameters, asked.limit + 1]


def _statement(asked: AggregateQuery, source: str, time: str, expression: Any) -> str:
    groups = [time if time == "start" and name == "hour" else _group(name, time) for name in asked.by]
    times = [f"g{place}" for place, name in enumerate(asked.by) if name in ("hour", "day")]
    spreads = [
        f"json_array(sum({expression(_COUNT[figure])}), sum({expression(figure.name)}), "
        f"max({expression(f'most_{figure.name}')}), "
        f"json_array({', '.join(f'sum({expression(column)})' for column in figure.columns)}))"
        for figure in FIGURES
    ]
    totals = [f"sum({expression(name)})" for name in _TOTALS]
    names = [f"g{place}" for place, _ in enumerate(groups)]
    return f"""
        SELECT '[' || coalesce(group_concat(line), '') || ']' FROM (
            SELECT {", ".join(f"{group} AS {name}" for group, name in zip(groups, names, strict=True))},
                   json_array(json_array({", ".join(groups)}), {", ".join(totals + spreads)}) AS line
            FROM {source}
            GROUP BY {", ".join(sorted(names, key=lambda name: name not in times))}
            ORDER BY {", ".join([*(f"{name} DESC" for name in times), f"{totals[0]} DESC"])} LIMIT ?)
    """  # noqa: S608 - made of our own names


def _group(name: str, time: str) -> str:
    match name:
        case "hour":
            return f"CAST({time} / {HOUR} AS INTEGER) * {HOUR}"
        case "day":
            return f"CAST({time} / {DAY} AS INTEGER) * {DAY}"
        case _:
            return name


def _ranges(asked: AggregateQuery) -> list[tuple[int, float, float]]:
    """The rows to read, as spans and times: days where they lie inside the time asked for, else hours."""
    since, until = covered(asked)
    first, past = since or 0.0, 1e12 if until is None else until
    day, past_day = -(-first // DAY) * DAY, past // DAY * DAY
    if "hour" in asked.by or day >= past_day:
        return [(HOUR, first, past)]
    ranges = [(HOUR, first, day), (DAY, day, past_day), (HOUR, past_day, past)]
    return [(span, begin, end) for span, begin, end in ranges if begin < end]
