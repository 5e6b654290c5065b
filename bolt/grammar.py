"""The small notation in which questions are written: `{one|of|these}`, `[maybe this]`, `<word from a list>`.

Pure text in, pure text out; chance comes in as the `Random` of the caller.
"""

from __future__ import annotations

import re
from random import Random

Lists = dict[str, list[str]]

_CHOICE = re.compile(r"\{([^{}]*)\}")
_OPTIONAL = re.compile(r"\[([^\[\]{}]*)\]")
_WORD = re.compile(r"<(\w+)>")
# Section names of quiver.toml stand in questions too and are no optional parts.
_LITERAL = re.compile(r"\[(\[\w+\]|auth|\.\.\.|Errno 98)\]")


def lines(text: str) -> list[str]:
    """The non-empty lines of a block, without surrounding blanks."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def expand(pattern: str, random: Random, lists: Lists | None = None) -> str:
    """One sentence of the pattern."""
    text = _LITERAL.sub(lambda match: f"\x01{match[1].replace('[', chr(1)).replace(']', chr(2))}\x02", pattern)
    while True:
        if lists and (match := _WORD.search(text)):
            chosen = random.choice(lists[match[1]]).replace("_", " ")
        elif match := _OPTIONAL.search(text):
            chosen = random.choice(match[1].split("|")) if random.random() < 0.5 else ""
        elif match := _CHOICE.search(text):
            chosen = random.choice(match[1].split("|"))
        else:
            break
        text = text[: match.start()] + chosen + text[match.end() :]
    return tidy(text.replace("\x01", "[").replace("\x02", "]"))


def tidy(text: str) -> str:
    """Single blanks, none before a comma."""
    return re.sub(r"\s+([,?!])", r"\1", re.sub(r"\s+", " ", text)).strip()


def plain(text: str) -> str:
    """The letters and digits of a question in lower case: two questions with the same plain form count as one."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))
