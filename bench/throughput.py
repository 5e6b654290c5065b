"""How many small requests a second pass through, at 1, 16 and 64 connections, and how long each takes under that load?

All targets take turns in short rounds, so that a noisy neighbour hits them alike; each figure is the median of its rounds.
"""

from statistics import median

from bench.figures import Cell, Table
from bench.peers import Lineup
from bench.targets import Target
from bench.wrk import Load, load

CONNECTIONS = (1, 16, 64)
ROUNDS, SECONDS = 5, 2
QUICK_ROUNDS, QUICK_SECONDS = 1, 1
COLUMNS = ("target", "connections", "p50 ms", "p99 ms", "requests/s", "of nginx", "of LiteLLM")


def measure(lineup: Lineup, *, quick: bool) -> Table:
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if quick else (ROUNDS, SECONDS)
    for target in lineup.targets:
        load(target, CONNECTIONS[-1], 1)
    rows: list[tuple[Cell, ...]] = []
    for connections in CONNECTIONS:
        turns = [[load(target, connections, seconds) for target in lineup.targets] for _ in range(rounds)]
        rows += _rows(lineup.targets, connections, turns)
    return Table("Throughput: small unstreamed requests", COLUMNS, rows)


def _rows(targets: list[Target], connections: int, turns: list[list[Load]]) -> list[tuple[Cell, ...]]:
    """A row for each target; `turns` has each round's loads in the order of the targets."""
    loads = {target.name: column for target, column in zip(targets, zip(*turns, strict=True), strict=True)}
    rates = {name: median(load.rate for load in column) for name, column in loads.items()}
    return [
        (
            name,
            connections,
            median(load.p50 for load in column),
            median(load.p99 for load in column),
            rates[name],
            rates[name] / rates["nginx"],
            rates[name] / rates["LiteLLM"] if "LiteLLM" in rates else None,
        )
        for name, column in loads.items()
    ]
