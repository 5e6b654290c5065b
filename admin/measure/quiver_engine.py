"""Quiver's engine as a contender: asked as the gateway asks it, timed where its events come out."""

import select
import time
from collections.abc import Iterator

import msgspec
from quiver.proxy.native import Engine, Failed, Finished, Started, Text

from .contender import Sample

# The engine gives up a request rather than let the measurement hang.
LONGEST_SILENCE = 600.0


class EngineFailed(RuntimeError):
    """A request failed. The message is the engine's."""


class QuiverEngine:
    """The engine, loaded and warm."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def prefill(self, prompt: list[int]) -> float:
        began, number = time.perf_counter(), self._submit(prompt, 1)
        first = 0.0
        for now, event in self._events({number}):
            if not first and isinstance(event, Text | Finished):
                first = now - began
        return first

    def decode(self, prompts: list[list[int]], generate: int) -> Sample:
        numbers = {self._submit(prompt, generate): _Stream() for prompt in prompts}
        for now, event in self._events(set(numbers)):
            if isinstance(event, Text):
                numbers[event.request].take(now, event.completion_tokens)
            elif isinstance(event, Finished):
                numbers[event.request].ended = event
        streams = list(numbers.values())
        # The time in which all of them run.
        began, ended = max(stream.times[0] for stream in streams), min(stream.times[-1] for stream in streams)
        made = sum(stream.made_between(began, ended) for stream in streams)
        if not made:  # small models: everything was there when this process got its turn
            paces = [stream.pace() for stream in streams]
            return Sample(paces, sum(1 / pace for pace in paces))
        return Sample([gap for stream in streams for gap in stream.gaps(began, ended)], made / (ended - began))

    def intrude(self, prompt: list[int], newcomer: list[int], generate: int) -> Sample:
        running, stream = self._submit(prompt, generate + len(newcomer)), _Stream()
        other, came, first = None, 0.0, 0.0
        open_requests = {running}
        for now, event in self._events(open_requests):
            if event.request == other:
                first = first or now - came if isinstance(event, Text | Finished) else first
                if isinstance(event, Finished):
                    self._engine.cancel(running)
            elif isinstance(event, Text):
                stream.take(now, event.completion_tokens)
                if other is None and event.completion_tokens >= generate // 2:
                    came, other = now, self._submit(newcomer, 1)
                    open_requests.add(other)
        return Sample(list(stream.gaps(came, came + first)), len(newcomer) / first, first)

    def answer(self, prompt: list[int], generate: int) -> list[int]:
        """The likeliest continuation of a prompt."""
        made: list[int] = []
        number = self._submit(prompt, generate, logprobs=1)
        for _, event in self._events({number}):
            if isinstance(event, Text):
                made += [score.token for score in event.logprobs]
        return made

    def _submit(self, prompt: list[int], generate: int, **options: int) -> int:
        document = {
            "prompt": {"tokens": prompt},
            "max_tokens": generate,
            "temperature": 0.0,
            "ignore_eos": True,
            # Random weights repeat themselves: guesses would be right more often than in any text.
            "speculate": False,
            "window": generate + 1,
            **options,
        }
        return self._engine.submit(msgspec.json.encode(document))

    def _events(self, open_requests: set[int]) -> Iterator[tuple[float, Started | Text | Finished]]:
        """The events of these requests, with the time they came, until all of them have ended; the set shrinks as they do."""
        while open_requests:
            ready, _, _ = select.select([self._engine.fd], [], [], LONGEST_SILENCE)
            now = time.perf_counter()
            if not ready:
                raise EngineFailed(f"the engine said nothing for {LONGEST_SILENCE:.0f} s")
            for event in self._engine.drain():
                if event.request not in open_requests:
                    continue
                if isinstance(event, Failed):
                    raise EngineFailed(event.message)
                if isinstance(event, Finished):
                    open_requests.discard(event.request)
                yield now, event


class _Stream:
    """When the tokens of one answer came."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.made: list[int] = []
        self.ended: Finished | None = None

    def take(self, now: float, made: int) -> None:
        """`made` tokens in all were there at `now`."""
        self.times.append(now)
        self.made.append(made)

    def made_between(self, began: float, ended: float) -> int:
        """Tokens that came after `began`, until `ended`."""
        pairs = zip(self.times, self.made, [0, *self.made], strict=False)
        return sum(made - before for at, made, before in pairs if began < at <= ended)

    def pace(self) -> float:
        """Seconds per token after the first, by the engine's own clock."""
        assert self.ended is not None
        return max(self.ended.decode_seconds, 1e-9) / max(1, self.ended.completion_tokens - 1)

    def gaps(self, began: float, ended: float) -> Iterator[float]:
        """The wait for each event that came after `began`, until `ended`."""
        for before, at in zip(self.times, self.times[1:], strict=False):
            if began < at and before < ended:
                yield at - before
