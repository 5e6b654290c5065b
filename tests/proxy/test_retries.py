"""The retry budget: a share of recent requests, and a floor."""

from random import Random

import pytest
from quiver.proxy.retries import WINDOW, RetryBudget
from quiver.schemas.config import Retries


def spent(budget: RetryBudget, now: float) -> int:
    """How many retries it allows now."""
    count = 0
    while budget.withdraw(now):
        count += 1
    return count


@pytest.mark.parametrize(
    ("requests", "share", "floor", "allowed"),
    [(0, 0.2, 0, 0), (0, 0.2, 20, 20), (50, 0.2, 20, 20), (1000, 0.2, 20, 200), (7, 0.5, 0, 4), (1000, 0, 3, 3)],
)
def test_share_or_floor_is_allowed(requests: int, share: float, floor: int, allowed: int) -> None:
    budget = RetryBudget(Retries(budget=share, budget_floor=floor))
    for _ in range(requests):
        budget.deposit(5.0)
    assert spent(budget, 5.5) == allowed
    assert not budget.withdraw(5.9)


def test_budget_is_of_ten_seconds() -> None:
    budget = RetryBudget(Retries(budget=0.1, budget_floor=0))
    for _ in range(100):
        budget.deposit(3.0)
    assert spent(budget, 12.9) == 10
    assert spent(budget, 13.1) == 0, "the requests are too old now"
    for _ in range(100):
        budget.deposit(14.0)
    assert spent(budget, 14.0) == 0, "the retries of before still count"
    assert spent(budget, 23.0) == 10


@pytest.mark.parametrize("pause", [10, 11, 100, 1e9])
def test_long_rest_forgets_all(pause: float) -> None:
    budget = RetryBudget(Retries(budget=0.5, budget_floor=2))
    for _ in range(100):
        budget.deposit(1.0)
    assert spent(budget, 1.0) == 50
    assert spent(budget, 1.0 + pause) == 2


@pytest.mark.parametrize("seed", range(20))
def test_no_window_overspends(seed: int) -> None:
    """Whatever the traffic: in the ten seconds up to any retry, the retries are within the share of requests or the floor."""
    random, now = Random(seed), 0.0
    budget = RetryBudget(Retries(budget=0.2, budget_floor=3))
    requests: list[float] = []
    retries: list[float] = []
    for _ in range(3000):
        now += random.choice((0, 0, 0.01, 0.3, 3))
        if random.random() < 0.5:
            budget.deposit(now)
            requests.append(now)
        elif budget.withdraw(now):
            retries.append(now)
            since = int(now) - WINDOW + 1
            asked, retried = (sum(at >= since for at in times) for times in (requests, retries))
            assert retried <= max(3, 0.2 * asked + 1)
    assert len(retries) > 100
