"""Budgets by the day, week, month and in all: when they begin anew, and that nothing in between overspends them."""

from datetime import UTC, datetime
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quiver.proxy.access.budgets import Budget, BudgetReservation
from quiver.proxy.access.client import Client, Terms
from quiver.schemas.errors import ApiError
from quiver.schemas.periods import bounds, moment
from quiver.schemas.saved import Period


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


BOUNDS: list[tuple[Period, str, str, str]] = [
    ("day", "2026-11-21 00:00:00", "2026-11-21", "2026-11-22"),
    ("day", "2026-11-21 23:59:59.999", "2026-11-21", "2026-11-22"),
    ("week", "2026-11-21 12:00:00", "2026-11-16", "2026-11-23"),
    ("week", "2026-11-23 00:00:00", "2026-11-23", "2026-11-30"),
    ("week", "2026-11-22 23:59:59", "2026-11-16", "2026-11-23"),
    ("month", "2026-11-30 23:59:59", "2026-11-01", "2026-12-01"),
    ("month", "2026-12-31 23:59:59", "2026-12-01", "2027-01-01"),
    ("month", "2028-02-29 00:00:00", "2028-02-01", "2028-03-01"),
]


@pytest.mark.parametrize(("period", "now", "begins", "ends"), BOUNDS)
def test_periods_turn_in_utc(period: Period, now: str, begins: str, ends: str) -> None:
    assert bounds(period, at(now)) == (at(begins), at(ends))


@given(st.sampled_from(["day", "week", "month"]), st.floats(0, 4e9))
def test_periods_leave_no_gap(period: Period, now: float) -> None:
    begins, ends = bounds(period, now)
    assert begins <= now < ends
    assert bounds(period, ends)[0] == ends
    assert bounds(period, begins) == (begins, ends)


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_spent_budget_tells_when_it_begins_anew() -> None:
    clock = Clock(at("2026-11-30 23:59:00"))
    budget = Budget(100, "month", clock)
    budget.reserve(80).settle(70, 0)
    with pytest.raises(ApiError) as caught:
        budget.reserve(31)
    error = caught.value
    assert (error.kind.code, error.kind.status, error.retry_after) == ("budget_exceeded", 429, 60)
    assert "30 of 100 tokens are left" in error.message
    assert "2026-12-01 00:00:00 UTC" in error.message
    assert (b"x-ratelimit-reset-budget", b"1m0s") in error.headers()
    clock.now += error.retry_after or 0
    budget.reserve(100)
    assert budget.left == 0


def test_request_larger_than_budget_is_not_told_to_wait() -> None:
    with pytest.raises(ApiError) as caught:
        Budget(100, "day", Clock(0)).reserve(101)
    assert (caught.value.kind.code, caught.value.retry_after) == ("budget_exceeded", None)


def test_total_is_never_given_back() -> None:
    clock = Clock(at("2026-11-30 23:59:00"))
    budget = Budget(100, "total", clock)
    budget.reserve(100).settle(None, 0)
    clock.now += 1e9
    with pytest.raises(ApiError) as caught:
        budget.reserve(1)
    assert (caught.value.kind.code, caught.value.kind.status, caught.value.retry_after) == (
        "budget_exhausted",
        403,
        None,
    )
    assert not caught.value.kind.retryable
    assert budget.exhausted
    assert budget.ends == inf
    assert [name for name, _ in budget.headers()] == [b"x-ratelimit-limit-budget", b"x-ratelimit-remaining-budget"]


def test_request_counts_where_it_ends() -> None:
    clock = Clock(at("2026-11-21 23:59:59"))
    budget = Budget(100, "day", clock)
    budget.reserve(50).settle(50, 0)
    held = budget.reserve(40)
    clock.now += 2
    assert (budget.left, budget.reserved) == (60, 40)
    held.settle(30, 0)
    assert (budget.spent, budget.left) == (30, 70)


def test_clock_set_back_gives_nothing_back() -> None:
    clock = Clock(at("2026-11-21 00:00:01"))
    budget = Budget(100, "day", clock)
    budget.reserve(90).settle(90, 0)
    clock.now -= 2
    assert budget.left == 10
    assert budget.ends == at("2026-11-21")


def test_new_limit_keeps_what_is_spent() -> None:
    clock = Clock(at("2026-11-21 23:59:59"))
    client = Client("a", "a")
    client.change(Terms(frozenset(), "normal", None, None, 100, "day"), clock, 0)
    assert client.budget is not None
    client.budget.reserve(60).settle(60, 0)
    client.change(Terms(frozenset(), "normal", None, None, 200, "day"), clock, 0)
    assert (client.budget.spent, client.budget.left) == (60, 140)
    clock.now += 2
    client.change(Terms(frozenset(), "normal", None, None, 300, "day"), clock, 0)
    assert (client.budget.spent, client.budget.left) == (0, 300)
    client.change(Terms(frozenset(), "normal", None, None, 300, "month"), clock, 0, spent=60)
    assert client.budget.spent == 60


def test_settling_twice_counts_once() -> None:
    budget = Budget(100, "day", Clock(0))
    held = budget.reserve(50)
    held.settle(10, 0)
    held.settle(0, 0)
    assert (budget.spent, budget.reserved) == (10, 0)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 60)),
        st.tuples(st.just("settle"), st.integers(0, 5), st.one_of(st.none(), st.integers(-5, 90))),
        st.tuples(st.just("wait"), st.floats(0, 50_000)),
        st.tuples(st.just("change"), st.integers(1, 300)),
    ),
    max_size=60,
)


@given(STEPS)
def test_no_interleaving_overspends(steps: list[tuple[object, ...]]) -> None:
    """Within a period no more is let through than the limit, beyond what estimates were too low."""
    clock, limit = Clock(0.0), 100
    budget = Budget(limit, "day", clock)
    open_requests: list[tuple[BudgetReservation, int]] = []
    day, settled = 0, 0
    for step in steps:
        match step:
            case "ask", int(estimate):
                outstanding = sum(estimate for _, estimate in open_requests)
                try:
                    open_requests.append((budget.reserve(estimate), estimate))
                except ApiError:
                    assert settled + outstanding + estimate > limit
                else:
                    assert settled + outstanding + estimate <= limit
            case "settle", int(place), actual:
                if open_requests:
                    held, estimate = open_requests.pop(place % len(open_requests))
                    assert actual is None or isinstance(actual, int)
                    held.settle(actual, 0)
                    used = estimate if actual is None else max(0, actual)
                    settled += used
            case "wait", float(seconds):
                clock.now += seconds
                if clock.now // 86_400 != day:
                    day, settled = int(clock.now // 86_400), 0
            case "change", int(limit):
                budget.change(limit, "day", budget.spent)
        assert (budget.spent, budget.reserved) == (settled, sum(estimate for _, estimate in open_requests))
        assert budget.left == max(0, limit - settled - budget.reserved)


def test_who_owes_gets_nothing_that_looks_free() -> None:
    budget = Budget(100, "day", Clock(0.0))
    budget.reserve(50).settle(150, 0)
    with pytest.raises(ApiError, match="spent"):
        budget.reserve(0)


def test_all_limits_are_taken_or_none() -> None:
    client = Client("a", "a")
    client.change(Terms(frozenset(), "normal", None, 100, 50), Clock(0), 0)
    with pytest.raises(ApiError, match="budget"):
        client.reserve(60, 0)
    assert client.tokens is not None
    assert client.tokens.bucket.level(0) == 100
    client.change(Terms(frozenset(), "normal", None, 50, 100), Clock(0), 0)
    with pytest.raises(ApiError, match="allowed in a minute"):
        client.reserve(60, 0)
    assert client.budget is not None
    assert (client.budget.reserved, client.budget.spent) == (0, 0)
    held = client.reserve(40, 0)
    assert held is not None
    held.settle(30, 0)
    assert (client.budget.spent, client.tokens.bucket.level(0)) == (30, 20)


def test_moments_read_well() -> None:
    assert moment(at("2026-11-21 16:30:00")) == "2026-11-21 16:30:00 UTC"
