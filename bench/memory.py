"""Does Quiver grow with the requests it has served? Its memory and descriptors before and after many of them."""

import time

from bench.figures import Table
from bench.peers import Lineup
from bench.processes import descriptors, resident
from bench.wrk import load

REQUESTS, QUICK_REQUESTS = 100_000, 10_000
WARM_UP_SECONDS, QUICK_WARM_UP_SECONDS = 3, 1
CONNECTIONS = 16
SETTLE_SECONDS = 1.0
COLUMNS = ("when", "requests", "resident MB", "descriptors")


def measure(lineup: Lineup, *, quick: bool) -> Table:
    """The warm-up fills pools and caches at the same number of connections, so that only growth is left to see."""
    target = lineup.quiver
    load(target, CONNECTIONS, QUICK_WARM_UP_SECONDS if quick else WARM_UP_SECONDS)
    before = _held(target.pid)
    served = 0
    while served < (QUICK_REQUESTS if quick else REQUESTS):
        served += load(target, CONNECTIONS, 1 if quick else 3).requests
    after = _held(target.pid)
    growth = (after[0] - before[0], after[1] - before[1])
    rows = [("before", 0, *before), ("after", served, *after), ("growth", served, *growth)]
    return Table("Memory: Quiver before and after many requests", COLUMNS, rows)


def _held(pid: int) -> tuple[float, int]:
    """Memory and descriptors once the clients' connections are closed."""
    time.sleep(SETTLE_SECONDS)
    return resident(pid), descriptors(pid)
