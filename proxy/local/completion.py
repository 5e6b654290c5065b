"""Writing the engine's events as OpenAI's reply: streamed chunks, or one object at the end.

A writer takes events of any choice in any order and knows nothing of where they come from.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
from quiver.schemas.openai import (
    AssistantMessage,
    CallDelta,
    CalledFunction,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatRequest,
    ChunkChoice,
    CompletionDetails,
    CompletionLogprobs,
    CompletionRequest,
    Delta,
    FunctionDelta,
    GenerationOptions,
    PromptDetails,
    TextChoice,
    TextCompletion,
    TokenLogprob,
    ToolCall,
    TopLogprob,
    Usage,
)

from .. import native
from ..native import Finished, Started, Text
from ..reply import DONE, Reply
from .calls import Call
from .dialect import Dialect
from .pieces import AnswerReader, Said, Thought
from .tools import offered

_encode = msgspec.json.Encoder().encode


@dataclass
class _Choice:
    """One choice as far as it has been generated."""

    text: list[str] = field(default_factory=list)
    logprobs: list[native.TokenLogprob] = field(default_factory=list)
    reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0


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

    async def take(self, index: int, event: Started | Text | Finished) -> None:
        """Note one event of choice `index`, and stream it if the client asked for a stream."""
        choice = self._choices[index]
        if isinstance(event, Started):
            choice.prompt_tokens = event.prompt_tokens
            self._start(index, event)
            return
        if isinstance(event, Finished):
            choice.reason = event.reason
            choice.prompt_tokens, choice.completion_tokens = event.prompt_tokens, event.completion_tokens
            choice.reasoning_tokens, choice.cached_tokens = event.reasoning_tokens, event.cached_tokens
        else:
            choice.completion_tokens = event.completion_tokens
            choice.text.append(event.text)
            choice.logprobs.extend(event.logprobs)
        chunks = self._chunks(index, event)
        if self._stream and chunks:
            await self._reply.send_events(b"".join(map(_event, chunks)))

    def leave(self) -> None:
        """Nobody wants the rest: note what there was of it, which has been computed all the same."""
        self._reply.usage = self._usage()

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
        reasoning = sum(choice.reasoning_tokens for choice in self._choices)
        cached = sum(choice.cached_tokens for choice in self._choices[::repeats])
        return Usage(
            prompt,
            completion,
            prompt + completion,
            CompletionDetails(reasoning) if reasoning else msgspec.UNSET,
            PromptDetails(cached),
        )

    def _start(self, index: int, event: Started) -> None:
        """Note that the prompt of choice `index` is read."""
        return

    @abstractmethod
    def _chunks(self, index: int, event: Text | Finished) -> Sequence[msgspec.Struct]: ...

    @abstractmethod
    def _usage_chunk(self, usage: Usage) -> msgspec.Struct: ...

    @abstractmethod
    def _whole(self, choices: Sequence[_Choice], usage: Usage) -> msgspec.Struct: ...


class ChatWriter(Writer):
    """Replies of `/v1/chat/completions`. `new_id` names calls."""

    def __init__(
        self,
        reply: Reply,
        reply_id: str,
        created: int,
        chat: ChatRequest,
        choices: int,
        dialect: Dialect,
        new_id: Callable[[], str],
    ) -> None:
        super().__init__(reply, reply_id, created, chat, choices)
        self._begun: set[int] = set()
        self._logprobs = bool(chat.logprobs)
        tools = offered(chat)
        self._marks = None if chat.reasoning_format == "none" else dialect.reasoning
        self._calls = dialect.calls if tools else None
        self._names = [tool.function.name for tool in tools]
        self._new_id = new_id
        self._readers = [self._reader() for _ in range(choices)]
        self._parts: list[list[Thought | Said | ToolCall]] = [[] for _ in range(choices)]

    def _reader(self, *, reasoning: bool = False) -> AnswerReader:
        return AnswerReader(self._marks, self._calls, self._names, reasoning=reasoning)

    def _start(self, index: int, event: Started) -> None:
        self._readers[index] = self._reader(reasoning=event.reasoning and self._marks is not None)

    def _chunks(self, index: int, event: Text | Finished) -> list[ChatChunk]:
        """What is certain of the answer now: for a client that does not stream, only noted."""
        reader, ended = self._readers[index], isinstance(event, Finished)
        found = reader.finish() if isinstance(event, Finished) else reader.feed(event.text)
        parts = [self._named(part) if isinstance(part, Call) else part for part in found]
        deltas = [delta for part in parts for delta in self._deltas(index, part)]
        self._parts[index] += parts
        if not self._stream:
            return []
        chunks = [self._envelope([ChunkChoice(index, self._with_role(index, delta))]) for delta in deltas]
        if isinstance(event, Finished):
            reason = self._reason(index)
            chunks.append(self._envelope([ChunkChoice(index, self._with_role(index, Delta()), finish_reason=reason)]))
        if chunks and self._logprobs:
            self._tell_logprobs(index, chunks, ended)
        return chunks

    def _tell_logprobs(self, index: int, chunks: list[ChatChunk], ended: bool) -> None:
        """With the first chunk go those of all tokens since the last one, some of which it may hold back."""
        untold = self._choices[index].logprobs
        if untold or not ended:
            choice = msgspec.structs.replace(chunks[0].choices[0], logprobs=_chat_logprobs(untold))
            chunks[0] = msgspec.structs.replace(chunks[0], choices=[choice])
            self._choices[index].logprobs = []

    def _named(self, call: Call) -> ToolCall:
        return ToolCall(self._new_id(), CalledFunction(call.name, call.arguments))

    def _deltas(self, index: int, part: Thought | Said | ToolCall) -> list[Delta]:
        match part:
            case Thought(text):
                return [Delta(reasoning_content=text)]
            case Said(text):
                return [Delta(content=text)]
            case ToolCall():
                number = sum(isinstance(earlier, ToolCall) for earlier in self._parts[index])
                name, arguments = (
                    FunctionDelta(part.function.name, ""),
                    FunctionDelta(arguments=part.function.arguments),
                )
                pieces = [CallDelta(number, part.id, "function", name), CallDelta(number, function=arguments)]
                return [Delta(tool_calls=[piece]) for piece in pieces]

    def _with_role(self, index: int, delta: Delta) -> Delta:
        if index in self._begun:
            return delta
        self._begun.add(index)
        return msgspec.structs.replace(delta, role="assistant")

    def _reason(self, index: int) -> str:
        reason = self._choices[index].reason
        called = any(isinstance(part, ToolCall) for part in self._parts[index])
        return "tool_calls" if called and reason == "stop" else reason

    def _usage_chunk(self, usage: Usage) -> ChatChunk:
        return self._envelope([], usage)

    def _envelope(self, choices: list[ChunkChoice], usage: Usage | None = None) -> ChatChunk:
        told = usage if self._with_usage else msgspec.UNSET
        return ChatChunk(self._id, "chat.completion.chunk", self._created, self._model, choices, told)

    def _whole(self, choices: Sequence[_Choice], usage: Usage) -> ChatCompletion:
        whole = [
            ChatChoice(
                index,
                self._message(index),
                _chat_logprobs(choice.logprobs) if self._logprobs else None,
                self._reason(index),
            )
            for index, choice in enumerate(choices)
        ]
        return ChatCompletion(self._id, "chat.completion", self._created, self._model, whole, usage)

    def _message(self, index: int) -> AssistantMessage:
        parts = self._parts[index]
        said = "".join(part.text for part in parts if isinstance(part, Said))
        thought = "".join(part.text for part in parts if isinstance(part, Thought))
        calls = [part for part in parts if isinstance(part, ToolCall)]
        return AssistantMessage(
            "assistant",
            said or (None if calls else ""),
            reasoning_content=thought or msgspec.UNSET,
            tool_calls=calls or msgspec.UNSET,
        )


class TextWriter(Writer):
    """Replies of `/v1/completions`."""

    def __init__(self, reply: Reply, reply_id: str, created: int, completion: CompletionRequest, choices: int) -> None:
        super().__init__(reply, reply_id, created, completion, choices)
        self._logprobs = completion.logprobs is not None
        self._offsets = [0] * choices

    def _chunks(self, index: int, event: Text | Finished) -> list[TextCompletion]:
        if isinstance(event, Finished):
            return [self._envelope([TextChoice(index, "", finish_reason=event.reason)])]
        logprobs = _text_logprobs(event.logprobs, self._offsets[index]) if self._logprobs else None
        self._offsets[index] += sum(len(_shown(token)) for token in event.logprobs)
        return [self._envelope([TextChoice(index, event.text, logprobs)])]

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
