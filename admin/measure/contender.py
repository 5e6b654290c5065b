"""What can be measured: an engine that reads prompts and continues sequences, behind three questions."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from .plan import SHORT, Case, tokens


class Sample(msgspec.Struct, frozen=True):
    """One measurement of a case. `seconds`: of each prompt or each token; `rate`: tokens per second of all streams together;
    `first`: seconds until a newcomer's first token, where there is one.
    """

    seconds: Sequence[float]
    rate: float
    first: float | None = None


class Contender(Protocol):
    """An engine with one model. Prompts are lists of token ids; answers are always the likeliest token."""

    def prefill(self, prompt: list[int]) -> float:
        """Seconds until the first token after a prompt of which nothing is known."""

    def decode(self, prompts: list[list[int]], generate: int) -> Sample:
        """Continue prompts together. What was computed of a prompt before need not be computed again."""

    def intrude(self, prompt: list[int], newcomer: list[int], generate: int) -> Sample:
        """Continue `prompt`; half-way, let `newcomer` in. The gaps of the first stream from there on."""


def sample(contender: Contender, case: Case, number: int, vocabulary: int) -> Sample:
    """Measure `case` for the `number`th time, with a prompt of that number where a new one is wanted."""
    match case.kind:
        case "prompt":
            seconds = contender.prefill(tokens(case.prompt, number + case.prompt, vocabulary))
            return Sample([seconds], case.prompt / seconds)
        case "pause":
            running, newcomer = tokens(SHORT, number, vocabulary), tokens(case.prompt, number + 1, vocabulary)
            return contender.intrude(running, newcomer, case.generate)
        case _:
            prompts = [tokens(case.prompt, stream, vocabulary) for stream in range(case.streams)]
            return contender.decode(prompts, case.generate)
