"""OpenAI's wire format, as far as Quiver reads or writes it.

Two kinds of request types: `Peek` decodes only what routing needs, so that a body bound for a remote server travels
untouched; `ChatRequest` and `CompletionRequest` are what the built-in engine can honour. Reply types serve the engine; those
of embeddings, which only remote servers make, the description of the API.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .forms import whole

ModelName = Annotated[str, Meta(min_length=1, max_length=255, pattern=whole(r"[!-~]+"))]


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class Peek(msgspec.Struct, frozen=True):
    """What the gateway needs of any request body: which model, whether the reply streams, how long it may become, and
    whether asking twice would give the same answer. Whether `model` is a name at all is not checked here.
    """

    model: str
    stream: bool | None = None
    messages: msgspec.Raw | UnsetType = UNSET
    prompt: msgspec.Raw | UnsetType = UNSET
    input: msgspec.Raw | UnsetType = UNSET
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    n: int | None = None


class TextPart(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    text: str


class ImagePart(msgspec.Struct, frozen=True, tag_field="type", tag="image_url"):
    image_url: msgspec.Raw


class AudioPart(msgspec.Struct, frozen=True, tag_field="type", tag="input_audio"):
    input_audio: msgspec.Raw


ContentPart = TextPart | ImagePart | AudioPart


class CalledFunction(msgspec.Struct, frozen=True):
    """A function with its arguments: a JSON object, written as a string."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True):
    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct, frozen=True):
    role: Annotated[str, Meta(min_length=1, max_length=64)]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


Temperature = Annotated[float, Meta(ge=0, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Positive = Annotated[int, Meta(ge=1)]
# The range of a signed 64-bit integer, OpenAI's own for `seed`.
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


JsonSchema = dict[str, Any]


class StructuredOutputs(msgspec.Struct, frozen=True):
    json: JsonSchema | str | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


class GenerationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters that chat and plain completions share. `top_k`, `min_p`, `repetition_penalty` are common extensions."""

    model: ModelName
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    min_p: Share | None = None
    seed: Seed | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=16)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    user: str | None = None
    # As clients of vLLM (`guided_...`, later `structured_outputs`) and llama.cpp (`grammar`, `json_schema`) name them.
    guided_json: JsonSchema | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None
    grammar: str | None = None
    json_schema: JsonSchema | None = None


class NamedSchema(msgspec.Struct, frozen=True):
    name: str
    schema: JsonSchema | None = None
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    type: str
    json_schema: NamedSchema | None = None


class FunctionDefinition(msgspec.Struct, frozen=True):
    name: Annotated[str, Meta(pattern=whole(r"[a-zA-Z0-9_.-]{1,128}"))]
    description: str | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, frozen=True):
    function: FunctionDefinition
    type: Literal["function"] = "function"


class FunctionName(msgspec.Struct, frozen=True):
    name: str


class ToolChoice(msgspec.Struct, frozen=True):
    """The one function that must be called."""

    function: FunctionName
    type: Literal["function"] = "function"


class ChatRequest(GenerationOptions, frozen=True, kw_only=True):
    """`POST /v1/chat/completions` for the built-in engine."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Meta(max_length=256)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: Annotated[str, Meta(max_length=32)] | None = None
    # llama.cpp's: `none` leaves the reasoning in the text.
    reasoning_format: Literal["auto", "deepseek", "none"] | None = None
    # Sent by older or other clients; each is refused by name, since an answer without it would mislead.
    functions: Any = None
    function_call: Any = None
    audio: Any = None
    modalities: list[str] | None = None
    web_search_options: Any = None


class CompletionRequest(GenerationOptions, frozen=True, kw_only=True):
    """`POST /v1/completions` for the built-in engine: text, token ids, or several of either."""

    # msgspec takes one list type per union, so that a list of a mixture is refused by `proxy.local.prompting` instead.
    prompt: str | list[str | int | list[int]]
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None


FinishReason = Literal["stop", "length", "tool_calls"]


# More than any request can use. Servers tell what theirs have used, and budgets and sums are made of it.
TokenCount = Annotated[int, Meta(ge=0, le=1_000_000_000)]


class CompletionDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: TokenCount | None = None


class PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: TokenCount | None = None


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: TokenCount = 0
    completion_tokens: TokenCount = 0
    total_tokens: TokenCount = 0
    completion_tokens_details: CompletionDetails | UnsetType | None = UNSET
    prompt_tokens_details: PromptDetails | UnsetType | None = UNSET


class UsageOnly(msgspec.Struct, frozen=True):
    """The one field that accounting reads of a remote server's reply."""

    usage: Usage | None = None


class TopLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True):
    content: list[TokenLogprob]


class CompletionLogprobs(msgspec.Struct, frozen=True):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class FunctionDelta(msgspec.Struct, frozen=True):
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class CallDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of a call: the first of each has its id and name, the others more of its arguments."""

    index: int
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    function: FunctionDelta | UnsetType = UNSET


class Delta(msgspec.Struct, frozen=True):
    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[CallDelta] | UnsetType = UNSET


class ChunkChoice(msgspec.Struct, frozen=True):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None


class ChatChunk(msgspec.Struct, frozen=True):
    id: str
    object: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET


class AssistantMessage(msgspec.Struct, frozen=True):
    role: str
    content: str | None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChatChoice(msgspec.Struct, frozen=True):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatCompletion(msgspec.Struct, frozen=True):
    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class TextChoice(msgspec.Struct, frozen=True):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None


class TextCompletion(msgspec.Struct, frozen=True):
    """Both a whole reply and a streamed chunk of `/v1/completions`: they share one shape."""

    id: str
    object: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | UnsetType | None = UNSET


class ModelCard(msgspec.Struct, frozen=True):
    """A model on offer. `available_servers`: those in service that have it; not one of OpenAI's fields."""

    id: str
    created: int
    owned_by: str
    object: str = "model"
    available_servers: int = 0


class ModelList(msgspec.Struct, frozen=True):
    data: list[ModelCard]
    object: str = "list"


# More than any server has; the gateway keeps the names of all.
MOST_MODELS = 10_000


class RemoteModel(msgspec.Struct, frozen=True):
    """One entry of a remote server's `/v1/models`; servers differ in everything but the id."""

    id: str


class RemoteModelList(msgspec.Struct, frozen=True):
    data: Annotated[list[RemoteModel], Meta(max_length=MOST_MODELS)]


class EmbeddingRequest(msgspec.Struct, frozen=True):
    """Embeddings of one text or several; of token ids, too, where the server takes them."""

    model: ModelName
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


class Embedding(msgspec.Struct, frozen=True):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, frozen=True):
    """A server's reply, as it is passed on."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
