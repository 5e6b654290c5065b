"""From OpenAI's request to the engine's: one `GenerateRequest` per choice.

Every parameter is either translated or refused by name: a client must never believe that something was honoured.
"""

from quiver.schemas import errors
from quiver.schemas.engine import GenerateRequest, Prompt
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import ChatMessage, ChatRequest, CompletionRequest, GenerationOptions, TextPart

# One request may not occupy the engine with more sequences than this.
MAX_CHOICES = 128
# What a plain completion generates when the client does not say: OpenAI's own default.
COMPLETION_TOKENS = 16


def chat_requests(chat: ChatRequest, scope: str) -> list[GenerateRequest]:
    """The sequences of a chat request: `n` times the same prompt. Raises `ApiError`."""
    if chat.tools and chat.tool_choice != "none":
        raise _unsupported("tools", "the built-in engine does not call tools")
    if chat.response_format is not None and chat.response_format.type != "text":
        raise _unsupported("response_format", "the built-in engine answers in plain text only")
    if chat.top_logprobs is not None and not chat.logprobs:
        raise ApiError(errors.INVALID_REQUEST, "`top_logprobs` needs `logprobs: true`", param="top_logprobs")
    prompt = Prompt(messages=[_message(index, message) for index, message in enumerate(chat.messages)])
    logprobs = (chat.top_logprobs or 0) if chat.logprobs else None
    max_tokens = chat.max_completion_tokens or chat.max_tokens
    return [_request(chat, prompt, max_tokens, logprobs, choice, scope) for choice in range(chat.n or 1)]


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
    return [
        _request(completion, prompt, limit, completion.logprobs, choice, scope)
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


def _message(index: int, message: ChatMessage) -> dict[str, object]:
    """A message as chat templates expect it: its content is one string."""
    fields: dict[str, object] = {"role": message.role, "content": _text(index, message)}
    if message.name is not None:
        fields["name"] = message.name
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
    options: GenerationOptions, prompt: Prompt, max_tokens: int | None, logprobs: int | None, choice: int, scope: str
) -> GenerateRequest:
    stop = [options.stop] if isinstance(options.stop, str) else options.stop or []
    return GenerateRequest(
        prompt=prompt,
        max_tokens=max_tokens,
        temperature=_or(options.temperature, 1.0),
        top_p=_or(options.top_p, 1.0),
        top_k=options.top_k or 0,
        min_p=options.min_p or 0.0,
        seed=_seed(options.seed, choice),
        frequency_penalty=options.frequency_penalty or 0.0,
        presence_penalty=options.presence_penalty or 0.0,
        repetition_penalty=_or(options.repetition_penalty, 1.0),
        logit_bias=options.logit_bias or {},
        stop=[text for text in stop if text],
        logprobs=logprobs,
        scope=scope,
    )


def _seed(seed: int | None, choice: int) -> int | None:
    """Choices of one seeded request differ from each other, and are the same when it is sent again."""
    return None if seed is None else (seed + choice) % 2**64


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _unsupported(param: str, reason: str) -> ApiError:
    return ApiError(errors.UNSUPPORTED_PARAMETER, f"`{param}` is not supported here: {reason}", param=param)
