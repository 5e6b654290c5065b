"""Request limits and token budgets: exact refusals, exact headers, and no overspending in any order of events."""

from random import Random
from typing import Protocol

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from quiver.proxy.access.buckets import TokenBucket, per_minute
from quiver.proxy.access.client import Client
from quiver.proxy.access.limits import Reservation, TokenBudget, admit_request, duration
from quiver.schemas.errors import RATE_LIMITED, TOKENS_LIMITED, ApiError


def refusal(client: Client, now: float) -> ApiError | None:
    try:
        admit_request(client, now)
    except ApiError as error:
        return error
    return None


def test_minute_admits_its_limit() -> None:
    client = Client("a", "a", requests=per_minute(60, 0.0))
    assert [refusal(client, 0.0) for _ in range(60)] == [None] * 60
    assert refusal(client, 0.0) is not None


RETRIES = [
    (30, 0.0, 2),
    (30, 0.5, 2),
    (30, 1.0, 1),
    (30, 1.75, 1),
    (30, 2.0, None),
    (1, 0.0, 60),
    (1, 0.5, 60),
    (1, 59.5, 1),
    (6000, 0.0, 1),
]


@pytest.mark.parametrize(("limit", "now", "expected"), RETRIES)
def test_retry_after_is_exact(limit: int, now: float, expected: int | None) -> None:
    client = Client("a", "a", requests=per_minute(limit, 0.0))
    for _ in range(limit):
        admit_request(client, 0.0)
    error = refusal(client, now)
    assert (error and error.retry_after) == expected
    if error is not None and expected is not None:
        assert refusal(client, now + expected) is None


def test_refused_request_tells_limits() -> None:
    client = Client("a", "a", requests=per_minute(1, 0.0), tokens=TokenBudget(100, 0.0))
    admit_request(client, 0.0)
    error = refusal(client, 30.0)
    assert error is not None
    assert (error.kind, error.message) == (RATE_LIMITED, "Too many requests: 1 a minute allowed; try again in 30 s")
    assert error.headers() == [*client.limit_headers(30.0), (b"retry-after", b"30")]


def test_no_limit_admits_everything() -> None:
    client = Client("a", "a")
    assert [refusal(client, 0.0) for _ in range(1000)] == [None] * 1000


DURATIONS = [
    (0.0, b"0s"),
    (0.0004, b"0s"),
    (0.017, b"17ms"),
    (0.9994, b"999ms"),
    (0.9996, b"1s"),
    (1.0, b"1s"),
    (1.5, b"1.5s"),
    (8.64, b"8.64s"),
    (59.999, b"59.999s"),
    (59.9999, b"1m0s"),
    (60.0, b"1m0s"),
    (150.0, b"2m30s"),
    (150.25, b"2m30.25s"),
    (360.0, b"6m0s"),
    (3600.0, b"1h0m0s"),
    (3725.5, b"1h2m5.5s"),
    (90_000.0, b"25h0m0s"),
]


@pytest.mark.parametrize(("seconds", "expected"), DURATIONS)
def test_durations_read_as_openai(seconds: float, expected: bytes) -> None:
    assert duration(seconds) == expected


def test_headers_are_exact_now() -> None:
    client = Client("a", "a", requests=per_minute(60, 0.0), tokens=TokenBudget(600, 0.0))
    admit_request(client, 0.0)
    assert client.tokens is not None
    client.tokens.reserve(425, 0.0)
    assert client.limit_headers(0.25) == [
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"59"),
        (b"x-ratelimit-reset-requests", b"750ms"),
        (b"x-ratelimit-limit-tokens", b"600"),
        (b"x-ratelimit-remaining-tokens", b"177"),
        (b"x-ratelimit-reset-tokens", b"42.25s"),
    ]


def test_headers_show_existing_limits() -> None:
    assert Client("a", "a").limit_headers(0.0) == []
    requests = Client("a", "a", requests=per_minute(5, 0.0)).limit_headers(0.0)
    tokens = Client("a", "a", tokens=TokenBudget(5, 0.0)).limit_headers(0.0)
    assert [name for name, _ in requests + tokens] == [
        b"x-ratelimit-limit-requests",
        b"x-ratelimit-remaining-requests",
        b"x-ratelimit-reset-requests",
        b"x-ratelimit-limit-tokens",
        b"x-ratelimit-remaining-tokens",
        b"x-ratelimit-reset-tokens",
    ]


def test_debt_remains_as_nothing() -> None:
    budget = TokenBudget(60, 0.0)
    budget.reserve(10, 0.0).settle(150, 0.0)
    assert budget.headers(0.0) == [
        (b"x-ratelimit-limit-tokens", b"60"),
        (b"x-ratelimit-remaining-tokens", b"0"),
        (b"x-ratelimit-reset-tokens", b"2m30s"),
    ]


SETTLEMENTS = [
    (40, 40, 60.0),
    (40, 10, 90.0),
    (40, 0, 100.0),
    (40, 75, 25.0),
    (40, 130, -30.0),
    (40, None, 60.0),
    (0, 5, 95.0),
]


@pytest.mark.parametrize(("estimate", "actual", "expected"), SETTLEMENTS)
def test_reservations_settle_once(estimate: int, actual: int | None, expected: float) -> None:
    budget = TokenBudget(100, 0.0)
    reservation = budget.reserve(estimate, 0.0)
    assert budget.bucket.level(0.0) == 100 - estimate
    reservation.settle(actual, 0.0)
    assert budget.bucket.level(0.0) == expected
    reservation.settle(0, 0.0)
    reservation.settle(1000, 0.0)
    assert budget.bucket.level(0.0) == expected


def test_negative_use_is_none() -> None:
    budget = TokenBudget(100, 0.0)
    budget.reserve(50, 0.0)
    budget.reserve(10, 0.0).settle(-500, 0.0)
    assert budget.bucket.level(0.0) == 50


def test_unaffordable_estimate_waits() -> None:
    budget = TokenBudget(600, 0.0)
    budget.reserve(500, 0.0)
    with pytest.raises(ApiError, match="600 tokens a minute, and the request may need 125") as caught:
        budget.reserve(125, 0.0)
    assert caught.value.kind == TOKENS_LIMITED
    assert caught.value.retry_after == 3
    assert caught.value.extra == budget.headers(0.0)
    budget.reserve(125, 3.0)


def test_impossible_estimate_never_retries() -> None:
    budget = TokenBudget(600, 0.0)
    with pytest.raises(ApiError, match="may need 601 tokens, more than the 600 allowed") as caught:
        budget.reserve(601, 0.0)
    assert (caught.value.kind, caught.value.retry_after) == (TOKENS_LIMITED, None)
    assert budget.bucket.level(0.0) == 600


def test_objects_say_their_state() -> None:
    budget = TokenBudget(10, 0.0)
    reservation = budget.reserve(4, 0.0)
    assert repr(budget) == "<TokenBudget: <TokenBucket: 6 of 10 at 0>>"
    assert repr(reservation) == "<Reservation: 4 tokens>"
    reservation.settle(None, 0.0)
    assert repr(reservation) == "<Reservation: 4 tokens, settled>"


@settings(deadline=None)
@given(
    limit=st.integers(1, 200),
    events=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 120), st.one_of(st.none(), st.floats(0, 1)), st.booleans()),
        max_size=60,
    ),
)
def test_no_interleaving_overspends(limit: int, events: list[tuple[int, int, float | None, bool]]) -> None:
    """Use never exceeds its reservation here, so at any time what was used and what is held is within the limit."""
    budget = TokenBudget(limit, 0.0)
    held: list[Reservation] = []
    now, used = 0.0, 0
    for pause, estimate, share, oldest in events:
        now += pause
        try:
            held.append(budget.reserve(estimate, now))
        except ApiError:
            assert budget.bucket.level(now) < estimate
        if oldest and held:
            reservation = held.pop(0)
            actual = None if share is None else int(reservation.estimate * share)
            reservation.settle(actual, now)
            used += reservation.estimate if actual is None else actual
        assert used + sum(reservation.estimate for reservation in held) <= limit + now * limit / 60 + 1e-6
        assert 0 <= budget.bucket.level(now) <= limit


@settings(deadline=None)
@given(
    limit=st.integers(1, 100),
    events=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 100), st.integers(0, 300)), max_size=40),
)
def test_overuse_is_always_repaid(limit: int, events: list[tuple[int, int, int]]) -> None:
    """Only what the last request used beyond its estimate can be over the limit; the next ones wait until it is paid."""
    budget = TokenBudget(limit, 0.0)
    now, used = 0.0, 0
    for pause, estimate, actual in events:
        now += pause
        try:
            reservation = budget.reserve(estimate, now)
        except ApiError:
            continue
        assert used + estimate <= limit + now * limit / 60 + 1e-6
        reservation.settle(actual, now)
        used += actual


class Account(Protocol):
    """One way to pay for tokens: `pay` is told what a request may need, and settles what it used."""

    async def pay(self, estimate: int, actual: int, work: float) -> bool: ...


class ReserveThenSettle:
    """The product's way."""

    def __init__(self, limit: int) -> None:
        self._budget = TokenBudget(limit, trio.current_time())

    async def pay(self, estimate: int, actual: int, work: float) -> bool:
        try:
            reservation = self._budget.reserve(estimate, trio.current_time())
        except ApiError:
            return False
        try:
            await trio.sleep(work)
        finally:
            reservation.settle(actual, trio.current_time())
        return True


class CheckThenSpend:
    """The mistake this schedule is there to find: requests in flight do not count."""

    def __init__(self, limit: int) -> None:
        self._bucket: TokenBucket = per_minute(limit, trio.current_time())

    async def pay(self, estimate: int, actual: int, work: float) -> bool:
        if self._bucket.level(trio.current_time()) < estimate:
            return False
        await trio.sleep(work)
        self._bucket.settle(0, actual, trio.current_time())
        return True


async def overspent(account: Account, limit: int, seed: int) -> bool:
    """Whether 200 requests in half a minute, some of them cut off, used more than the budget gave."""
    random = Random(seed)
    began = trio.current_time()
    used = 0

    async def request(at: float, estimate: int, actual: int, work: float, cut: float) -> None:
        nonlocal used
        await trio.sleep(at)
        with trio.move_on_after(cut) as scope:
            if await account.pay(estimate, actual, work):
                used += actual
        if scope.cancelled_caught:
            used += actual

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            estimate = random.randint(1, limit // 4)
            nursery.start_soon(
                request,
                random.uniform(0, 30),
                estimate,
                random.randint(0, estimate),
                random.uniform(0, 10),
                random.choice([1.0, 100.0]),
            )
    return used > limit + (trio.current_time() - began) * limit / 60 + 1e-6


@pytest.mark.parametrize("seed", range(10))
async def test_schedules_never_overspend(seed: int, autojump_clock: trio.testing.MockClock) -> None:
    assert not await overspent(ReserveThenSettle(400), 400, seed)


async def test_schedules_catch_check_then_spend(autojump_clock: trio.testing.MockClock) -> None:
    assert all([await overspent(CheckThenSpend(400), 400, seed) for seed in range(10)])
