"""`python -m quiver.proxy.testing [COUNT] [--first N] [--jobs N]`: many seeds over all cores; `--trace SEED`: one in detail.

Exits with 1 when a promise was broken; each such seed is printed as `seed=N` and gives the same run again.
"""

import argparse
import multiprocessing
import os
import sys
from collections import Counter
from timeit import default_timer

from .findings import Findings, try_seed
from .scenario import simulate

# Seeds that a process takes at a time: enough to make handing them out cheap.
BATCH = 4
SECONDS_AN_HOUR = 3600


def run_seeds(first: int, count: int, jobs: int) -> int:
    """Run `count` seeds from `first` on, tell of violations as they come, then sum up; the exit code."""
    began, total, failed, violations = default_timer(), Findings(first), 0, 0
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for findings in pool.imap(try_seed, range(first, first + count), BATCH):
            total.faults += findings.faults
            total.outcomes += findings.outcomes
            total.virtual_seconds += findings.virtual_seconds
            failed += bool(findings.violations)
            violations += len(findings.violations)
            if findings.violations:
                print(f"seed={findings.seed}", *findings.violations, sep="\n  ", flush=True)
    seconds = default_timer() - began
    print(f"{count} runs in {seconds:.1f} s, {count / seconds:.1f} a second, {jobs} jobs")
    print(f"{total.virtual_seconds / SECONDS_AN_HOUR:.1f} virtual hours")
    print("faults:", _listed(total.faults))
    print("outcomes:", _listed(total.outcomes))
    print(f"{violations} violations in {failed} runs")
    return 1 if failed else 0


def trace(seed: int) -> int:
    """Print what happened in one run; the exit code."""
    result = simulate(seed)
    for at, *what in result.evidence.network.trace:
        print(f"{at:>12}", *what)
    print(result.evidence.plan)
    print(f"seed={seed} {result.fingerprint}", *result.violations, sep="\n  ")
    return 1 if result.violations else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m quiver.proxy.testing", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes; all cores if not given")
    parser.add_argument("--trace", type=int, metavar="SEED", help="run this one and print what happened")
    options = parser.parse_args()
    if options.trace is not None:
        return trace(options.trace)
    return run_seeds(options.first, options.count, options.jobs)


def _listed(counted: Counter[str]) -> str:
    return ", ".join(f"{what} {count}" for what, count in counted.most_common())


if __name__ == "__main__":
    sys.exit(main())
