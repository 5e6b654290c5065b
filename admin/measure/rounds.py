"""Measuring in rounds: contenders take turns, so that a disturbance of the machine meets all of them, and medians are kept."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import msgspec

from .contender import Contender, Sample, sample
from .llama import Llama, settings
from .plan import LEAST_GENERATED, Case


class Figures(msgspec.Struct, frozen=True):
    """One contender's figures for a case: quantiles of a token's or a prompt's time in milliseconds, then the median rate of
    the rounds in tokens per second. `first_ms`: until a newcomer's first token. `setting`: llama.cpp's, the best of several.
    """

    p50_ms: float
    p99_ms: float
    worst_ms: float
    rate: float
    first_ms: float | None = None
    setting: str | None = None


class Result(msgspec.Struct, frozen=True):
    """A case with what came out."""

    case: Case
    quiver: Figures
    llama: Figures | None = None

    @property
    def ratio(self) -> float | None:
        """How many times as fast as llama.cpp; for a pause, how many times as short as its worst one."""
        if self.llama is None:
            return None
        if self.case.kind == "pause":
            return self.llama.worst_ms / self.quiver.worst_ms
        return self.quiver.rate / self.llama.rate


def measure(
    ours: Contender, peer: Llama | None, cases: list[Case], repeats: int, vocabulary: int, tell: Callable[[str], object]
) -> Iterator[Result]:
    """Every case, one after the other."""
    for case in cases:
        tell(f"measuring {case.name}")
        with ExitStack() as opened:
            contenders: dict[str, Contender] = {"": ours}
            for setting in settings(case) if peer else []:
                assert peer is not None
                contenders[setting.name] = opened.enter_context(peer.opened(case, setting))
            samples = take_turns(contenders, case, repeats, vocabulary)
        figures = {name: summary(of_one, name or None) for name, of_one in samples.items()}
        yield Result(case, figures.pop(""), best(case, list(figures.values())))


def take_turns(contenders: dict[str, Contender], case: Case, repeats: int, vocabulary: int) -> dict[str, list[Sample]]:
    """`repeats` samples of each, after one that does not count."""
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    warm_up = Case(case.kind, case.prompt, min(case.generate, LEAST_GENERATED), case.streams)
    for contender in contenders.values():
        sample(contender, warm_up, 0, vocabulary)
    for number in range(1, repeats + 1):
        for name, contender in contenders.items():
            samples[name].append(sample(contender, case, number, vocabulary))
    return samples


def summary(samples: list[Sample], setting: str | None) -> Figures:
    """The figures of one contender's samples."""
    seconds = sorted(value for each in samples for value in each.seconds)
    firsts = [each.first for each in samples if each.first is not None]
    return Figures(
        p50_ms=quantile(seconds, 0.5) * 1000,
        p99_ms=quantile(seconds, 0.99) * 1000,
        worst_ms=statistics.median(max(each.seconds) for each in samples) * 1000,
        rate=statistics.median(each.rate for each in samples),
        first_ms=statistics.median(firsts) * 1000 if firsts else None,
        setting=setting,
    )


def quantile(ordered: list[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def best(case: Case, figures: list[Figures]) -> Figures | None:
    """The best of llama.cpp's settings for `case`."""
    if not figures:
        return None
    if case.kind == "pause":
        return min(figures, key=lambda each: each.worst_ms)
    return max(figures, key=lambda each: each.rate)
