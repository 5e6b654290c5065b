"""How busy a backend is: counting, reports carried on to the present, times to the first token."""

from math import exp

import pytest
from quiver.proxy.routing.load import FIRST_GUESS, Load, PeakEwma


@pytest.mark.parametrize(
    ("limit", "in_flight", "full"),
    [(0, 0, False), (0, 1000, False), (1, 0, False), (1, 1, True), (3, 2, False), (3, 3, True)],
)
def test_full_at_limit(limit: int, in_flight: int, full: bool) -> None:
    load = Load(limit=limit)
    for _ in range(in_flight):
        load.taken()
    assert load.full is full


def test_returning_makes_room() -> None:
    load = Load(limit=1)
    load.taken()
    load.returned()
    assert (load.in_flight, load.full) == (0, False)


def test_returned_without_taken() -> None:
    load = Load()
    with pytest.raises(RuntimeError, match="had not been taken"):
        load.returned()
    assert (load.in_flight, load.credit) == (0, 0)


# What happens in order: "+" a request is sent, "-" one comes back, a number or None is reported.
@pytest.mark.parametrize(
    ("events", "pressure"),
    [
        ([], 0),
        (["+", "+"], 2),
        (["+", "+", "-"], 1),
        ([7.0], 7),
        ([7.0, "+", "+"], 9),
        (["+", "+", 7.0], 7),
        (["+", "+", 7.0, "-"], 6),
        ([7.0, "+", "+", "-", "-"], 7),
        ([7.0, "+", 7.0, "+"], 8),
        # A server that reports less than we have on it is asked before it had counted ours.
        (["+", "+", 0.0], 2),
        (["+", "+", 1.0, "-", "-"], 0),
        ([7.0, "+", None], 1),
    ],
)
def test_pressure_from_reports(events: list[str | float | None], pressure: float) -> None:
    load = Load()
    for event in events:
        if event == "+":
            load.taken()
        elif event == "-":
            load.returned()
        else:
            assert not isinstance(event, str)
            load.report(event, now=1.0)
    assert load.pressure() == pressure


def test_report_has_its_time() -> None:
    load = Load()
    load.report(3.0, now=12.5)
    assert (load.reported, load.reported_at) == (3.0, 12.5)


@pytest.mark.parametrize(
    ("observed", "now", "expected"),
    [
        ([], 100.0, FIRST_GUESS),
        ([(0.2, 0.0)], 0.0, 0.2),
        ([(5.0, 0.0)], 0.0, 5.0),
        # A peak counts at once, something better by and by.
        ([(0.2, 0.0), (3.0, 1.0)], 1.0, 3.0),
        ([(3.0, 0.0), (1.0, 0.0)], 0.0, 3.0),
        ([(3.0, 0.0), (1.0, 10.0)], 10.0, 3 * exp(-1) + 1 - exp(-1)),
        # Without news the estimate fades.
        ([(3.0, 0.0)], 10.0, 3 * exp(-1)),
        ([(3.0, 5.0)], 25.0, 3 * exp(-2)),
    ],
)
def test_peak_then_decay(observed: list[tuple[float, float]], now: float, expected: float) -> None:
    first_token = PeakEwma()
    for seconds, at in observed:
        first_token.observe(seconds, at)
    assert first_token.value(now) == pytest.approx(expected)


def test_reading_changes_nothing() -> None:
    read, unread = PeakEwma(), PeakEwma()
    for first_token in (read, unread):
        first_token.observe(2.0, 0.0)
    for now in range(10):
        read.value(float(now))
    for first_token in (read, unread):
        first_token.observe(1.0, 10.0)
    assert read.value(12.0) == unread.value(12.0)


def test_decay_is_chosen() -> None:
    first_token = PeakEwma(decay=1.0)
    first_token.observe(1.0, 0.0)
    assert first_token.value(2.0) == pytest.approx(exp(-2))


def test_status_in_one_line() -> None:
    load = Load(limit=4)
    assert repr(load) == "<Load: 0 of 4 in flight>"
    load.report(2.0, now=0.0)
    load.taken()
    assert repr(load) == "<Load: 1 of 4 in flight, 2 reported, +1 since>"
    assert repr(load.first_token) == "<PeakEwma: nothing observed>"
    load.first_token.observe(0.25, 0.0)
    assert repr(load.first_token) == "<PeakEwma: 0.250 s>"
