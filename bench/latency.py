"""What does each proxy add to one request at a time? One connection to each target, in blocks that take turns."""

from contextlib import ExitStack

from bench import traffic
from bench.client import Client
from bench.figures import Cell, Table, quantile
from bench.peers import Lineup

BLOCKS, QUICK_BLOCKS = 40, 8
BLOCK = 250
# LiteLLM takes some 50 times as long; a tenth of the requests is enough for its p99.
LITELLM_BLOCK = 25
COLUMNS = ("target", "requests", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms")


def measure(lineup: Lineup, *, quick: bool) -> Table:
    request = traffic.request(traffic.ECHO_BODY)
    taken: dict[str, list[float]] = {target.name: [] for target in lineup.targets}
    with ExitStack() as stack:
        clients = {target.name: stack.enter_context(Client(target.echo_port)) for target in lineup.targets}
        for block in range(1 + (QUICK_BLOCKS if quick else BLOCKS)):
            for name, client in clients.items():
                times = [client.ask(request) for _ in range(LITELLM_BLOCK if name == "LiteLLM" else BLOCK)]
                # The first block warms up.
                taken[name] += times if block else []
    return Table("Added latency: one request at a time", COLUMNS, _rows(taken))


def _rows(taken: dict[str, list[float]]) -> list[tuple[Cell, ...]]:
    direct50, direct99 = (quantile(taken["direct"], share) for share in (0.5, 0.99))
    rows: list[tuple[Cell, ...]] = []
    for name, times in taken.items():
        p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
        added = (None, None) if name == "direct" else (p50 - direct50, p99 - direct99)
        rows.append((name, len(times), p50, p99, *added))
    return rows
