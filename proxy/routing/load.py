"""How busy one backend is, as its policies see it: our own requests on it, what it reports itself, its first tokens.

Plain counting. Whoever sends a request says so with `taken` and `returned`; whoever polls the server brings `report`s.
"""

from collections.abc import Callable
from math import exp

# Finagle's and tower's usual decay: after 10 s without news an estimate has lost two thirds of its weight.
DECAY = 10.0
# Linkerd's guess for a server that has not answered yet.
FIRST_GUESS = 1.0


class PeakEwma:
    """Seconds to the first token: jumps to a peak at once, forgets it by and by, also while nothing happens.

    Peak EWMA as in Finagle and tower. That the estimate falls while a server is idle is what lets a server that once was slow
    be tried again. Reading changes nothing, so the result does not depend on who looks.
    """

    __slots__ = ("_at", "_decay", "_estimate")

    def __init__(self, decay: float = DECAY) -> None:
        self._decay = decay
        self._estimate: float | None = None
        self._at = 0.0

    def __repr__(self) -> str:
        return "<PeakEwma: nothing observed>" if self._estimate is None else f"<PeakEwma: {self._estimate:.3f} s>"

    def observe(self, seconds: float, now: float) -> None:
        """Note one time to the first token. Of a request that timed out: the time it was waited for."""
        if self._estimate is None or seconds >= self._estimate:
            self._estimate = seconds
        else:
            kept = exp((self._at - now) / self._decay)
            self._estimate = self._estimate * kept + seconds * (1 - kept)
        self._at = now

    def value(self, now: float) -> float:
        """The estimate in seconds; `FIRST_GUESS` before the first observation."""
        if self._estimate is None:
            return FIRST_GUESS
        return self._estimate * exp((self._at - now) / self._decay)


class Load:
    """What one backend has to do. `weight` is its share under `weighted`; `limit` the requests it gets at a time, 0 for any;
    `emptied`, while it is set, is called whenever the last request leaves.
    """

    __slots__ = ("credit", "emptied", "first_token", "in_flight", "limit", "reported", "reported_at", "weight")

    def __init__(self, weight: float = 1.0, limit: int = 0) -> None:
        self.weight = weight
        self.limit = limit
        self.in_flight = 0
        self.first_token = PeakEwma()
        self.reported: float | None = None
        self.reported_at: float | None = None
        self.credit = 0
        self.emptied: Callable[[], None] | None = None

    def __repr__(self) -> str:
        limit = f" of {self.limit}" if self.limit else ""
        reported = "" if self.reported is None else f", {self.reported:g} reported, {self.credit:+d} since"
        return f"<Load: {self.in_flight}{limit} in flight{reported}>"

    @property
    def full(self) -> bool:
        """Whether it has as many requests as it may get."""
        return 0 < self.limit <= self.in_flight

    def taken(self) -> None:
        """One more request is on it."""
        self.in_flight += 1
        self.credit += 1

    def returned(self) -> None:
        """One request is off it, however it ended. Raises `RuntimeError` when none was on it."""
        if not self.in_flight:
            raise RuntimeError("a request was returned that had not been taken")
        self.in_flight -= 1
        self.credit -= 1
        if self.emptied is not None and not self.in_flight:
            self.emptied()

    def report(self, running_and_waiting: float | None, now: float) -> None:
        """Note what the server says of itself, other clients' requests included; None once it says nothing any more."""
        self.reported = running_and_waiting
        self.reported_at = now
        self.credit = 0

    def pressure(self) -> float:
        """Requests running or waiting on it, by the best of our knowledge.

        A report is old as soon as it is there. `credit`, our own requests sent since less those that came back, carries it on
        to the present; without that every request until the next poll would go to the server that had reported least (the
        idea is SMG's `least_load`). Our own requests are the least there can be.
        """
        if self.reported is None:
            return self.in_flight
        return max(self.reported + self.credit, self.in_flight)
