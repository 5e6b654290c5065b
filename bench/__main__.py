"""`python -m bench [QUESTION] [options]`: one file per question, all of them when none is named."""

import sys

from bench import admin, engine, gateway, logging_cost, store
from bench.engine import models

QUESTIONS = {
    "gateway": gateway.main,
    "engine": engine.main,
    "store": store.main,
    "admin": admin.main,
    "logging": logging_cost.main,
}
# What answers no question, but makes what one is asked with.
TOOLS = {"engine-models": models.main}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        return max(question(arguments) for question in QUESTIONS.values())
    name, *options = arguments
    known = QUESTIONS | TOOLS
    if name not in known:
        print(f"error: no benchmark is called `{name}`\nhint: there are {', '.join(known)}", file=sys.stderr)
        return 2
    return known[name](options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
