"""What does the gateway cost? Throughput, added latency, streams, memory and hang-ups, next to nginx and LiteLLM in one run.

Everything shares one machine with the load generator and the model servers: read the ratios before the absolute figures.
"""

import argparse
import json
import os
import sys

from bench import disconnect, latency, memory, streams, throughput
from bench.figures import Table, as_data, as_markdown, as_text, environment
from bench.peers import lineup, versions
from bench.running import NotStarted
from bench.targets import BenchmarkError

# In this order: latencies first.
CASES = {
    "latency": latency.measure,
    "throughput": throughput.measure,
    "streams": streams.measure,
    "disconnect": disconnect.measure,
    "memory": memory.measure,
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench gateway", description=__doc__)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document")
    form.add_argument("--markdown", action="store_true", help="print the tables of docs/performance.md")
    parser.add_argument("--quick", action="store_true", help="under two minutes; for trying things out, not for citing")
    parser.add_argument("--without-litellm", action="store_true", help="do not install or measure LiteLLM")
    parser.add_argument("--only", choices=CASES, action="append", help="one case; may be repeated")
    options = parser.parse_args(arguments)
    try:
        conditions, tables = measure(
            options.only or list(CASES), quick=options.quick, with_litellm=not options.without_litellm
        )
    except BenchmarkError as error:
        print(f"error: {error}", *([f"hint: {error.hint}"] if error.hint else []), sep="\n", file=sys.stderr)
        return 1
    except NotStarted as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"environment": conditions, "tables": [as_data(table) for table in tables]}))
    elif options.markdown:
        print("\n\n".join([_sentence(conditions), *(as_markdown(table) for table in tables)]))
    else:
        print("\n\n".join([_sentence(conditions), *(as_text(table) for table in tables)]))
    return 0


def measure(cases: list[str], *, quick: bool, with_litellm: bool) -> tuple[dict[str, str], list[Table]]:
    """What the figures hold for, and a table for each case. Raises `BenchmarkError` or `NotStarted`."""
    busy = f"{os.getloadavg()[0]:.2f}"
    tables = []
    with lineup(with_litellm=with_litellm) as running:
        for case in cases:
            print(f"measuring {case}", file=sys.stderr)
            tables.append(CASES[case](running, quick=quick))
    conditions = {**environment(), **versions(with_litellm=with_litellm), "load at start": busy}
    return conditions | ({"run": "quick"} if quick else {}), tables


def _sentence(conditions: dict[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in conditions.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
