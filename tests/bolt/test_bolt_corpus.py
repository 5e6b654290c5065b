"""The corpus of bolt: same seed same questions, held-out ones never trained, keys that tell the facts apart."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest

from bolt import corpus, grammar, noise

DATA = corpus.load()
EVERYTHING = [*DATA.facts, DATA.off_topic]


def questions(seed: int) -> Iterator[str]:
    random = corpus.seeded(seed)
    while True:
        yield DATA.turn(random).question


def test_same_seed_same_questions() -> None:
    assert list(islice(questions(5), 500)) == list(islice(questions(5), 500))


def test_other_seed_other_questions() -> None:
    assert list(islice(questions(5), 500)) != list(islice(questions(6), 500))


def test_held_out_is_never_trained() -> None:
    trained = {grammar.plain(question) for question in islice(questions(11), 20_000)}
    assert not trained & DATA.reserved


@pytest.mark.parametrize("fact", EVERYTHING, ids=lambda fact: fact.name)
def test_no_pattern_spells_held_out(fact: corpus.Fact) -> None:
    random = corpus.seeded(1)
    written = {grammar.plain(grammar.expand(p, random, DATA.lists)) for p in fact.questions for _ in range(40)}
    assert not written & DATA.reserved


def test_enough_of_everything() -> None:
    assert len(DATA.facts) >= 60
    assert len({fact.name for fact in DATA.facts}) == len(DATA.facts)
    assert all(len(fact.questions) >= 15 and fact.held_out for fact in DATA.facts)
    assert sum(len(fact.held_out) for fact in DATA.facts) >= 250


@pytest.mark.parametrize("fact", EVERYTHING, ids=lambda fact: fact.name)
def test_keys_tell_facts_apart(fact: corpus.Fact) -> None:
    holders = [other.name for other in EVERYTHING if all(key in other.answer for key in fact.keys)]
    assert holders == [fact.name]


@pytest.mark.parametrize(
    ("pattern", "sentences"),
    [
        ("plain words", {"plain words"}),
        ("{a|b} c", {"a c", "b c"}),
        ("a [b]", {"a", "a b"}),
        ("{a [b]|c}", {"a", "a b", "c"}),
        ("[[backends]] {x|y}", {"[[backends]] x", "[[backends]] y"}),
        ("[auth] keys", {"[auth] keys"}),
        ("a <colour> hat", {"a red hat", "a dark blue hat"}),
        ("it[, how]", {"it", "it, how"}),
    ],
)
def test_grammar_expands(pattern: str, sentences: set[str]) -> None:
    random = corpus.seeded(2)
    lists = {"colour": ["red", "dark_blue"]}
    assert {grammar.expand(pattern, random, lists) for _ in range(100)} == sentences


@pytest.mark.parametrize("seed", range(20))
def test_slips_keep_commands(seed: int) -> None:
    assert noise.mistype("./just --port 9000 /v1/models", corpus.seeded(seed)) == "./just --port 9000 /v1/models"
