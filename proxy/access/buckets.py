"""The token bucket under every limit: plain arithmetic over a level and a time, no clock and no waiting of its own."""

from math import inf, ulp


class TokenBucket:
    """Holds up to `capacity`, refills continuously by `per_second`, and is full at `now`.

    Times are seconds on one clock. A bucket that is full at `-inf` was always full, and so needs no clock to begin with.
    """

    __slots__ = ("_level", "_updated", "capacity", "per_second")

    def __init__(self, capacity: float, per_second: float, now: float) -> None:
        if capacity <= 0 or per_second <= 0:
            raise ValueError(f"a bucket needs a capacity and a refill, not {capacity} and {per_second}")
        self.capacity, self.per_second = capacity, per_second
        self._level, self._updated = capacity, now

    def __repr__(self) -> str:
        return f"<TokenBucket: {self._level:g} of {self.capacity:g} at {self._updated:g}>"

    def level(self, now: float) -> float:
        """What is there; below zero while overuse is not paid back."""
        if now <= self._updated:
            return self._level
        level = self._level + (now - self._updated) * self.per_second
        return level if level < self.capacity else self.capacity

    def take(self, amount: float, now: float) -> bool:
        """Take all of `amount`, or nothing and return False."""
        left = self.level(now) - amount
        if left < 0:
            return False
        self._level, self._updated = left, max(now, self._updated)
        return True

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` is there if nobody else takes any; `inf` if it never will be.

        A `take` that much later succeeds: where rounding would miss it by a hair, the answer is that hair longer.
        """
        if amount > self.capacity:
            return inf
        missing = amount - self.level(now)
        if missing <= 0:
            return 0.0
        seconds = missing / self.per_second
        hair = ulp(max(self.capacity, missing)) / self.per_second
        while self.level(now + seconds) < amount:
            seconds += max(hair, ulp(now + seconds))
        return seconds

    def full_at(self) -> float:
        """When it is full if nobody takes any more; not after the last use if it was full then."""
        return self._updated + (self.capacity - self._level) / self.per_second

    def resize(self, capacity: float, per_second: float, now: float) -> None:
        """Other limits; the share that is left, or owed, stays."""
        self._level, self._updated = self.level(now) * capacity / self.capacity, max(now, self._updated)
        self.capacity, self.per_second = capacity, per_second

    def settle(self, taken: float, used: float, now: float) -> None:
        """Put right a `take` that was a guess. What was used beyond it is owed: the level may go below zero."""
        self._level, self._updated = min(self.capacity, self.level(now) + taken - used), max(now, self._updated)


def per_minute(amount: int, now: float) -> TokenBucket:
    """A bucket for `amount` a minute, all of which may be used at once."""
    return TokenBucket(amount, amount / 60, now)
