"""Percentiles from counts below bounds are right to a quarter, whatever the values."""

from bisect import bisect_right
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quiver.proxy.store.history.percentiles import QUANTILES, RATES, SECONDS, STEP, quantiles

VALUES = st.lists(st.floats(min_value=0.001, max_value=600), min_size=1, max_size=300)


def counted(values: list[float], bounds: tuple[float, ...]) -> list[int]:
    ordered = sorted(values)
    return [bisect_right(ordered, bound) for bound in bounds]


@given(VALUES)
def test_percentiles_are_near(values: list[float]) -> None:
    ordered = sorted(values)
    found = quantiles(SECONDS, counted(values, SECONDS), len(values), ordered[-1])
    for share, value in zip(QUANTILES, found, strict=True):
        true = ordered[ceil(share * len(values)) - 1]
        assert true / (STEP * 1.01) <= value <= true * STEP * 1.01
    assert found == sorted(found)
    assert found[-1] <= ordered[-1]


def test_values_beyond_the_bounds_are_the_largest() -> None:
    assert quantiles(SECONDS, [0] * len(SECONDS), 3, 5000.0) == [5000.0] * 4


def test_even_values_are_nearly_right() -> None:
    values = [number / 100 for number in range(1, 2001)]
    p50, p90, _, p99 = quantiles(SECONDS, counted(values, SECONDS), len(values), 20.0)
    assert (p50, p90, p99) == pytest.approx((10, 18, 19.8), rel=0.1)


@pytest.mark.parametrize("bounds", [SECONDS, RATES])
def test_bounds_are_five_a_decade(bounds: tuple[float, ...]) -> None:
    assert all(high / low == pytest.approx(STEP, rel=0.01) for low, high in pairwise(bounds))
