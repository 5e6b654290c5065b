"""Asks the held-out questions and counts the answers that hold the fact's key strings.

`python -m bolt.evaluate` answers with the GGUF file in JAX and writes `evaluation.json`; with `--url` it asks an
OpenAI-compatible endpoint instead, such as a running Quiver, one question at a time, and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bolt import corpus, export, generate, model, tokenizer
from bolt.corpus import Fact

HERE = Path(__file__).parent
FILE = HERE.parent / "python" / "quiver" / "models" / "bolt.gguf"
VOCABULARY = HERE / "build" / "tokenizer.json"
LIMIT = 128

Ask = Callable[[list[list[dict[str, str]]]], list[str]]


@dataclass(frozen=True)
class Case:
    """One question of the evaluation, in the setting in which it is asked."""

    fact: Fact
    question: str
    messages: list[dict[str, str]]


def cases(data: corpus.Corpus, setting: str) -> list[Case]:
    """All held-out questions: `alone`, under a `system` prompt, or as the `second` turn after another question."""
    made: list[Case] = []
    for number, fact in enumerate([*data.facts, data.off_topic]):
        before = data.facts[(number + 17) % len(data.facts)]
        for question in fact.held_out:
            messages = [{"role": "user", "content": question}]
            if setting == "system":
                messages.insert(0, {"role": "system", "content": "You are a helpful assistant."})
            if setting == "second":
                earlier = before.held_out[0]
                messages[:0] = [
                    {"role": "user", "content": earlier},
                    {"role": "assistant", "content": before.answer},
                ]
            made.append(Case(fact, question, messages))
    return made


def ask_file(path: Path) -> Ask:
    """Answers from the weights in the file, computed by the training framework."""
    shape, weights = export.read(path)
    words = tokenizer.load(VOCABULARY)
    end = words.encode(tokenizer.END, add_special_tokens=False).ids[0]

    def render(messages: list[dict[str, str]]) -> list[int]:
        turns = "".join(f"{tokenizer.START}{m['role']}\n{m['content']}{tokenizer.END}\n" for m in messages)
        ids: list[int] = words.encode(f"{turns}{tokenizer.START}assistant\n", add_special_tokens=False).ids
        return ids

    def ask(batch: list[list[dict[str, str]]]) -> list[str]:
        answers = generate.greedy(shape, weights, [render(messages) for messages in batch], end=end, limit=LIMIT)
        return [words.decode(answer) for answer in answers]

    return ask


def ask_url(base: str, name: str, key: str | None) -> Ask:
    """Answers from `base`/v1/chat/completions at temperature 0."""

    def one(messages: list[dict[str, str]]) -> str:
        body = {"model": name, "messages": messages, "temperature": 0, "max_tokens": LIMIT}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        target = f"{base.removesuffix('/').removesuffix('/v1')}/v1/chat/completions"
        request = urllib.request.Request(target, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return str(json.load(reply)["choices"][0]["message"]["content"])

    return lambda batch: [one(messages) for messages in batch]


def misses(asked: list[Case], answers: list[str]) -> list[tuple[Case, str]]:
    """The cases whose answer lacks a key string."""
    pairs = zip(asked, answers, strict=True)
    return [(case, answer) for case, answer in pairs if not all(key in answer for key in case.fact.keys)]


def measure(data: corpus.Corpus, ask: Ask, setting: str, *, show: bool) -> dict[str, float]:
    """Counts and shares for one setting; `show` prints each wrong answer."""
    asked = cases(data, setting)
    wrong = misses(asked, ask([case.messages for case in asked]))
    if show:
        for case, answer in wrong:
            print(f"  {case.fact.name}: {case.question}\n      -> {answer[:110]!r}")
    other = sum(case.fact is data.off_topic for case in asked)
    wrong_other = sum(case.fact is data.off_topic for case, _ in wrong)
    total, right = len(asked) - other, len(asked) - other - (len(wrong) - wrong_other)
    return {
        "held_out": total,
        "right": right,
        "share": round(right / total, 4),
        "off_topic_held_out": other,
        "honest": other - wrong_other,
        "off_topic_share": round((other - wrong_other) / other, 4),
    }


def report(data: corpus.Corpus, ask: Ask, *, show: bool) -> dict[str, dict[str, float]]:
    """All settings, printed as they are done."""
    results = {}
    for setting in ("alone", "system", "second"):
        print(f"asked {setting}:", flush=True)
        results[setting] = measure(data, ask, setting, show=show)
        print(f"  {results[setting]}", flush=True)
    return results


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="ask this endpoint instead of the file")
    parser.add_argument("--model", default="bolt")
    parser.add_argument("--key")
    parser.add_argument("--quiet", action="store_true", help="do not print the wrong answers")
    options = parser.parse_args()
    _, weights = export.read(FILE)
    data = corpus.load()
    if options.url:
        report(data, ask_url(options.url, options.model, options.key), show=not options.quiet)
        return
    results = report(data, ask_file(FILE), show=not options.quiet)
    figures = {"weights": model.count(weights), "file_bytes": FILE.stat().st_size, "facts": len(data.facts)} | results
    (HERE / "evaluation.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
