"""Whole gateways in seeded storms: no promise is broken, and the same seed is always the same run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from quiver.proxy.testing.findings import try_seed
from quiver.proxy.testing.scenario import simulate

REGRESSIONS = [
    int(line.split()[0])
    for line in (Path(__file__).parent / "regressions.txt").read_text().splitlines()
    if not line.startswith("#")
]
SEEDS = range(48)
CANARIES = range(100, 120)
FINGERPRINTS = (
    "from quiver.proxy.testing.scenario import simulate\nfor seed in range({}, {}): print(simulate(seed).fingerprint)"
)


@pytest.mark.parametrize("seed", [*SEEDS, *REGRESSIONS])
def test_promises_hold(seed: int) -> None:
    assert try_seed(seed).violations == [], f"python -m quiver.proxy.testing --trace {seed}"


def test_same_seed_same_run() -> None:
    once = [simulate(seed).fingerprint for seed in CANARIES]
    assert once == [simulate(seed).fingerprint for seed in CANARIES]
    assert len(set(once)) == len(CANARIES)


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_same_run_in_any_process(hash_seed: str) -> None:
    code = FINGERPRINTS.format(CANARIES.start, CANARIES.stop)
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.split() == [simulate(seed).fingerprint for seed in CANARIES]


def test_storms_are_varied() -> None:
    """What never happens is never tested: a change that stops the faults or the work must not go unnoticed."""
    results = [simulate(seed) for seed in SEEDS]
    faults = sum((result.evidence.faults() for result in results), start=results[0].evidence.faults())
    outcomes = sum((result.evidence.outcomes() for result in results), start=results[0].evidence.outcomes())
    for fault in ("refused", "black_hole", "reset", "eof", "stall", "server cut", "operator crash", "operator replace"):
        assert faults[fault], fault
    for outcome in (
        "completed",
        "client_gone",
        "upstream_timeout",
        "queue_full",
        "rate_limit_exceeded",
        "shutting_down",
    ):
        assert outcomes[outcome], outcome
    assert outcomes["completed"] > sum(outcomes.values()) / 3


def test_scheduler_is_left_alone() -> None:
    from trio._core import _run

    before = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate()
    simulate(0)
    assert (_run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate()) == before
