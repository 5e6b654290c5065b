"""The retry budget: retries may only be a share of the requests, so that servers in trouble are not asked twice as much.

After Finagle's and Linkerd's retry budgets: requests of the last ten seconds deposit, each retry withdraws, and a floor
lets a quiet gateway retry at all.
"""

from quiver.schemas.config import Retries

WINDOW = 10


class RetryBudget:
    """Counts requests and retries in slots of one second."""

    def __init__(self, config: Retries) -> None:
        self._share, self._floor = config.budget, config.budget_floor
        self._requests = [0] * WINDOW
        self._retries = [0] * WINDOW
        self._second = 0

    def __repr__(self) -> str:
        return f"<RetryBudget: {sum(self._retries)} retries of {sum(self._requests)} requests>"

    def deposit(self, now: float) -> None:
        """A request came in."""
        second = int(now)
        if second != self._second:
            self._turn_to(second)
        self._requests[second % WINDOW] += 1

    def withdraw(self, now: float) -> bool:
        """Whether one more retry is within the budget; if so it is counted."""
        self._turn_to(int(now))
        if sum(self._retries) >= max(self._floor, self._share * sum(self._requests)):
            return False
        self._retries[self._second % WINDOW] += 1
        return True

    def _turn_to(self, second: int) -> None:
        for passed in range(self._second + 1, min(second, self._second + WINDOW) + 1):
            self._requests[passed % WINDOW] = 0
            self._retries[passed % WINDOW] = 0
        if second > self._second + WINDOW:
            self._requests, self._retries = [0] * WINDOW, [0] * WINDOW
        self._second = max(second, self._second)
