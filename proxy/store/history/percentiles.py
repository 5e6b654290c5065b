"""How long things took, as counts below fixed bounds: counts of many hours add up, and percentiles are read from the sum.

A roll-up has a column for each bound that counts what was not above it, so a percentile is found by looking for its rank.
Five bounds a decade: an answer is off by a quarter at most, by far less where values lie evenly between two bounds.
"""

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

STEP = 10 ** (1 / 5)


def _bounds(first: float, count: int) -> tuple[float, ...]:
    return tuple(float(f"{first * STEP**index:.3g}") for index in range(count))


# From a millisecond to ten minutes, and from a token in ten seconds to ten thousand a second.
SECONDS = _bounds(0.001, 30)
RATES = _bounds(0.1, 26)


class Figure(msgspec.Struct, frozen=True):
    """One thing that is measured of requests: its columns in the roll-ups are `prefix` and a number."""

    name: str
    prefix: str
    bounds: tuple[float, ...]

    @property
    def columns(self) -> list[str]:
        return [f"{self.prefix}{index}" for index in range(len(self.bounds))]


DURATION = Figure("duration", "d", SECONDS)
FIRST_BYTE = Figure("first_byte", "f", SECONDS)
SPEED = Figure("speed", "s", RATES)
FIGURES = (DURATION, FIRST_BYTE, SPEED)
QUANTILES = (0.5, 0.9, 0.95, 0.99)


def quantiles(bounds: tuple[float, ...], below: Sequence[int], count: int, most: float) -> list[float]:
    """`QUANTILES` of `count` values, of which `below[i]` were not above `bounds[i]`; the largest was `most`.

    Between two bounds values are taken to lie evenly on a logarithmic scale. `count` is not 0.
    """
    found = []
    for share in QUANTILES:
        rank = share * count
        place = bisect_left(below, rank)
        if place == len(bounds):
            found.append(most)
            continue
        before = below[place - 1] if place else 0
        part = (rank - before) / (below[place] - before)
        low, high = bounds[place] / STEP, min(bounds[place], most)
        found.append(low * (high / low) ** part if low < high else high)
    return found
