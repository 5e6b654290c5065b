"""What one seed found, in a form that travels between processes."""

import signal
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .scenario import simulate


class Findings:
    """The breaches of one run, and figures about it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.violations: list[str] = []
        self.faults: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.virtual_seconds = 0.0

    def __repr__(self) -> str:
        return f"<Findings seed={self.seed}: {len(self.violations)} violations>"


# Seconds of real time. No run takes a tenth of it, and virtual time does not pass in a task that never lets go.
LONGEST_RUN = 20


class StoodStill(Exception):
    """Some task runs and never waits."""


def try_seed(seed: int) -> Findings:
    """Run one seed. A run that breaks off, or stands still, counts as a violation. For the main thread of a process."""
    findings = Findings(seed)
    try:
        with _alarm():
            result = simulate(seed)
    except Exception:
        findings.violations.append("the run broke off:\n" + traceback.format_exc())
    else:
        findings.violations = result.violations
        findings.faults, findings.outcomes = result.evidence.faults(), result.evidence.outcomes()
        findings.virtual_seconds = result.evidence.virtual_seconds
    return findings


@contextmanager
def _alarm() -> Iterator[None]:
    """Raises `StoodStill`, where the platform has alarms."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise StoodStill(f"the run took more than {LONGEST_RUN} s of real time")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_RUN, 0.1)  # again, for the next task that does the same
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
