"""The pace: how long it takes, for one model, until the next place becomes free. Measured only while somebody waits."""

# Each measurement counts for an eighth, as in TCP's smoothed round-trip time (RFC 6298, section 2).
SHARE = 1 / 8
# What is assumed before the first measurement.
GUESS = 1.0


class Pace:
    """An exponentially weighted average of the intervals between departures."""

    __slots__ = ("_average", "_last")

    def __init__(self) -> None:
        self._average: float | None = None
        self._last = 0.0

    def begin(self, now: float) -> None:
        """The first request begins to wait: what happened before says nothing about how fast a full house empties."""
        self._last = now

    def departed(self, now: float) -> None:
        """A place became free while somebody waited."""
        interval = now - self._last
        self._last = now
        self._average = interval if self._average is None else self._average + SHARE * (interval - self._average)

    @property
    def interval(self) -> float:
        """Seconds from one departure to the next."""
        return GUESS if self._average is None else self._average

    def interval_by(self, now: float) -> float:
        """The same while somebody waits: at least as long as the present wait for a departure, as a server may hang."""
        return max(self.interval, now - self._last)

    def __repr__(self) -> str:
        return f"Pace({self._average})"
