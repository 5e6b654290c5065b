"""One line for each finished request. There may be ten thousand a second, so they come in batches, off the event loop, and
are encoded by their type instead of field by field.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
from quiver.proxy.telemetry.levels import INFO, LEVELS, WARNING
from quiver.proxy.telemetry.record import Record
from quiver.schemas.models import ModelDescription

from .gpu import GpuReading
from .pipeline import Pipeline

COMPONENT = "request"
# What is shown of a prompt or an answer; the history keeps all of it.
SHOWN = 1000
# Lines made in one go: about a millisecond's work.
_TURN = 200

Describe = Callable[[str], ModelDescription | None]


class RequestLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a line says beside when, how bad, and from where. Times in milliseconds, without what is not known.

    `prompt_ms` and `generation_ms`: until the first token, without the time in the queue, and from there to the end; as the
    built-in engine measured it, for other servers' streams as the gateway saw it. `answered_from`: a server, another request
    in flight (`shared`), or memory (`cache`).
    """

    request_id: str
    client: str
    endpoint: str
    model: str | None
    server: str | None
    stream: bool
    status: int
    outcome: str
    error: str | None
    answered_from: str
    attempts: int
    queue_ms: float
    duration_ms: float
    first_byte_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    estimated: bool = False
    prompt_ms: float | None = None
    generation_ms: float | None = None
    prompt_tokens_per_second: float | None = None
    generation_tokens_per_second: float | None = None
    engine_queue_ms: float | None = None
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    quantization: str | None = None
    context_length: int | None = None
    gpu: GpuReading | None = None
    prompt: str | None = None
    answer: str | None = None
    trace_id: str | None = None


class RecordLog:
    """Logs finished requests, all of a batch at once; in any thread but the event loop's. `describe` says what the engine's
    model behind a server's id is, `gpu` how the graphics cards are doing. `prompts`: what asked for content may be logged.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        prompts: bool = False,
        describe: Describe = lambda server: None,
        gpu: Callable[[float, float], GpuReading | None] = lambda began, ended: None,
    ) -> None:
        self.describe, self.gpu = describe, gpu
        self._pipeline, self.prompts = pipeline, prompts
        # Names come from clients. The few that there are need not be looked at again for each request.
        self._name = lru_cache(maxsize=1024)(pipeline.redactor.text)

    def __repr__(self) -> str:
        return f"<RecordLog{': with prompts' if self.prompts else ''}>"

    def __call__(self, records: Sequence[Record]) -> None:
        least = LEVELS.of(COMPONENT)
        pieces: list[bytes] = []
        # Clients choose ids; that hardly any batch has one that looks like a secret takes one look to know.
        clean = not self._pipeline.redactor.suspects("\n".join([record.request_id for record in records]))
        second, date = -1, b""
        for number, record in enumerate(records, 1):
            if number % _TURN == 0:
                time.sleep(0)  # the event loop waits for the interpreter no longer than these lines take
            good = record.outcome == "completed"
            if (INFO if good else WARNING) < least:
                continue
            if int(record.at) != second:
                second = int(record.at)
                date = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
            micros = int((record.at - second) * 1_000_000)
            pieces.append(_HEAD % (date, micros, b"info" if good else b"warning", record.outcome.encode()))
            pieces.append(_encode(self._line(record, clean))[1:])
            pieces.append(b"\n")
        self._pipeline.take_lines(b"".join(pieces))

    def _line(self, record: Record, clean: bool) -> RequestLine:
        usage, timings = record.usage, record.engine
        prompt_ms = generation_ms = prompt_rate = generation_rate = queue = None
        cached = drafted = accepted = 0
        described = gpu = None
        if timings is not None:
            prompt_ms, generation_ms, queue = timings.prompt, timings.generation, _ms(timings.queue)
            cached, drafted, accepted = timings.cached_tokens, timings.drafted_tokens, timings.accepted_tokens
            described = self.describe(record.server_id) if record.server_id is not None else None
            gpu = self.gpu(record.at - record.duration, record.at)
        elif record.stream and record.first_byte is not None and record.source == "server":
            prompt_ms = max(0.0, record.first_byte - record.queued)
            generation_ms = max(0.0, record.duration - record.first_byte)
        if usage is not None and prompt_ms is not None and generation_ms is not None:
            prompt_rate = _rate(usage.prompt_tokens - cached, prompt_ms)
            generation_rate = _rate(usage.completion_tokens - 1, generation_ms)  # the first token is the prompt's
        prompt = answer = None
        if record.prompt is not None or record.answer is not None:
            prompt, answer = self._content(record, record.prompt), self._content(record, record.answer)
        return RequestLine(
            record.request_id if clean else self._pipeline.redactor.text(record.request_id),
            self._name(record.client),
            record.endpoint,
            None if record.model is None else self._name(record.model[:255]),
            record.server_id,
            record.stream,
            record.status,
            record.outcome,
            record.error,
            record.source,
            record.attempts,
            _ms(record.queued),
            _ms(record.duration),
            None if record.first_byte is None else _ms(record.first_byte),
            None if usage is None else usage.prompt_tokens,
            None if usage is None else usage.completion_tokens,
            None if usage is None else usage.total_tokens,
            record.estimated,
            None if prompt_ms is None else _ms(prompt_ms),
            None if generation_ms is None else _ms(generation_ms),
            prompt_rate,
            generation_rate,
            queue,
            cached,
            drafted,
            accepted,
            None if described is None else described.file_type,
            None if described is None else described.context_length,
            gpu,
            prompt,
            answer,
            record.trace_id,
        )

    def _content(self, record: Record, text: str | None) -> str | None:
        """A prompt or an answer, where it may be shown at all."""
        if text is None or not (self.prompts or record.keep_content):
            return None
        # A secret that the cut goes through would not be known any more: look at some more than is shown.
        near = self._pipeline.redactor.text(text[: 8 * SHOWN])
        return shortened(near, SHOWN, len(text))


def shortened(text: str, most: int, length: int | None = None) -> str:
    """The first `most` characters, and how many of `length` are missing."""
    missing = max(len(text), length or 0) - most
    return text if len(text) <= most and missing <= 0 else f"{text[:most]}… [{missing} more characters]"


def _ms(seconds: float) -> float:
    """Milliseconds to three places. `round` takes four times as long."""
    return int(1_000_000 * seconds + 0.5) / 1000


def _rate(tokens: int, seconds: float) -> float | None:
    return int(100 * tokens / seconds + 0.5) / 100 if tokens > 0 and seconds > 0 else None


_HEAD = (
    b'{"timestamp":"%b.%06dZ","level":"%b","component":"request","message":"%b",'
    b'"source":"proxy/exchange.py:ExchangeHandler.handle",'
)
_encode = msgspec.json.Encoder().encode
