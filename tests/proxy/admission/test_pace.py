"""The pace of departures."""

import pytest
from quiver.proxy.admission.pace import GUESS, Pace


def test_guess_before_measuring() -> None:
    assert Pace().interval == GUESS


@pytest.mark.parametrize(
    ("departures", "interval"),
    [([12.0], 2.0), ([12.0, 14.0, 16.0], 2.0), ([12.0, 22.0], 3.0), ([10.0], 0.0)],
)
def test_average_of_intervals(departures: list[float], interval: float) -> None:
    pace = Pace()
    pace.begin(10.0)
    for now in departures:
        pace.departed(now)
    assert pace.interval == pytest.approx(interval)


def test_idle_time_does_not_count() -> None:
    pace = Pace()
    pace.begin(0.0)
    pace.departed(2.0)
    pace.begin(1000.0)
    pace.departed(1002.0)
    assert pace.interval == pytest.approx(2.0)


@pytest.mark.parametrize(("now", "interval"), [(3.0, 2.0), (4.0, 2.0), (60.0, 58.0)])
def test_hanging_server_slows_it(now: float, interval: float) -> None:
    pace = Pace()
    pace.begin(0.0)
    pace.departed(2.0)
    assert pace.interval_by(now) == pytest.approx(interval)
