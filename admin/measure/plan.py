"""What is measured: a list of cases made of the sizes somebody asks for, and the ratio that each is meant to reach."""

from typing import Literal

import msgspec

Kind = Literal["prompt", "decode", "depth", "pause"]

# Tokens that streams start from where the prompt is not what is measured.
SHORT = 16
# Below this a rate is noise.
LEAST_GENERATED = 8


class Case(msgspec.Struct, frozen=True):
    """One measurement. `prompt` tokens in each of `streams` sequences that get `generate` tokens; for a pause, the
    tokens of the prompt that comes in while one stream runs.
    """

    kind: Kind
    prompt: int
    generate: int = 1
    streams: int = 1

    @property
    def name(self) -> str:
        match self.kind:
            case "prompt":
                return f"prompt of {self.prompt:,}"
            case "depth":
                return f"1 stream at depth {self.prompt:,}"
            case "pause":
                return f"1 stream while {self.prompt:,} enter"
            case _:
                return f"{self.streams} stream{'s' if self.streams > 1 else ''} of {self.generate:,}"

    @property
    def bar(self) -> float | None:
        """How many times as fast as llama.cpp the engine has to be, on two cores with AVX-512 VNNI."""
        match self.kind, self.streams:
            case "prompt", _:
                return 1.5
            case "decode", 1:
                return 1.0
            case "decode", 8:
                return 2.0
            case "depth", _:
                return 1.3
            case "pause", _:
                return 3.3
        return None

    @property
    def context(self) -> int:
        """Tokens that a sequence needs room for."""
        return self.prompt + self.generate + SHORT


class Plan(msgspec.Struct, frozen=True):
    """What to measure: every prompt size, every number of streams with every answer size, every depth, a pause if not 0."""

    prompts: tuple[int, ...] = (512,)
    generated: tuple[int, ...] = (64,)
    streams: tuple[int, ...] = (1, 8)
    depths: tuple[int, ...] = (8192,)
    pause: int = 2000
    repeats: int = 5

    def cases(self, context: int) -> tuple[list[Case], list[Case]]:
        """Those that a model of `context` tokens has room for, and the others."""
        longest = max(self.generated)
        cases = [
            *(Case("prompt", size) for size in self.prompts),
            *(Case("decode", SHORT, size, streams) for size in self.generated for streams in self.streams),
            *(Case("depth", depth, longest) for depth in self.depths),
            *([Case("pause", self.pause, longest)] if self.pause else []),
        ]
        return [case for case in cases if case.context <= context], [case for case in cases if case.context > context]


def tokens(size: int, seed: int, vocabulary: int) -> list[int]:
    """A prompt of ordinary tokens. Prompts of two seeds differ from their first token on."""
    spread = max(1, vocabulary * 3 // 4)
    return [(10 + seed * 7_919 + at * (31 + 2 * seed)) % spread for at in range(size)]
