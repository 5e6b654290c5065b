"""`python -m bench [QUESTION] [options]`: one file per question, all of them when none is named."""

import sys

from bench import engine, gateway

QUESTIONS = {"gateway": gateway.main, "engine": engine.main}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        return max(question(arguments) for question in QUESTIONS.values())
    name, *options = arguments
    if name not in QUESTIONS:
        print(f"error: no benchmark is called `{name}`\nhint: there are {', '.join(QUESTIONS)}", file=sys.stderr)
        return 2
    return QUESTIONS[name](options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
