"""What does the store cost? Records a second that it takes in, and what it adds to requests at 1,000 a second.

For the second question two gateways run beside each other, one of which keeps nothing; they get the same traffic in turns.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import trio
from quiver.proxy.store.store import Store
from quiver.proxy.telemetry.record import Record
from quiver.schemas import config

from bench import nginx, traffic
from bench.figures import Table, as_data, as_text, environment
from bench.processes import cpu_seconds, free_ports
from bench.records import record
from bench.running import Running, gateway

RATE, ROUNDS, SECONDS = 1000.0, 15, 4.0
COUNT = 40_000
SERVERS = 4
# A gateway that keeps no requests; all else is as it is.
WITHOUT = "from quiver.proxy.store.store import Store; Store.keep_records = lambda self, records: None"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench store", description=__doc__)
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second through the gateways")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    tables = [_intake(), _added(options.rate, options.rounds)]
    if options.json:
        print(json.dumps({"environment": environment(), "tables": [as_data(table) for table in tables]}))
    else:
        print(", ".join(f"{name} {value}" for name, value in environment().items()))
        print("\n\n".join(as_text(table) for table in tables))
    return 0


def _intake() -> Table:
    """How fast records are taken, of 8 models, 12 keys and 16 servers, written as fast as they can be."""
    began = time.time()
    records = [
        record(
            number,
            at=began + number / 1000,
            client=f"student-{number % 12}",
            model=f"model-{number % 8}",
            server=f"server-{number % 16}",
            duration=0.01 + number % 97 / 10,
        )
        for number in range(COUNT)
    ]
    with tempfile.TemporaryDirectory(prefix="quiver-store-") as folder:
        seconds = trio.run(_write, Path(folder), records)
    return Table("Intake: records as fast as they are taken", ("records", "records/s"), [(COUNT, COUNT / seconds)])


async def _write(folder: Path, records: list[Record]) -> float:
    store = Store.open(folder, config.Store(), time.time)
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write)
        store.keep_records(records)
        await store.wait_written()
        seconds = time.perf_counter() - began
        store.close()
    assert store.statistics().dropped == 0
    return seconds


def _added(rate: float, rounds: int) -> Table:
    taken: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    with ExitStack() as stack:
        ports = free_ports(SERVERS)
        stack.enter_context(nginx.nginx(nginx.echo_server(ports), ports[0]))
        config = _CONFIG + "".join(
            f'[[backends]]\nname = "s{port}"\nurl = "http://127.0.0.1:{port}"\nmodels = ["echo"]\n' for port in ports
        )
        running = {
            "without": stack.enter_context(_without(config)),
            "with": stack.enter_context(gateway(config)),
        }
        for turn in range(rounds + 1):
            for name in sorted(running, reverse=bool(turn % 2)):
                used = cpu_seconds(running[name].process.pid)
                found = _load(running[name], rate)
                found["cpu"] = (cpu_seconds(running[name].process.pid) - used) / found["answered"] * 1e6
                if turn:  # the first one warms up
                    taken[name].append(found)
    rows = [
        (
            name,
            sum(each["answered"] for each in found),
            sum(each["failed"] for each in found),
            *(median(each[figure] for each in found) for figure in ("p50", "p99", "cpu")),
        )
        for name, found in taken.items()
    ]
    added = median(
        (kept["p99"] - bare["p99"]) / bare["p99"] for kept, bare in zip(taken["with"], taken["without"], strict=True)
    )
    columns = ("store", "answered", "failed", "p50 ms", "p99 ms", "processor us a request")
    return Table(f"{rate:,.0f} req/s through the gateway; p99 of pairs differs by {added:+.1%}", columns, rows)


def _load(running: Running, rate: float) -> dict[str, float]:
    port = running.url.rpartition(":")[2]
    command = [sys.executable, "-m", "bench.openloop", port, str(rate), str(SECONDS)]
    told = subprocess.run(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, check=True).stdout
    found: dict[str, float] = json.loads(told)
    return found


@contextmanager
def _without(config: str) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="quiver-bare-") as folder:
        start = Path(folder) / "bare.py"
        start.write_text(f"{WITHOUT}\nfrom quiver.admin.__main__ import main\nmain()\n")
        with gateway(config, folder=Path(folder), program=(str(start),)) as running:
            yield running


_CONFIG = f"""
[engine]
bolt = false
[log]
format = "json"
[reuse]
share = false
[[keys]]
name = "bench"
key = "{traffic.KEY}"
"""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
