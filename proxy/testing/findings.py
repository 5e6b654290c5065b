"""What one seed found, in a form that travels between processes."""

import traceback
from collections import Counter

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


def try_seed(seed: int) -> Findings:
    """Run one seed. A run that breaks off counts as a violation."""
    findings = Findings(seed)
    try:
        result = simulate(seed)
    except Exception:
        findings.violations.append("the run broke off:\n" + traceback.format_exc())
    else:
        findings.violations = result.violations
        findings.faults, findings.outcomes = result.evidence.faults(), result.evidence.outcomes()
        findings.virtual_seconds = result.evidence.virtual_seconds
    return findings
