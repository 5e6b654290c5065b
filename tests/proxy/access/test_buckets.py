"""The token bucket, by table and against an exact model."""

from fractions import Fraction
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quiver.proxy.access.buckets import TokenBucket, per_minute

# Multiples of 1/64 up to a few thousand: floats hold every sum and product of them exactly.
EXACT = st.integers(0, 64 * 60).map(lambda count: count / 64)

LEVELS = [
    (0.0, 5.0),
    (0.5, 6.0),
    (2.0, 9.0),
    (2.5, 10.0),
    (1e9, 10.0),
    (-1.0, 5.0),
]


@pytest.mark.parametrize(("now", "expected"), LEVELS)
def test_level_refills_continuously(now: float, expected: float) -> None:
    bucket = TokenBucket(10, 2, 0.0)
    assert bucket.take(5, 0.0)
    assert bucket.level(now) == expected


def test_refused_take_takes_nothing() -> None:
    bucket = TokenBucket(3, 1, 0.0)
    assert not bucket.take(3.5, 0.0)
    assert bucket.level(0.0) == 3
    assert bucket.take(3, 0.0)
    assert not bucket.take(1, 0.9999)
    assert bucket.take(1, 1.0)


WAITS = [
    (0, 0.0),
    (1, 0.0),
    (2, 0.5),
    (10, 4.5),
    (10.5, inf),
]


@pytest.mark.parametrize(("amount", "expected"), WAITS)
def test_wait_is_time_missing(amount: float, expected: float) -> None:
    bucket = TokenBucket(10, 2, 0.0)
    assert bucket.take(9, 0.0)
    assert bucket.wait(amount, 0.0) == expected


def test_given_back_fills_no_further() -> None:
    bucket = TokenBucket(10, 1, 0.0)
    assert bucket.take(8, 0.0)
    bucket.settle(3, 0.0, 0.0)
    assert bucket.level(0.0) == 5
    bucket.settle(8, 0.0, 1.0)
    assert bucket.level(1.0) == 10


SETTLED = [
    (6, 6, 4.0),
    (6, 1, 9.0),
    (6, 0, 10.0),
    (6, 10, 0.0),
    (6, 25, -15.0),
]


@pytest.mark.parametrize(("taken", "used", "expected"), SETTLED)
def test_settling_charges_the_use(taken: float, used: float, expected: float) -> None:
    bucket = TokenBucket(10, 1, 0.0)
    assert bucket.take(taken, 0.0)
    bucket.settle(taken, used, 0.0)
    assert bucket.level(0.0) == expected
    assert bucket.take(0, 0.0) == (expected >= 0)


def test_overuse_is_waited_off() -> None:
    bucket = TokenBucket(10, 1, 0.0)
    assert bucket.take(10, 0.0)
    bucket.settle(10, 15, 0.0)
    assert bucket.wait(1, 0.0) == 6
    assert not bucket.take(1, 5.75)
    assert bucket.take(1, 6.0)


def test_full_at_follows_use() -> None:
    bucket = TokenBucket(10, 2, 100.0)
    assert bucket.full_at() == 100
    assert bucket.take(5, 101.0)
    assert bucket.full_at() == 103.5


def test_ever_full_needs_no_clock() -> None:
    bucket = TokenBucket(10, 2, -inf)
    assert (bucket.level(0.0), bucket.full_at()) == (10, -inf)
    assert bucket.take(10, 0.0)
    assert (bucket.level(1.0), bucket.full_at()) == (2, 5)


def test_minute_refills_whole_limit() -> None:
    bucket = per_minute(90, 0.0)
    assert bucket.take(90, 0.0)
    assert bucket.level(30.0) == 45
    assert bucket.level(60.0) == 90


@pytest.mark.parametrize(("capacity", "refill"), [(0, 1), (1, 0), (-1, 1), (1, -1)])
def test_useless_buckets_are_refused(capacity: float, refill: float) -> None:
    with pytest.raises(ValueError, match="needs a capacity and a refill"):
        TokenBucket(capacity, refill, 0.0)


def test_bucket_shows_its_level() -> None:
    assert repr(TokenBucket(10, 2, 3.5)) == "<TokenBucket: 10 of 10 at 3.5>"


@settings(deadline=None)
@given(capacity=st.integers(1, 64), refill=st.sampled_from([0.25, 1.0, 4.0]), steps=st.lists(st.tuples(EXACT, EXACT)))
def test_levels_equal_exact_model(capacity: int, refill: float, steps: list[tuple[float, float]]) -> None:
    bucket = TokenBucket(capacity, refill, 0.0)
    level, now, taken, clock = Fraction(capacity), Fraction(0), Fraction(0), 0.0
    for pause, amount in steps:
        clock += pause
        level = min(Fraction(capacity), level + (Fraction(clock) - now) * Fraction(refill))
        now = Fraction(clock)
        enough = amount <= level
        assert bucket.take(amount, clock) == enough
        if enough:
            level -= Fraction(amount)
            taken += Fraction(amount)
        assert Fraction(bucket.level(clock)) == level
        assert taken <= capacity + now * Fraction(refill)


@settings(deadline=None)
@given(
    capacity=st.integers(1, 10**7),
    now=st.floats(0, 1e7),
    taken=st.floats(0, 1),
    wanted=st.floats(0, 1),
    overuse=st.integers(0, 10**7),
)
def test_waiting_is_always_enough(capacity: int, now: float, taken: float, wanted: float, overuse: int) -> None:
    bucket = per_minute(capacity, now)
    assert bucket.take(capacity * taken, now)
    bucket.settle(0, overuse, now)
    seconds = bucket.wait(capacity * wanted, now)
    assert seconds <= 60 * (1 + overuse / capacity) * (1 + 1e-9) + 1e-6
    assert bucket.take(capacity * wanted, now + seconds)
