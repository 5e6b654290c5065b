"""Times on the command line: read in every form that a person may write, and shown short."""

import time

import pytest
from quiver.admin.cli.times import moment, seconds_in, took
from quiver.admin.configuration.complaint import SettingsError

SPANS = [("30d", 2_592_000), ("12h", 43_200), ("1.5h", 5400), ("90 s", 90), ("2W", 1_209_600), (" 10m", 600), ("0", 0)]


@pytest.mark.parametrize(("text", "seconds"), SPANS)
def test_lengths_are_read(text: str, seconds: float) -> None:
    assert seconds_in("--for", text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-5", "5y", "1e3", "5"])
def test_what_is_no_length(text: str) -> None:
    with pytest.raises(SettingsError, match=f"`--for`: expected a length of time, got `{text}`"):
        seconds_in("--for", text)


def test_moments_are_read() -> None:
    assert moment("--since", "1700000000.5") == 1_700_000_000.5
    assert moment("--since", "2026-01-31T12:00:00+00:00") == 1_769_860_800
    assert abs(time.time() - 7200 - moment("--since", "2h")) < 60
    assert moment("--since", "999999d") == 0
    with pytest.raises(SettingsError, match="`--since`: expected a time, got `soon`"):
        moment("--since", "soon")


@pytest.mark.parametrize(("seconds", "words"), [(None, "-"), (0.00431, "4.31 ms"), (1.234, "1.23 s"), (200, "3m 20s")])
def test_durations_have_three_digits(seconds: float | None, words: str) -> None:
    assert took(seconds) == words
