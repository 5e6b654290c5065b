"""How fast does the admin API answer, with 50 servers and 1,000,000 requests in the history, while 1,000 req/s pass through?

The questions take turns, one at a time over one connection, so that a noisy neighbour hits them alike.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench import nginx, traffic
from bench.client import Client
from bench.figures import Table, as_data, as_text, environment, quantile
from bench.filling import MODELS, SERVERS, fill
from bench.processes import free_ports
from bench.running import Running, gateway
from bench.targets import BenchmarkError

RATE, ROUNDS, SECONDS = 1000.0, 5, 20.0
# Each question is asked so often over one connection.
TURNS = 20
KEY = "bench-admin-key"
COLUMNS = ("question", "asked", "p50 ms", "p99 ms")
QUESTIONS = {
    "health, to compare with": "/health",
    "stats": "/admin/stats",
    "servers": "/admin/servers",
    "one server": "/admin/servers/server-07",
    "history": "/admin/history",
    "history of a model": "/admin/history?model=model-3",
    "history of a key": "/admin/history?client=student-07",
    "failed requests": "/admin/history?troubled=true",
    "one request": "/admin/history/11111111-2222-4333-a444-0000000003e8",
    "by model, a month": "/admin/history/aggregate?by=model",
    "by key, a day": "/admin/history/aggregate?by=client&since={day}",
    "by model and hour, a day": "/admin/history/aggregate?by=model&by=hour&since={day}",
    "by hour, a day": "/admin/history/aggregate?by=hour&since={day}",
    "errors": "/admin/errors",
    "events": "/admin/events",
    "store": "/admin/store",
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench admin", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000, help="in the history")
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second through the gateway; 0 for none")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--folder", type=Path, help="keep the filled store here, and use it if it is there")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="quiver-admin-") as passing:
        folder = options.folder or Path(passing)
        data = folder / "data"
        if not data.exists():
            data.mkdir(parents=True)
            print(f"filling took {fill(data, options.requests):.0f} s", file=sys.stderr)
        with _running(folder) as running:
            tables = _measure(running, options.rate, options.rounds)
    if options.json:
        print(json.dumps({"environment": environment(), "tables": [as_data(table) for table in tables]}))
    else:
        print(", ".join(f"{name} {value}" for name, value in environment().items()))
        print("\n\n".join(as_text(table) for table in tables))
    return 0


@contextmanager
def _running(folder: Path) -> Iterator[Running]:
    ports = free_ports(SERVERS)
    backends = "".join(
        f'[[backends]]\nname = "server-{number:02}"\nurl = "http://127.0.0.1:{port}"\n'
        f'models = ["model-{number * MODELS // SERVERS}"]\n'
        for number, port in enumerate(ports)
    )
    with nginx.nginx(nginx.echo_server(ports), ports[0]), gateway(_CONFIG + backends, folder=folder) as running:
        yield running


def _measure(running: Running, rate: float, rounds: int) -> list[Table]:
    """Each round is a time of load of its own; figures are medians of the rounds'."""
    port = int(running.url.rpartition(":")[2])
    taken: dict[str, list[list[float]]] = {name: [] for name in QUESTIONS}
    loads = []
    for turn in range(rounds + 1):
        with _load(port, rate) as load:
            found = _ask_all(port, SECONDS if turn else SECONDS / 4)
        if turn:  # the first one warms up
            loads.append(json.loads(load.stdout.read()) if load is not None and load.stdout is not None else {})
            for name, times in found.items():
                taken[name].append(times)
    rows = [
        (
            name,
            sum(len(times) for times in turns),
            median(quantile(times, 0.5) for times in turns),
            median(quantile(times, 0.99) for times in turns),
        )
        for name, turns in taken.items()
    ]
    tables = [Table(f"The admin API under {rate:,.0f} req/s", COLUMNS, rows)]
    if rate:
        through = [(sum(load["answered"] for load in loads), sum(load["failed"] for load in loads))]
        row = (*through[0], median(load["p50"] for load in loads), median(load["p99"] for load in loads))
        tables.append(Table("The traffic meanwhile", ("answered", "failed", "p50 ms", "p99 ms"), [row]))
    return tables


@contextmanager
def _load(port: int, rate: float) -> Iterator[subprocess.Popen[bytes] | None]:
    if not rate:
        yield None
        return
    models = [f"model-{number}" for number in range(MODELS)]
    command = [sys.executable, "-m", "bench.openloop", str(port), str(rate), str(SECONDS + 2), *models]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE)
    try:
        time.sleep(1)
        yield process
        process.wait(60)
    finally:
        process.kill()


def _ask_all(port: int, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each question, asked in turn for some seconds."""
    day = str(int(time.time() - 86_400))
    asked = {name: _request(path.format(day=day)) for name, path in QUESTIONS.items()}
    times: dict[str, list[float]] = {name: [] for name in asked}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with Client(port) as client:  # the gateway closes a connection after a thousand requests
            for _ in range(TURNS):
                for name, request in asked.items():
                    try:
                        times[name].append(client.ask(request))
                    except BenchmarkError as error:
                        raise BenchmarkError(f"{name}: {error}") from None
                    time.sleep(0.002)
    return times


def _request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {KEY}\r\n\r\n".encode()


_CONFIG = f"""
[engine]
bolt = false
[log]
format = "json"
[auth]
admin_key = "{KEY}"
[reuse]
share = false
[[keys]]
name = "bench"
key = "{traffic.KEY}"
"""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
