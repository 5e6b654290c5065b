"""When a budget begins anew: the bounds of a day, a week or a month in UTC, and moments as people read them."""

from datetime import UTC, datetime, timedelta
from math import inf

from .saved import Period

DAY = 86_400.0
# 1970-01-01 was a Thursday; weeks begin on Monday (ISO 8601).
_FIRST_MONDAY = 4 * DAY


def bounds(period: Period, at: float) -> tuple[float, float]:
    """Beginning and end of the period that the Unix time `at` lies in; the end is the next one's beginning."""
    match period:
        case "day":
            begins = at // DAY * DAY
            return begins, begins + DAY
        case "week":
            begins = (at - _FIRST_MONDAY) // (7 * DAY) * 7 * DAY + _FIRST_MONDAY
            return begins, begins + 7 * DAY
        case "month":
            first = datetime.fromtimestamp(at, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            following = (first + timedelta(days=32)).replace(day=1)
            return first.timestamp(), following.timestamp()
        case "total":
            return -inf, inf


def moment(at: float) -> str:
    """A Unix time such as `2026-11-21 16:30:00 UTC`."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
