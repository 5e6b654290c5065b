"""`quiver chat`: one question to a gateway, its answer as it arrives, and how fast it came."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
from quiver.schemas.openai import Usage

from .client import Client, ClientError

PATH = "/v1/chat/completions"


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, frozen=True):
    """What is read of a streamed chunk. Servers differ in the rest, so all of it may be missing."""

    model: str | None = None
    choices: list[_Choice] = []
    usage: Usage | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


@dataclass(frozen=True)
class Question:
    """What is asked. None: the gateway's default."""

    text: str
    model: str
    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None

    def body(self) -> bytes:
        """The request, streaming, with usage at its end."""
        messages = [{"role": "user", "content": self.text}]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
        fields = {
            "model": self.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        return msgspec.json.encode({name: value for name, value in fields.items() if value is not None})


class Answer:
    """One answer being received. Iterate over it once for the pieces of its text; the fields are filled on the way.

    Raises what `Client.stream` raises.
    """

    def __init__(self, client: Client, question: Question) -> None:
        self._client, self._question = client, question
        self.text = ""
        self.model = question.model
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self._began = self._ended = time.perf_counter()
        self._first: float | None = None

    def __iter__(self) -> Iterator[str]:
        self._began = time.perf_counter()
        for data in self._client.stream(PATH, self._question.body()):
            piece = self._take(data)
            if piece:
                self._first = self._first or time.perf_counter()
                self.text += piece
                yield piece
        self._ended = time.perf_counter()

    @property
    def seconds(self) -> float:
        """From the request to the end of the answer."""
        return self._ended - self._began

    @property
    def first_token_seconds(self) -> float | None:
        """From the request to the first piece of text; None when there was none."""
        return None if self._first is None else self._first - self._began

    @property
    def tokens_per_second(self) -> float | None:
        """The rate after the first token; None for fewer than two tokens, or when the server does not count them."""
        if self.usage is None or self._first is None or self.usage.completion_tokens < 2 or self._ended <= self._first:
            return None
        return (self.usage.completion_tokens - 1) / (self._ended - self._first)

    def data(self) -> dict[str, object]:
        """The answer and its figures, for programs."""
        first, rate = self.first_token_seconds, self.tokens_per_second
        return {
            "model": self.model,
            "content": self.text,
            "finish_reason": self.finish_reason,
            "usage": self.usage,
            "seconds": round(self.seconds, 4),
            "first_token_seconds": None if first is None else round(first, 4),
            "tokens_per_second": None if rate is None else round(rate, 2),
        }

    def speed(self) -> str:
        """The figures, for people."""
        first, rate = self.first_token_seconds, self.tokens_per_second
        parts = [f"{self.usage.completion_tokens} tokens"] if self.usage else []
        parts += [f"{rate:.1f} tokens/s"] if rate is not None else []
        parts += [f"first token after {first:.3f} s"] if first is not None else []
        return ", ".join([*parts, f"{self.seconds:.3f} s in all"])

    def _take(self, data: bytes) -> str | None:
        try:
            chunk = _decode_chunk(data)
        except msgspec.DecodeError:
            raise ClientError("the stream holds something that is no chat chunk") from None
        self.model = chunk.model or self.model
        self.usage = chunk.usage or self.usage
        if not chunk.choices:
            return None
        self.finish_reason = chunk.choices[0].finish_reason or self.finish_reason
        return chunk.choices[0].delta.content
