"""How fast does the engine read prompts and write answers? One model, several prompt and batch sizes, no HTTP."""

import argparse
import json
import select
import sys
import time
from collections.abc import Sequence

from quiver.proxy.local.backend import BOLT
from quiver.proxy.native import Engine, Failed, Finished, Text

from bench.figures import Row, report, row

PROMPTS = (128, 512, 1024)
BATCHES = (1, 4, 8)
GENERATED = 64
REPEATS = 3


def run(engine: Engine, prompt: Sequence[int], generate: int, streams: int) -> tuple[list[float], float, list[float]]:
    """`streams` equal requests together: gaps between events, seconds in all, seconds to each first token."""
    document = {
        "prompt": {"tokens": list(prompt)},
        "max_tokens": generate,
        "temperature": 0.0,
        "ignore_eos": True,
        "window": generate,
    }
    began = time.perf_counter()
    open_requests = {engine.submit(json.dumps(document).encode()) for _ in range(streams)}
    gaps, firsts, last = [], [], began
    while open_requests:
        select.select([engine.fd], [], [])
        for event in engine.drain():
            if isinstance(event, Failed):
                raise RuntimeError(event.message)
            if isinstance(event, Text):
                now = time.perf_counter()
                gaps.append(now - last)
                last = now
            if isinstance(event, Finished):
                firsts.append(event.first_token_seconds)
                open_requests.discard(event.request)
    return gaps, time.perf_counter() - began, firsts


def prompt_rows(engine: Engine) -> list[Row]:
    """Reading prompts: time to the first token."""
    rows = []
    for size in PROMPTS:
        firsts = [run(engine, _tokens(size, seed), 1, 1)[2][0] for seed in range(REPEATS)]
        rows.append(row(f"prompt of {size}", firsts, size * len(firsts) / sum(firsts), "tokens/s"))
    return rows


def batch_rows(engine: Engine) -> list[Row]:
    """Writing answers: gaps between events, tokens per second of all streams together."""
    rows = []
    for streams in BATCHES:
        gaps, seconds, _ = run(engine, _tokens(16, streams), GENERATED, streams)
        rows.append(row(f"{streams} streams of {GENERATED}", gaps, streams * GENERATED / seconds, "tokens/s"))
    return rows


def _tokens(size: int, seed: int) -> list[int]:
    return [10 + (index * 7 + seed * 31) % 1000 for index in range(size)]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench engine")
    parser.add_argument("--model", default=BOLT.path, help="a GGUF file; the built-in model when left out")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    engine = Engine(options.model)
    try:
        run(engine, _tokens(64, 0), 8, 1)
        report(prompt_rows(engine) + batch_rows(engine), as_json=options.json)
    finally:
        engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
