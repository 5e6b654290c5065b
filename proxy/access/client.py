"""A client: whoever a key or an address stands for. One object each, for as long as it is known."""

from collections.abc import Callable
from math import inf
from typing import Protocol

import msgspec
from quiver.schemas.config import Key, Priority
from quiver.schemas.errors import ApiError
from quiver.schemas.saved import Period, SavedKey

from .buckets import TokenBucket, per_minute
from .budgets import Budget, BudgetReservation
from .limits import Header, LimitHeaders, Reservation, TokenBudget


class Terms(msgspec.Struct, frozen=True):
    """What a key may do, wherever it comes from; see `SavedKey`."""

    models: frozenset[str]
    priority: Priority
    requests_per_minute: int | None
    tokens_per_minute: int | None
    budget_tokens: int | None = None
    budget_period: Period = "month"
    keep_content: bool = False


def terms_of(key: Key | SavedKey) -> Terms:
    """The terms of a key of the configuration, or of a saved one."""
    models, requests, tokens = frozenset(key.models), key.requests_per_minute, key.tokens_per_minute
    if isinstance(key, Key):
        return Terms(models, key.priority, requests, tokens, keep_content=key.keep_content)
    return Terms(models, key.priority, requests, tokens, key.budget_tokens, key.budget_period, key.keep_content)


class Held(Protocol):
    """What a request holds of its client's limits until its cost is known."""

    def settle(self, actual: int | None, now: float) -> None:
        """See `Reservation.settle`."""
        ...


class Client:
    """What one client may do, and what is left of its limits.

    `name` is for logs and records and gives no key away. `scope` tells clients apart: nothing kept for one scope may be
    used for another. `models` empty means all. `priority` is the highest it may ask for. `limited`:
    whether there is any limit to tell of. `keep_content`: whether what it asks and is told may be kept. `used_at`: when it
    was let in last, on Trio's clock; `used_before`: when that was before this run, as Unix time.
    """

    __slots__ = (
        "_request_headers",
        "budget",
        "keep_content",
        "limited",
        "models",
        "name",
        "priority",
        "requests",
        "scope",
        "tokens",
        "used_at",
        "used_before",
    )

    def __init__(
        self,
        name: str,
        scope: str,
        *,
        models: frozenset[str] = frozenset(),
        priority: Priority = "normal",
        requests: TokenBucket | None = None,
        tokens: TokenBudget | None = None,
        keep_content: bool = False,
    ) -> None:
        self.name, self.scope = name, scope
        self.models, self.priority = models, priority
        self.requests, self.tokens = requests, tokens
        self.budget: Budget | None = None
        self.keep_content = keep_content
        self.used_at = -inf
        self.used_before: float | None = None
        self._tell_limits()

    def __repr__(self) -> str:
        return f"<Client {self.name}>"

    def change(self, terms: Terms, wall_clock: Callable[[], float], now: float, spent: int = 0) -> None:
        """Other terms, of which requests under way feel no more than what is left to others. `spent`: of the budget, when
        that is new or has another period.
        """
        self.models, self.priority, self.keep_content = terms.models, terms.priority, terms.keep_content
        requests, tokens = terms.requests_per_minute, terms.tokens_per_minute
        if requests is None or self.requests is None:
            self.requests = None if requests is None else per_minute(requests, -inf)
        else:
            self.requests.resize(requests, requests / 60, now)
        if tokens is None or self.tokens is None:
            self.tokens = None if tokens is None else TokenBudget(tokens, -inf)
        else:
            self.tokens.change(tokens, now)
        if terms.budget_tokens is None or self.budget is None:
            limit = terms.budget_tokens
            self.budget = None if limit is None else Budget(limit, terms.budget_period, wall_clock, spent)
        else:
            kept = self.budget.spent if self.budget.period == terms.budget_period else spent
            self.budget.change(terms.budget_tokens, terms.budget_period, kept)
        self._tell_limits()

    def allows(self, model: str) -> bool:
        """Whether it may use a model."""
        return not self.models or model in self.models

    def reserve(self, estimate: int, now: float) -> Held | None:
        """Take `estimate` tokens of every limit it has, or none of any; None when it has none.

        Raises `ApiError` when one of them has not that much left. The caller settles what it gets, whatever happens.
        """
        if self.budget is None:
            return None if self.tokens is None else self.tokens.reserve(estimate, now)
        held = self.budget.reserve(estimate)
        if self.tokens is None:
            return held
        try:
            return _Both(held, self.tokens.reserve(estimate, now))
        except ApiError:
            held.settle(0, now)
            raise

    def limit_headers(self, now: float) -> list[Header]:
        """Reply headers that tell of the limits it has; none for those it does not have."""
        headers: list[Header] = []
        if self._request_headers is not None:
            headers = self._request_headers.at(now)
        if self.tokens is not None:
            headers += self.tokens.headers(now)
        if self.budget is not None:
            headers += self.budget.headers()
        return headers

    def _tell_limits(self) -> None:
        self.limited = any(limit is not None for limit in (self.requests, self.tokens, self.budget))
        self._request_headers = None if self.requests is None else LimitHeaders(b"requests", self.requests)


class _Both:
    """Tokens of a budget and of the limit a minute."""

    __slots__ = ("_budget", "_tokens")

    def __init__(self, budget: BudgetReservation, tokens: Reservation) -> None:
        self._budget, self._tokens = budget, tokens

    def settle(self, actual: int | None, now: float) -> None:
        self._budget.settle(actual, now)
        self._tokens.settle(actual, now)
