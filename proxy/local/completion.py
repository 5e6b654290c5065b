"""Writing the engine's events as OpenAI's reply: streamed chunks, or one object at the end.

A writer takes events of any choice in any order and knows nothing of where they come from.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from quiver.schemas.openai import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatRequest,
    ChunkChoice,
    CompletionLogprobs,
    CompletionRequest,
    Delta,
    GenerationOptions,
    TextChoice,
    TextCompletion,
    TokenLogprob,
    TopLogprob,
    Usage,
)

from .. import native
from ..native import Finished, Text
from ..reply import DONE, Reply

_encode = msgspec.json.Encoder().encode


@dataclass
class _Choice:
    """One choice as far as it has been generated."""

    text: list[str] = field(default_factory=list)
    logprobs: list[native.TokenLogprob] = field(default_factory=list)
    reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


def _event(chunk: msgspec.Struct) -> bytes:
    return b"data: " + _encode(chunk) + b"\n\n"


class Writer(ABC):
    """Turns events into a reply. `take` each event, then `close`."""

    def __init__(self, reply: Reply, reply_id: str, created: int, options: GenerationOptions, choices: int) -> None:
        self._reply, self._id, self._created, self._model = reply, reply_id, created, options.model
        self._stream = bool(options.stream)
        self._with_usage = bool(options.stream_options and options.stream_options.include_usage)
        self._choices = [_Choice() for _ in range(choices)]
        self._prompts = choices // (options.n or 1)

    async def take(self, index: int, event: Text | Finished) -> None:
        """Note one event of choice `index`, and stream it if the client asked for a stream."""
        choice = self._choices[index]
        if isinstance(event, Finished):
            choice.reason = event.reason
            choice.prompt_tokens, choice.completion_tokens = event.prompt_tokens, event.completion_tokens
        else:
            choice.text.append(event.text)
            choice.logprobs.extend(event.logprobs)
        if self._stream:
            await self._reply.send_events(_event(self._chunk(index, event)))

    async def close(self) -> None:
        """Write what is left of the reply."""
        usage = self._reply.usage = self._usage()
        if self._stream:
            await self._reply.end_stream((_event(self._usage_chunk(usage)) if self._with_usage else b"") + DONE)
        else:
            await self._reply.complete(200, _encode(self._whole(self._choices, usage)))

    def _usage(self) -> Usage:
        """Each prompt is counted once, however many choices were made of it."""
        repeats = len(self._choices) // self._prompts
        prompt = sum(choice.prompt_tokens for choice in self._choices[::repeats])
        completion = sum(choice.completion_tokens for choice in self._choices)
        return Usage(prompt, completion, prompt + completion)

    @abstractmethod
    def _chunk(self, index: int, event: Text | Finished) -> msgspec.Struct: ...

    @abstractmethod
    def _usage_chunk(self, usage: Usage) -> msgspec.Struct: ...

    @abstractmethod
    def _whole(self, choices: Sequence[_Choice], usage: Usage) -> msgspec.Struct: ...


class ChatWriter(Writer):
    """Replies of `/v1/chat/completions`."""

    def __init__(self, reply: Reply, reply_id: str, created: int, chat: ChatRequest, choices: int) -> None:
        super().__init__(reply, reply_id, created, chat, choices)
        self._begun: set[int] = set()
        self._logprobs = bool(chat.logprobs)

    def _chunk(self, index: int, event: Text | Finished) -> ChatChunk:
        role = msgspec.UNSET if index in self._begun else "assistant"
        self._begun.add(index)
        if isinstance(event, Finished):
            return self._envelope([ChunkChoice(index, Delta(role), finish_reason=event.reason)])
        logprobs = _chat_logprobs(event.logprobs) if self._logprobs else None
        return self._envelope([ChunkChoice(index, Delta(role, event.text), logprobs)])

    def _usage_chunk(self, usage: Usage) -> ChatChunk:
        return self._envelope([], usage)

    def _envelope(self, choices: list[ChunkChoice], usage: Usage | None = None) -> ChatChunk:
        told = usage if self._with_usage else msgspec.UNSET
        return ChatChunk(self._id, "chat.completion.chunk", self._created, self._model, choices, told)

    def _whole(self, choices: Sequence[_Choice], usage: Usage) -> ChatCompletion:
        whole = [
            ChatChoice(
                index,
                AssistantMessage("assistant", "".join(choice.text)),
                _chat_logprobs(choice.logprobs) if self._logprobs else None,
                choice.reason,
            )
            for index, choice in enumerate(choices)
        ]
        return ChatCompletion(self._id, "chat.completion", self._created, self._model, whole, usage)


class TextWriter(Writer):
    """Replies of `/v1/completions`."""

    def __init__(self, reply: Reply, reply_id: str, created: int, completion: CompletionRequest, choices: int) -> None:
        super().__init__(reply, reply_id, created, completion, choices)
        self._logprobs = completion.logprobs is not None
        self._offsets = [0] * choices

    def _chunk(self, index: int, event: Text | Finished) -> TextCompletion:
        if isinstance(event, Finished):
            return self._envelope([TextChoice(index, "", finish_reason=event.reason)])
        logprobs = _text_logprobs(event.logprobs, self._offsets[index]) if self._logprobs else None
        self._offsets[index] += sum(len(_shown(token)) for token in event.logprobs)
        return self._envelope([TextChoice(index, event.text, logprobs)])

    def _usage_chunk(self, usage: Usage) -> TextCompletion:
        return self._envelope([], usage)

    def _envelope(self, choices: list[TextChoice], usage: Usage | None = None) -> TextCompletion:
        told = usage if self._with_usage else msgspec.UNSET
        return TextCompletion(self._id, "text_completion", self._created, self._model, choices, told)

    def _whole(self, choices: Sequence[_Choice], usage: Usage) -> TextCompletion:
        whole = [
            TextChoice(
                index,
                "".join(choice.text),
                _text_logprobs(choice.logprobs, 0) if self._logprobs else None,
                choice.reason,
            )
            for index, choice in enumerate(choices)
        ]
        return TextCompletion(self._id, "text_completion", self._created, self._model, whole, usage)


def _chat_logprobs(tokens: Sequence[native.TokenLogprob]) -> ChatLogprobs:
    return ChatLogprobs(
        [
            TokenLogprob(
                _shown(token),
                token.logprob,
                list(token.bytes),
                [TopLogprob(_shown(top), top.logprob, list(top.bytes)) for top in token.top],
            )
            for token in tokens
        ]
    )


def _text_logprobs(tokens: Sequence[native.TokenLogprob], offset: int) -> CompletionLogprobs:
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(_shown(token))
    return CompletionLogprobs(
        [_shown(token) for token in tokens],
        [token.logprob for token in tokens],
        [{_shown(top): top.logprob for top in token.top} for token in tokens],
        offsets,
    )


def _shown(token: native.TokenLogprob) -> str:
    """The token as text; part of a character shows as U+FFFD, its bytes are told beside it."""
    return token.bytes.decode("utf-8", "replace")
