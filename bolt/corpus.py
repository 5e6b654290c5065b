"""The questions and answers: reads `facts/`, `off_topic.toml` and `held_out.toml`, makes training conversations, seeded.

The held-out questions are read here too, and this file is where they are kept out of training: `Corpus.question` never
returns a sentence whose plain form is that of a held-out one.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bolt import grammar, noise

HERE = Path(__file__).parent
# Shares of a training round. The rest are the facts, each as often as any other.
OFF_TOPIC, NEAR = 0.15, 0.09
SMALL_TALK = {"greeting", "thanks", "goodbye", "who_are_you", "what_can_you_do"}

SYSTEM_PROMPTS = [
    "You are a helpful assistant.",
    "You are bolt, the built-in model of Quiver.",
    "You are a helpful assistant. Answer briefly.",
    "Answer the user's question.",
    "You are a friendly chatbot.",
    "Be concise.",
    "You are an AI assistant that helps people with software.",
    "You answer questions about Quiver.",
    "You are a helpful, respectful and honest assistant.",
    "Answer in one sentence.",
]


def seeded(seed: int) -> Random:
    """The source of chance for everything in this folder: repeatable, and nothing here is a secret."""
    return Random(seed)


@dataclass(frozen=True)
class Fact:
    """One thing bolt knows: an answer counts as right when it holds all keys."""

    name: str
    answer: str
    keys: tuple[str, ...]
    questions: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Turn:
    question: str
    answer: str
    fact: int  # its number in the corpus; off-topic is the last


@dataclass(frozen=True)
class Conversation:
    system: str | None
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Corpus:
    facts: tuple[Fact, ...]
    off_topic: Fact
    near: tuple[str, ...]
    lists: grammar.Lists
    reserved: frozenset[str]

    def question(self, fact: Fact, patterns: tuple[str, ...], random: Random) -> str:
        """A question for the fact, as somebody might type it; never a held-out one."""
        ours = fact is not self.off_topic and fact.name not in SMALL_TALK
        while True:
            text = grammar.expand(random.choice(patterns), random, self.lists)
            if grammar.plain(text) in self.reserved:
                continue
            typed = noise.disturb(text, random, ours=ours)
            if grammar.plain(typed) not in self.reserved:
                return typed

    def turn(self, random: Random) -> Turn:
        """One question with its answer."""
        dice = random.random()
        if dice < OFF_TOPIC:
            fact, patterns = self.off_topic, self.off_topic.questions
        elif dice < OFF_TOPIC + NEAR:
            fact, patterns = self.off_topic, self.near
        else:
            fact = random.choice(self.facts)
            patterns = fact.questions
        number = len(self.facts) if fact is self.off_topic else self.facts.index(fact)
        return Turn(self.question(fact, patterns, random), fact.answer, number)

    def conversation(self, random: Random) -> Conversation:
        """One to three turns, sometimes under a system prompt."""
        dice = random.random()
        turns = 1 if dice < 0.93 else 2 if dice < 0.99 else 3
        system = random.choice(SYSTEM_PROMPTS) if random.random() < 0.1 else None
        return Conversation(system, tuple(self.turn(random) for _ in range(turns)))


def _fact(table: dict[str, object], held_out: dict[str, list[str]], weights: str) -> Fact:
    keys = table["keys"]
    assert isinstance(keys, list)
    answer = str(table["answer"]).strip().replace("{weights}", weights)
    name, questions = str(table["id"]), tuple(grammar.lines(str(table["questions"])))
    return Fact(name, answer, tuple(keys), questions, tuple(held_out[name]))


def load(weights: str = "2.8") -> Corpus:
    """Reads the facts; `weights` is the number of millions that bolt tells about itself."""
    held_out = tomllib.loads((HERE / "held_out.toml").read_text())
    facts: list[Fact] = []
    for path in sorted((HERE / "facts").glob("*.toml")):
        facts += [_fact(table, held_out["questions"], weights) for table in tomllib.loads(path.read_text())["fact"]]
    other = tomllib.loads((HERE / "off_topic.toml").read_text())
    off_topic = Fact(
        "off_topic",
        other["answer"],
        tuple(other["keys"]),
        tuple(grammar.lines(other["questions"]["general"])),
        tuple(held_out["off_topic"]),
    )
    reserved = frozenset(grammar.plain(text) for fact in [*facts, off_topic] for text in fact.held_out)
    lists = {name: words.split() for name, words in other["lists"].items()}
    return Corpus(tuple(facts), off_topic, tuple(grammar.lines(other["questions"]["near"])), lists, reserved)
