"""Does everything that Python can do with a model file, in a process that may die of it: a path a line in, and out what came of
each call: `ok` or the name of the exception.
"""

import json
import select
import sys
from collections.abc import Callable

from quiver._engine import Engine, Failed, Finished, detokenize, evaluate, render_chat, tokenize

REQUEST = json.dumps({"prompt": {"tokens": [0, 1, 2]}, "max_tokens": 2, "temperature": 0.0}).encode()
MESSAGES = json.dumps([{"role": "user", "content": "the thing"}]).encode()


def generate(path: str) -> None:
    """A short answer from a running engine."""
    engine = Engine(path, threads=1, max_sequences=1)
    try:
        engine.submit(REQUEST)
        while True:
            select.select([engine.fd], [], [])
            if any(isinstance(event, Finished | Failed) for event in engine.drain()):
                return
    finally:
        engine.close()


CALLS: tuple[Callable[[str], object], ...] = (
    lambda path: tokenize(path, "the thing caf\u00e9", add_special=True, parse_special=True),
    lambda path: detokenize(path, [0, 1, 255]),
    lambda path: render_chat(path, MESSAGES),
    lambda path: evaluate(path, [0, 1]),
    generate,
)


def outcome(call: Callable[[str], object], path: str) -> str:
    try:
        call(path)
    except BaseException as error:  # a panic is no Exception
        return type(error).__name__
    return "ok"


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps([outcome(call, line.rstrip("\n")) for call in CALLS]), flush=True)
