"""What does logging cost: a call on the event loop's side, and a line for a finished request?

Calls are measured while the writer's thread runs, so waiting for it counts. Request lines are measured with the CPU time of
the thread that makes them, which is how long others may have to wait for the interpreter.
"""

import argparse
import io
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import structlog
from quiver.admin.logs.pipeline import Pipeline
from quiver.admin.logs.redactor import REDACTOR
from quiver.admin.logs.requests import RecordLog
from quiver.admin.logs.setup import configure
from quiver.proxy.telemetry.record import EngineTimings, Record
from quiver.schemas.config import Log

from bench.records import record

CALLS = 20_000
RECORDS = 1_000
ROUNDS = 30
BEGAN = 1_700_000_000.25
TIMINGS = EngineTimings(0.001, 0.02, 0.3, 0.021, 15, 100)


def calls(say: Callable[[int], None]) -> dict[str, float]:
    """Microseconds a call: median, p99 and the longest, at about 5,000 a second."""
    took = []
    for number in range(CALLS):
        began = time.perf_counter()
        say(number)
        took.append(1e6 * (time.perf_counter() - began))
        if number % 50 == 49:
            time.sleep(0.01)
    cuts = statistics.quantiles(took, n=100)
    return {"p50_us": round(cuts[49], 2), "p99_us": round(cuts[98], 2), "max_us": round(max(took), 1)}


def lines(log: RecordLog, records: list[Record]) -> dict[str, float]:
    """CPU microseconds for one line, the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.thread_time()
        log(records)
        best = min(best, time.thread_time() - began)
    return {"cpu_us": round(1e6 * best / len(records), 2), "lines_per_cpu_second": round(len(records) / best)}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench logging", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    as_json = parser.parse_args(arguments).json
    found: dict[str, dict[str, float]] = {}
    REDACTOR.learn(*(f"some-client-key-{number}" for number in range(20)))
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "stderr").open("w") as stderr:
        with configure(Log(), stderr, Path(folder) / "log.jsonl"):
            log = structlog.get_logger(component="x")
            found["call that is logged"] = calls(lambda number: log.info("said", number=number, text="some words"))
            found["call with nested values"] = calls(lambda number: log.info("said", more={"a": [number, {"b": 1}]}))
            found["call below the level"] = calls(lambda number: log.debug("said", number=number, text="some words"))
        quiet = Pipeline(Log(), io.StringIO())
        found["request line"] = lines(
            RecordLog(quiet), [record(number, at=BEGAN + number / 10_000) for number in range(RECORDS)]
        )
        engine = [record(number, at=BEGAN + number / 10_000, engine=TIMINGS) for number in range(RECORDS)]
        found["request line of the engine"] = lines(RecordLog(quiet), engine)
    if as_json:
        print(json.dumps({"python": platform.python_version(), "cases": found}))
        return 0
    print(f"Python {platform.python_version()}, {platform.machine()}")
    for name, figures in found.items():
        print(f"{name:28}", "  ".join(f"{unit} {value:,}" for unit, value in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
