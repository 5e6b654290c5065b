"""`python -m bench QUESTION [--json]`: one file per question, all of them when none is named."""

import sys

from bench import engine, gateway

QUESTIONS = {"gateway": gateway.main, "engine": engine.main}


def main(arguments: list[str]) -> int:
    named = [argument for argument in arguments if not argument.startswith("-")]
    options = [argument for argument in arguments if argument.startswith("-")]
    unknown = [name for name in named if name not in QUESTIONS]
    if unknown:
        print(f"error: no benchmark is called `{unknown[0]}`\nhint: there are {', '.join(QUESTIONS)}", file=sys.stderr)
        return 2
    return max(QUESTIONS[name](options) for name in named or QUESTIONS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
