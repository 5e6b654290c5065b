"""How people really type: other words, dropped words, slips of the finger, missing or wild punctuation.

The words themselves are in `noise.toml`. Each function takes a question and a `Random` and returns a question that
still asks for the same fact.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from random import Random

_TABLES = tomllib.loads((Path(__file__).parent / "noise.toml").read_text())


def _alternatives(text: str) -> list[str]:
    return text.replace("\n", "").split("|")


# Each phrase of a group, with the whole group.
_GROUPS = [
    (re.compile(rf"\b{re.escape(phrase)}\b"), line.split("|"))
    for line in _TABLES["same"].split("\n")
    for phrase in line.split("|")
    if phrase
]
_NAMES = _alternatives(_TABLES["names"])
_BEFORE = _alternatives(_TABLES["before"])
_AFTER = _alternatives(_TABLES["after"])
_AFTER_OURS = _alternatives(_TABLES["after_ours"])
_FILLERS = set(_alternatives(_TABLES["fillers"]))
_NEIGHBOURS: dict[str, str] = _TABLES["neighbours"]


def reword(text: str, random: Random, rate: float = 0.45) -> str:
    """Swaps phrases for others of their group."""
    found = [(match, group) for pattern, group in _GROUPS if (match := pattern.search(text))]
    random.shuffle(found)
    end_of_last = len(text) + 1
    for match, group in sorted(found[:2], key=lambda item: -item[0].start()):
        if match.end() < end_of_last and random.random() < rate:
            text = text[: match.start()] + random.choice(group) + text[match.end() :]
            end_of_last = match.start()
    return text


def rename(text: str, random: Random) -> str:
    """Speaks of Quiver as people do who have just mentioned it."""
    return re.sub(r"\bquiver\b(?! (serve|chat|models|status)|[-.])", lambda _: random.choice(_NAMES), text, count=1)


def drop_words(text: str, random: Random) -> str:
    """Leaves out a few small words, rarely another one."""
    words = text.split()
    if len(words) < 4:
        return text
    kept = [word for word in words if random.random() > (0.35 if word.lower() in _FILLERS else 0.04)]
    return " ".join(kept) if len(kept) > 2 else text


def shuffle_parts(text: str, random: Random) -> str:
    """Exchanges two neighbouring words, as one does in a foreign language."""
    words = text.split()
    if len(words) < 4:
        return text
    place = random.randrange(len(words) - 1)
    words[place], words[place + 1] = words[place + 1], words[place]
    return " ".join(words)


def mistype(text: str, random: Random) -> str:
    """One slip in one word of four letters or more; numbers and commands stay as they are."""
    words = text.split(" ")
    long = [place for place, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if not long:
        return text
    place = random.choice(long)
    word = words[place]
    at = random.randrange(1, len(word) - 1)
    slip = random.randrange(4)
    if slip == 0:
        word = word[:at] + word[at + 1 :]
    elif slip == 1:
        word = word[:at] + word[at] + word[at:]
    elif slip == 2:
        word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    else:
        word = word[:at] + random.choice(_NEIGHBOURS.get(word[at].lower(), word[at])) + word[at + 1 :]
    words[place] = word
    return " ".join(words)


def dress(text: str, random: Random) -> str:
    """Greeting before, politeness after, capitals and punctuation."""
    if random.random() < 0.22:
        text = random.choice(_BEFORE) + text
    if random.random() < 0.12:
        text = text + random.choice(_AFTER)
    style = random.random()
    if style < 0.35:
        text = text[:1].upper() + text[1:]
    elif style < 0.365:
        text = text.upper()
    elif style < 0.38:
        text = text.title()
    if random.random() < 0.3:
        text = re.sub(r"\bquiver\b(?! (serve|chat|models|status))", "Quiver", text)
        text = re.sub(r"\bi\b", "I", text)
    end = random.random()
    if end < 0.5:
        text += "?"
    elif end < 0.6:
        text += random.choice([".", "!", "??", " ?", "?!", "...", " :)"])
    return text


def disturb(text: str, random: Random, *, ours: bool) -> str:
    """All of it, each with its own chance; `ours` says that the question is about Quiver and may name it."""
    if ours and "quiver" not in text and random.random() < 0.1:
        text += random.choice(_AFTER_OURS)
    if random.random() < 0.55:
        text = reword(text, random)
    if random.random() < 0.15:
        text = rename(text, random)
    if random.random() < 0.15:
        text = drop_words(text, random)
    if random.random() < 0.1:
        text = shuffle_parts(text, random)
    if random.random() < 0.15:
        text = mistype(text, random)
    return dress(text, random)
