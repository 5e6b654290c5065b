"""What a local model tells the metrics page. The only label is the model's name, so a client cannot add a series."""

from collections.abc import Iterator
from typing import Literal

from ..native import EngineStatistics, Finished
from ..telemetry.histogram import SECONDS, Histogram
from ..telemetry.metrics import Figure

# Tokens per second, from a large model on one core to a prompt on a graphics card.
RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000)
# A small model's answer to a short prompt begins within a millisecond.
ENGINE_SECONDS = (0.0005, 0.001, 0.0025, *SECONDS)

# The fields of the engine's statistics, each a figure `quiver_engine_NAME`. The last two have other names there, because
# the histograms of single sequences have theirs.
STATISTICS: dict[str, tuple[Literal["gauge", "counter"], str]] = {
    "live": ("gauge", "Sequences that run"),
    "paused": ("gauge", "Running sequences whose client does not keep up"),
    "waiting": ("gauge", "Requests whose prompt is read, or that wait for a place"),
    "parked": ("gauge", "Requests that gave up their place until their client keeps up"),
    "kv_bytes": ("gauge", "Memory of the cache of keys and values"),
    "kv_blocks": ("gauge", "Blocks of 32 tokens that the cache may have"),
    "kv_blocks_used": ("gauge", "Blocks that running sequences hold"),
    "kv_blocks_kept": ("gauge", "Blocks kept for requests that begin the same"),
    "finished": ("counter", "Sequences that ended by themselves"),
    "failed": ("counter", "Sequences that failed"),
    "cancelled": ("counter", "Sequences that were cancelled"),
    "prompt_tokens": ("counter", "Prompt tokens computed"),
    "reused_tokens": ("counter", "Prompt tokens found in the cache"),
    "prefix_hits": ("counter", "Requests that found some of their prompt in the cache"),
    "completion_tokens": ("counter", "Tokens generated"),
    "drafted_tokens": ("counter", "Tokens guessed and computed on trial"),
    "accepted_tokens": ("counter", "Guessed tokens that were right"),
    "steps": ("counter", "Steps of the model"),
    "step_sequences": ("counter", "Sequences in all steps: divided by the steps, how full they were"),
    "step_tokens": ("counter", "Tokens computed in all steps"),
    "preemptions": ("counter", "Times a sequence lost its place"),
    "retries": ("counter", "Steps done again one sequence at a time"),
    "busy_seconds": ("counter", "Time spent computing"),
    "prompt_seconds": ("counter", "Part of it for prompts"),
    "completion_seconds": ("counter", "Part of it for generated tokens"),
}
RENAMED = {"prompt_seconds": "busy_prompt_seconds", "completion_seconds": "busy_completion_seconds"}


class SequenceFigures:
    """Times and speeds of the sequences of one model that ended by themselves."""

    def __init__(self) -> None:
        self.queue, self.first_token = Histogram(ENGINE_SECONDS), Histogram(ENGINE_SECONDS)
        self.prompt, self.generation = Histogram(ENGINE_SECONDS), Histogram(ENGINE_SECONDS)
        self.prompt_rate, self.generation_rate = Histogram(RATES), Histogram(RATES)

    def observe(self, event: Finished) -> None:
        """Count one sequence. Phases that were not reached are not counted."""
        self.queue.observe(event.queue_seconds)
        if not event.completion_tokens:
            return
        self.first_token.observe(event.first_token_seconds)
        self.prompt.observe(event.prefill_seconds)
        if event.prefill_seconds > 0:
            self.prompt_rate.observe((event.prompt_tokens - event.cached_tokens) / event.prefill_seconds)
        # The first token is the prompt's.
        if event.completion_tokens > 1 and event.decode_seconds > 0:
            self.generation.observe(event.decode_seconds)
            self.generation_rate.observe((event.completion_tokens - 1) / event.decode_seconds)

    def figures(self, label: tuple[str, str]) -> Iterator[Figure]:
        histograms = [
            ("queue_seconds", "From arrival to the first step", self.queue),
            ("prompt_seconds", "From the first step to the first token", self.prompt),
            ("generation_seconds", "From the first token to the last", self.generation),
            ("first_token_seconds", "From arrival to the first token", self.first_token),
            ("prompt_tokens_per_second", "Speed of reading prompts, without what the cache had", self.prompt_rate),
            ("generation_tokens_per_second", "Speed of writing answers", self.generation_rate),
        ]
        for name, meaning, histogram in histograms:
            yield Figure("histogram", f"quiver_engine_{name}", meaning, histogram, (label,))


def statistics_figures(statistics: EngineStatistics, label: tuple[str, str]) -> Iterator[Figure]:
    """The engine's own figures as of its last step."""
    for name, (kind, meaning) in STATISTICS.items():
        yield Figure(kind, f"quiver_engine_{RENAMED.get(name, name)}", meaning, getattr(statistics, name), (label,))
