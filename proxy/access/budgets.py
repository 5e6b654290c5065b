"""Budgets: so many tokens in a day, a week, a month or in all, prompts and replies together.

What is reserved for requests under way counts as spent when the next one asks, so no interleaving of requests goes beyond
the limit by more than estimates were too low. Periods turn in UTC, on the wall clock; a request counts where it ends.
"""

from collections.abc import Callable
from math import ceil, inf

from quiver.schemas.errors import BUDGET_EXCEEDED, BUDGET_EXHAUSTED, ApiError
from quiver.schemas.periods import bounds, moment
from quiver.schemas.saved import Period

from .limits import Header, duration


class Budget:
    """`limit` tokens in each `period`, of which `spent` are gone at first. `reserved`: what requests under way may still
    take.
    """

    __slots__ = ("_begins", "_ends", "_spent", "_wall_clock", "limit", "period", "reserved")

    def __init__(self, limit: int, period: Period, wall_clock: Callable[[], float], spent: int = 0) -> None:
        self.limit, self.period, self._wall_clock = limit, period, wall_clock
        self._spent, self.reserved = spent, 0
        self._begins, self._ends = bounds(period, wall_clock())

    def __repr__(self) -> str:
        return f"<Budget: {self.spent} of {self.limit} spent, {self.reserved} reserved>"

    @property
    def spent(self) -> int:
        """What is gone of the present period's tokens."""
        self._turn()
        return self._spent

    @property
    def ends(self) -> float:
        """When the next period begins, as Unix time; `inf` if none will."""
        self._turn()
        return self._ends

    @property
    def left(self) -> int:
        """What a request may still take; not below zero."""
        return max(0, self.limit - self.spent - self.reserved)

    @property
    def exhausted(self) -> bool:
        """Whether the period's tokens are spent."""
        return self.spent >= self.limit

    def reserve(self, estimate: int) -> "BudgetReservation":
        """Take `estimate` tokens ahead of use. The caller settles the reservation once the use is known, whatever happens.

        Raises `ApiError` when that much is not left: 429 `budget_exceeded` with the time until the next period, 403
        `budget_exhausted` when there will be none.
        """
        if self.spent + self.reserved + estimate > self.limit:
            raise self._refused(estimate)
        self.reserved += estimate
        return BudgetReservation(self, estimate)

    def change(self, limit: int, period: Period, spent: int) -> None:
        """Another limit; what requests under way have reserved stays so. `spent`: what is gone of the new period."""
        self.limit, self.period, self._spent = limit, period, spent
        self._begins, self._ends = bounds(period, self._wall_clock())

    def headers(self) -> list[Header]:
        """Reply headers that tell of the budget, named as those of the limits; without a time when none is to come."""
        left = self.left
        headers = [(b"x-ratelimit-limit-budget", b"%d" % self.limit), (b"x-ratelimit-remaining-budget", b"%d" % left)]
        if self._ends < inf:
            headers.append((b"x-ratelimit-reset-budget", duration(max(0.0, self._ends - self._wall_clock()))))
        return headers

    def settle(self, estimate: int, used: int) -> None:
        """Put right a `reserve` that was a guess."""
        self._turn()
        self.reserved -= estimate
        self._spent += used

    def _turn(self) -> None:
        """Into the period that it is now. A clock that is set back does not give back what was spent."""
        now = self._wall_clock()
        if self._begins <= now < self._ends:
            return
        if now >= self._ends:
            self._spent = 0
        self._begins, self._ends = bounds(self.period, now)

    def _refused(self, estimate: int) -> ApiError:
        left = f"{self.left} of {self.limit} tokens are left, and the request may need {estimate}"
        if self._ends == inf:
            return ApiError(BUDGET_EXHAUSTED, f"The key's budget is spent: {left}", extra=self.headers())
        text = f"The key's budget for the {self.period} is spent: {left}; it begins anew on {moment(self._ends)}"
        if estimate > self.limit:
            text = f"The request may need {estimate} tokens, more than the key's budget of {self.limit} a {self.period}"
            return ApiError(BUDGET_EXCEEDED, text, extra=self.headers())
        seconds = max(1, ceil(self._ends - self._wall_clock()))
        return ApiError(BUDGET_EXCEEDED, text, retry_after=seconds, extra=self.headers())


class BudgetReservation:
    """Tokens of a budget taken ahead of use. Until it is settled the whole estimate counts as used."""

    __slots__ = ("_budget", "estimate", "settled")

    def __init__(self, budget: Budget, estimate: int) -> None:
        self._budget, self.estimate = budget, estimate
        self.settled = False

    def __repr__(self) -> str:
        return f"<BudgetReservation: {self.estimate} tokens{', settled' if self.settled else ''}>"

    def settle(self, actual: int | None, now: float) -> None:
        """As `Reservation.settle`; `now` has no meaning here."""
        if not self.settled:
            self.settled = True
            self._budget.settle(self.estimate, self.estimate if actual is None else max(actual, 0))
