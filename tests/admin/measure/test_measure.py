"""What `quiver bench engine` does between its options and its tables, with scripted contenders and a worker that is none."""

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from quiver.admin.measure import llama, tables
from quiver.admin.measure.contender import Sample
from quiver.admin.measure.llama import Llama, PeerFailed, open_llama, settings
from quiver.admin.measure.parity import NMSE, SHORTFALL, Parity
from quiver.admin.measure.plan import Case, Plan, tokens
from quiver.admin.measure.rounds import Result, measure, summary, take_turns
from quiver.admin.measure.tables import Report

FAKE = Path(__file__).with_name("fake_llama.py")
SAME = Parity(48, 1e-5, 1.0, 24, 0.9, 0.01)


class Scripted:
    """A contender that takes the same time for everything, and remembers what it was asked."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.asked: list[tuple[str, int]] = []
        self.prompts: list[tuple[int, ...]] = []

    def prefill(self, prompt: list[int]) -> float:
        self.asked.append(("prefill", len(prompt)))
        self.prompts.append(tuple(prompt))
        return self.seconds

    def decode(self, prompts: list[list[int]], generate: int) -> Sample:
        self.asked.append((f"decode {len(prompts)}", generate))
        return Sample([self.seconds] * generate, len(prompts) / self.seconds)

    def intrude(self, prompt: list[int], newcomer: list[int], generate: int) -> Sample:
        self.asked.append(("intrude", len(newcomer)))
        return Sample([self.seconds], len(newcomer) / self.seconds, self.seconds)


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Llama]:
    monkeypatch.setattr(llama, "WORKER", FAKE)
    with open_llama(sys.executable, "right", 2) as worker:
        yield worker


def test_plan_leaves_out_what_does_not_fit() -> None:
    plan = Plan(prompts=(512,), generated=(64,), streams=(1, 8), depths=(2048, 8192), pause=2000)
    fitting, left_out = plan.cases(4096)
    assert [case.name for case in fitting] == [
        "prompt of 512",
        "1 stream of 64",
        "8 streams of 64",
        "1 stream at depth 2,048",
        "1 stream while 2,000 enter",
    ]
    assert [case.name for case in left_out] == ["1 stream at depth 8,192"]
    assert [case.bar for case in fitting] == [1.5, 1.0, 2.0, 1.3, 3.3]
    assert Plan(pause=0, depths=()).cases(4096)[1] == []


def test_prompts_of_two_seeds_share_no_prefix() -> None:
    prompts = [tokens(512, seed, vocabulary) for vocabulary in (300, 32_000) for seed in range(12)]
    assert len({prompt[0] for prompt in prompts[12:]}) == 12
    assert all(0 <= token < 300 for prompt in prompts[:12] for token in prompt)
    assert tokens(64, 3, 32_000) == tokens(64, 3, 32_000)


def test_contenders_take_turns() -> None:
    order: list[str] = []

    class Noting(Scripted):
        def prefill(self, prompt: list[int]) -> float:
            order.append(self.name)
            return super().prefill(prompt)

        def __init__(self, name: str) -> None:
            super().__init__(1.0)
            self.name = name

    contenders = {name: Noting(name) for name in "ab"}
    samples = take_turns(dict(contenders), Case("prompt", 100), 3, 32_000)
    assert "".join(order) == "ab" + "ab" * 3
    assert [len(each) for each in samples.values()] == [3, 3]
    # A prompt that was read before would be found in a cache; both get the same ones.
    assert len(set(contenders["a"].prompts)) == 4
    assert contenders["a"].prompts == contenders["b"].prompts


def test_summary_keeps_medians() -> None:
    samples = [Sample([0.001, 0.002], 10.0, 0.5), Sample([0.003, 0.1], 30.0, 0.7), Sample([0.002, 0.05], 20.0, 0.6)]
    figures = summary(samples, "fa=1")
    assert (figures.rate, figures.p50_ms, figures.p99_ms) == (20.0, 3.0, 100.0)
    assert (figures.worst_ms, figures.first_ms, figures.setting) == (50.0, 600.0, "fa=1")


def test_ratio_is_to_the_best_setting(peer: Llama) -> None:
    cases = [Case("prompt", 100), Case("decode", 16, 8), Case("decode", 16, 8, 8), Case("pause", 100, 8)]
    told: list[str] = []
    results = list(measure(Scripted(0.5), peer, cases, 2, 32_000, told.append))
    chosen = [(each.llama.setting, each.ratio) for each in results if each.llama is not None]
    assert chosen == [
        ("fa=1", 2.0),
        ("fa=0", 0.5),
        ("fa=0, split cache", 0.25),
        # A pause is better when it is short.
        ("fa=0", 2.0),
    ]
    assert len(told) == len(cases)


def test_several_streams_are_tried_with_a_split_cache() -> None:
    assert [each.name for each in settings(Case("depth", 8192, 64))] == ["fa=0", "fa=1"]
    assert len(settings(Case("decode", 16, 64, 8))) == 4


@pytest.mark.parametrize(
    ("parity", "complaint"),
    [
        (SAME, None),
        (Parity(48, 2 * NMSE, 1.0, 24, 1.0, 0.0), "NMSE 2.0e-03"),
        # No further than twice what llama.cpp is from itself, within reason.
        (Parity(48, 2 * NMSE, 1.0, 24, 1.0, 0.0, 1.1 * NMSE), None),
        (Parity(48, 2 * NMSE, 1.0, 24, 1.0, 0.0, 0.9 * NMSE), "more than 1.8e-03"),
        (Parity(48, 12 * NMSE, 1.0, 24, 1.0, 0.0, 9 * NMSE), "more than 1.0e-02"),
        (Parity(48, float("nan"), 1.0, 24, 1.0, 0.0), "NMSE nan"),
        (Parity(48, 1e-5, 1.0, 24, 0.5, 2 * SHORTFALL), "0.40 standard deviations"),
        (Parity(48, 1e-5, 1.0, 24, 0.5, float("nan")), "nan standard deviations"),
    ],
)
def test_wrong_answers_are_refused(parity: Parity, complaint: str | None) -> None:
    assert parity.complaint is None if complaint is None else complaint in str(parity.complaint)


def test_worker_failures_are_named(peer: Llama) -> None:
    with pytest.raises(PeerFailed, match="out of memory"):
        peer.ask("fail")


def test_worker_that_dies_is_noticed(peer: Llama) -> None:
    with pytest.raises(PeerFailed, match="ended with code 3"):
        peer.ask("die")


def test_missing_interpreter_is_named() -> None:
    with pytest.raises(PeerFailed, match="`/nowhere/python` cannot be run"), open_llama("/nowhere/python", "m", 1):
        pass


def test_interpreter_without_llama_is_named() -> None:
    with (
        pytest.raises(PeerFailed, match="has no llama-cpp-python"),
        open_llama(sys.executable, "m", 1),
    ):
        pass


def report(parity: Parity | None) -> Report:
    figures = summary([Sample([0.01], 50.0, 0.25)], None)
    theirs = summary([Sample([0.02], 25.0, 0.125)], "fa=0") if parity else None
    results = [Result(Case("decode", 16, 64), figures, theirs), Result(Case("pause", 100, 64), figures, theirs)]
    return Report({"quiver": "1", "commit": "abc"}, results, parity, ["1 stream at depth 8,192"])


@pytest.mark.parametrize("parity", [None, SAME])
def test_every_form_tells_the_same(parity: Parity | None) -> None:
    one = report(parity)
    assert all(len(tables.row(each)) == len(tables.columns(one)) for each in one.results)
    lines = list(csv.DictReader(io.StringIO(tables.as_csv(one))))
    data = json.loads(json.dumps(tables.as_data(one)))
    assert [line["tokens_per_second"] for line in lines] == ["50", "50"]
    assert [row["quiver"]["rate"] for row in data["rows"]] == [50.0, 50.0]
    if parity:
        told = [(line["llama_setting"], line["ratio"], line["bar"]) for line in lines]
        assert told == [("fa=0", "2", "1"), ("fa=0", "2", "3.3")]
        assert data["parity"]["nmse"] == parity.nmse
    assert any("commit abc" in line for line in tables.heading(one))
    assert any("8,192" in line for line in tables.heading(one))
    assert ["first token came after 250 ms" in line for line in tables.notes(one)] == [True]
