"""The inference API."""

from quiver.schemas.openai import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    CompletionRequest,
    EmbeddingList,
    EmbeddingRequest,
    ModelCard,
    ModelList,
    TextCompletion,
)

from .operation import EVERY_STATUS, Operation

_HELLO = {"model": "bolt", "messages": [{"role": "user", "content": "What is Quiver?"}]}
INFERENCE = (
    Operation(
        "createChatCompletion",
        "post",
        "/v1/chat/completions",
        "Answer a conversation",
        "inference",
        ChatCompletion,
        request=ChatRequest,
        stream=ChatChunk,
        failures=EVERY_STATUS,
        lock="client",
        example=_HELLO,
    ),
    Operation(
        "createCompletion",
        "post",
        "/v1/completions",
        "Continue a text",
        "inference",
        TextCompletion,
        request=CompletionRequest,
        stream=TextCompletion,
        failures=EVERY_STATUS,
        lock="client",
        example={"model": "bolt", "prompt": "Quiver is", "max_tokens": 16},
    ),
    Operation(
        "createEmbedding",
        "post",
        "/v1/embeddings",
        "Embed texts, on servers that can",
        "inference",
        EmbeddingList,
        request=EmbeddingRequest,
        failures=EVERY_STATUS,
        lock="client",
        example={"model": "all-minilm", "input": "What is Quiver?"},
    ),
    Operation(
        "listModels",
        "get",
        "/v1/models",
        "List the models on offer",
        "inference",
        ModelList,
        failures=(401, 429, 500, 503),
        lock="client",
    ),
    Operation(
        "getModel",
        "get",
        "/v1/models/{id}",
        "Show one model",
        "inference",
        ModelCard,
        failures=(401, 404, 429, 500, 503),
        lock="client",
    ),
)
