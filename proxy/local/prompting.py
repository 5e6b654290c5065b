"""From OpenAI's request to the engine's: one `GenerateRequest` per choice.

Every parameter is either translated or refused by name: a client must never believe that something was honoured.
"""

import json
from collections.abc import Mapping, Sequence

import msgspec
from quiver.schemas import errors
from quiver.schemas.engine import GenerateRequest, Grammar, Prompt
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import ChatMessage, ChatRequest, CompletionRequest, GenerationOptions, TextPart, Tool

from .constraints import answer_schema, wanted_form
from .dialect import Dialect
from .tools import call_fields, calls_grammar, described, known_id, offered, told

# One request may not occupy the engine with more sequences than this.
MAX_CHOICES = 128
# What a plain completion generates when the client does not say: OpenAI's own default.
COMPLETION_TOKENS = 16


# Fields of a chat request that are refused, and what to do about each.
REFUSED = {
    "functions": "use `tools`",
    "function_call": "use `tool_choice`",
    "audio": "the built-in engine answers in text only",
    "web_search_options": "the built-in engine does not search the web",
}


def chat_requests(chat: ChatRequest, scope: str, dialect: Dialect | None = None) -> list[GenerateRequest]:
    """The sequences of a chat request: `n` times the same prompt. Raises `ApiError`."""
    dialect = dialect or Dialect()
    for field, advice in REFUSED.items():
        if getattr(chat, field) is not None:
            raise _unsupported(field, advice)
    if chat.modalities not in (None, ["text"]):
        raise _unsupported("modalities", "the built-in engine answers in text only")
    if chat.top_logprobs is not None and not chat.logprobs:
        raise ApiError(errors.INVALID_REQUEST, "`top_logprobs` needs `logprobs: true`", param="top_logprobs")
    tools = offered(chat)
    prompt = Prompt(messages=_messages(chat, tools, dialect))
    logprobs = (chat.top_logprobs or 0) if chat.logprobs else None
    max_tokens = chat.max_completion_tokens or chat.max_tokens
    form = wanted_form(chat)
    grammar = calls_grammar(chat, tools, dialect, answer_schema(form)) if tools else form
    whole = _request(chat, prompt, max_tokens, logprobs, scope, grammar)
    whole = msgspec.structs.replace(
        whole,
        template_arguments=_template_arguments(chat, tools, dialect),
        reasoning=(dialect.reasoning.open, dialect.reasoning.close) if dialect.reasons else None,
        shown=dialect.shown(calls=bool(tools)),
    )
    return [_choice(whole, choice) for choice in range(chat.n or 1)]


def completion_requests(completion: CompletionRequest, scope: str) -> list[GenerateRequest]:
    """The sequences of a completion: every prompt `n` times. Raises `ApiError`."""
    if completion.suffix:
        raise _unsupported("suffix", "the built-in engine does not fill in the middle")
    if completion.best_of is not None and completion.best_of != (completion.n or 1):
        raise _unsupported("best_of", "the built-in engine returns every choice it generates")
    if completion.echo:
        raise _unsupported("echo", "the built-in engine does not repeat the prompt")
    prompts, n = _prompts(completion.prompt), completion.n or 1
    if len(prompts) * n > MAX_CHOICES:
        message = f"{len(prompts)} prompts times n={n} are more than {MAX_CHOICES} choices"
        raise ApiError(errors.INVALID_REQUEST, message, param="prompt")
    limit = completion.max_tokens or COMPLETION_TOKENS
    form = wanted_form(completion)
    return [
        _choice(_request(completion, prompt, limit, completion.logprobs, scope, form), choice)
        for prompt in prompts
        for choice in range(n)
    ]


def _prompts(prompt: str | list[str | int | list[int]]) -> list[Prompt]:
    if isinstance(prompt, str):
        return [Prompt(text=prompt)]
    if not prompt:
        raise ApiError(errors.INVALID_REQUEST, "`prompt` is empty", param="prompt")
    ids = [item for item in prompt if isinstance(item, int)]
    if len(ids) == len(prompt):
        return [Prompt(tokens=ids)]
    if ids:
        raise ApiError(errors.INVALID_REQUEST, "`prompt` mixes token ids with texts or lists", param="prompt")
    return [
        Prompt(text=item) if isinstance(item, str) else Prompt(tokens=item)
        for item in prompt
        if not isinstance(item, int)  # none is left; the type checker does not know
    ]


def _template_arguments(chat: ChatRequest, tools: Sequence[Tool], dialect: Dialect) -> dict[str, object]:
    """Variables for the chat template beside the messages. The client's own come first; the messages stay the messages."""
    arguments: dict[str, object] = {}
    if tools and dialect.knows_tools:
        arguments["tools"] = described(tools)
    if chat.reasoning_effort is not None:
        arguments["reasoning_effort"] = chat.reasoning_effort
        if chat.reasoning_effort == "none":
            arguments["enable_thinking"] = False
    own = chat.chat_template_kwargs or {}
    for name in ("messages", "tools", "add_generation_prompt"):
        if name in own:
            param = f"chat_template_kwargs.{name}"
            raise ApiError(errors.INVALID_REQUEST, f"`{param}` cannot be set: it comes from the request", param=param)
    return arguments | own


def _messages(chat: ChatRequest, tools: Sequence[Tool], dialect: Dialect) -> list[dict[str, object]]:
    """The conversation as the model's template expects it."""
    names: dict[str, str] = {}  # the functions that were called, by the call's id
    messages = []
    for index, message in enumerate(chat.messages):
        names |= {call.id: call.function.name for call in message.tool_calls or []}
        messages.append(_message(index, message, dialect, names))
    if tools and not dialect.knows_tools:
        _tell(messages, told(tools), dialect)
    return messages


def _tell(messages: list[dict[str, object]], text: str, dialect: Dialect) -> None:
    """Add `text` to the system message, or where the template takes none to the first message."""
    first = messages[0]
    if first["role"] == "system" or not dialect.knows_system:
        pieces = [first["content"], text] if first["role"] == "system" else [text, first["content"]]
        first["content"] = "\n\n".join(str(piece) for piece in pieces if piece)
    else:
        messages.insert(0, {"role": "system", "content": text})


def _message(index: int, message: ChatMessage, dialect: Dialect, names: Mapping[str, str]) -> dict[str, object]:
    """A message as chat templates expect it: its content is one string, the arguments of its calls are objects."""
    fields: dict[str, object] = {"role": message.role, "content": _text(index, message)}
    if message.name is not None:
        fields["name"] = message.name
    if message.reasoning_content is not None:
        fields["reasoning_content"] = message.reasoning_content
    if message.tool_calls:
        fields["tool_calls"] = call_fields(index, message, dialect)
    if message.tool_call_id is not None:
        fields["tool_call_id"] = known_id(message.tool_call_id, dialect)
        if message.tool_call_id in names:
            fields.setdefault("name", names[message.tool_call_id])
    return fields if dialect.knows_tools else _in_words(fields)


def _in_words(fields: dict[str, object]) -> dict[str, object]:
    """A message with calls, or with a call's result, for a template that knows neither."""
    calls = fields.pop("tool_calls", None)
    if isinstance(calls, list):
        written = [json.dumps(call["function"]) for call in calls]
        texts = [str(fields["content"]), *(f"<tool_call>\n{call}\n</tool_call>" for call in written)]
        fields["content"] = "\n".join(text for text in texts if text)
    if fields.pop("tool_call_id", None) is not None or fields["role"] == "tool":
        fields.pop("name", None)
        fields |= {"role": "user", "content": f"<tool_response>\n{fields['content']}\n</tool_response>"}
    return fields


def _text(index: int, message: ChatMessage) -> str:
    if message.content is None:
        return ""
    if isinstance(message.content, str):
        return message.content
    pieces = []
    for number, part in enumerate(message.content):
        if not isinstance(part, TextPart):
            raise _unsupported(f"messages[{index}].content[{number}]", "the built-in engine reads text only")
        pieces.append(part.text)
    return "".join(pieces)


def _request(
    options: GenerationOptions,
    prompt: Prompt,
    max_tokens: int | None,
    logprobs: int | None,
    scope: str,
    grammar: Grammar | None,
) -> GenerateRequest:
    stop = [options.stop] if isinstance(options.stop, str) else options.stop or []
    return GenerateRequest(
        prompt=prompt,
        max_tokens=max_tokens,
        temperature=_or(options.temperature, 1.0),
        top_p=_or(options.top_p, 1.0),
        top_k=options.top_k or 0,
        min_p=options.min_p or 0.0,
        seed=_seed(options.seed, 0),
        frequency_penalty=options.frequency_penalty or 0.0,
        presence_penalty=options.presence_penalty or 0.0,
        repetition_penalty=_or(options.repetition_penalty, 1.0),
        logit_bias=options.logit_bias or {},
        stop=[text for text in stop if text],
        logprobs=logprobs,
        scope=scope,
        grammar=grammar,
    )


def _choice(first: GenerateRequest, choice: int) -> GenerateRequest:
    """The request for choice number `choice`."""
    return msgspec.structs.replace(first, seed=_seed(first.seed, choice)) if choice else first


def _seed(seed: int | None, choice: int) -> int | None:
    """Choices of one seeded request differ from each other, and are the same when it is sent again."""
    return None if seed is None else (seed + choice) % 2**64


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _unsupported(param: str, reason: str) -> ApiError:
    return ApiError(errors.UNSUPPORTED_PARAMETER, f"`{param}` is not supported here: {reason}", param=param)
