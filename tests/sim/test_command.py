"""`python -m quiver.proxy.testing`, as a person runs it."""

import re
import subprocess
import sys

import pytest
from quiver.proxy.testing.scenario import simulate


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "quiver.proxy.testing", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# Arguments and what has to be printed.
COMMANDS: list[tuple[tuple[str, ...], str]] = [
    (("3", "--first", "7", "--jobs", "2"), r"3 runs in [\d.]+ s, [\d.]+ a second, 2 jobs\n[\d.]+ virtual hours\n"),
    (("1", "--jobs", "1"), r"faults: .*\noutcomes: .*\n0 violations in 0 runs\n"),
    (("--trace", "7"), rf"connect 1 .*\n(.*\n)+seed=7 {simulate(7).fingerprint}\n"),
]


@pytest.mark.parametrize(("arguments", "printed"), COMMANDS)
def test_command_tells_what_it_found(arguments: tuple[str, ...], printed: str) -> None:
    assert re.search(printed, run(*arguments))
