"""The built-in encoder on Trio: embeddings of OpenAI's form from a model of the BERT family.

The model's own thread computes, texts of several requests together; a request waits for it in a thread, so that nothing
here holds up the event loop. Whoever leaves early has cancelled its request in the model.
"""

import sys
from array import array
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import trio
from quiver.schemas import errors
from quiver.schemas.errors import ApiError
from quiver.schemas.models import ModelDescription
from quiver.schemas.openai import Embedding, EmbeddingRequest, EmbeddingUsage, Usage

from ..decoding import decode_body
from ..native import (
    ContextOverflow,
    Embedded,
    EmbeddingTicket,
    Encoder,
    EncoderInfo,
    EngineError,
    EngineStopped,
    InvalidRequest,
    ModelLoadError,
    is_encoder,
)
from ..reply import Reply
from ..seams import offload

# OpenAI's own limit.
MAX_INPUTS = 2048
# Vectors written as JSON before others get their turn.
VECTORS_AT_ONCE = 16
TOKEN_LIMIT = 2**32

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(EmbeddingRequest).decode

Input = str | list[int]


def makes_embeddings(path: str) -> bool:
    """Whether the file holds an encoder. A file that cannot be read holds none; loading it says why."""
    try:
        return is_encoder(path)
    except ModelLoadError:
        return False


class LocalEncoder:
    """A loaded encoder that any number of tasks may use. Made by `open_local_encoder`, which also closes it."""

    def __init__(self, native: Encoder) -> None:
        self._native = native

    def __repr__(self) -> str:
        return f"<LocalEncoder {self.info.architecture}>"

    @property
    def info(self) -> EncoderInfo:
        return self._native.info

    @property
    def description(self) -> ModelDescription:
        """What the file says of itself, for operators."""
        info = self.info
        return ModelDescription(
            architecture=info.architecture,
            name=info.name,
            parameters=info.parameters,
            context_length=info.context_length,
            size_bytes=info.size_bytes,
            file_type="unknown",
        )

    @property
    def kv_bytes(self) -> int:
        """Encoders keep nothing."""
        return 0

    async def embed(self, inputs: list[Input], dimensions: int | None = None) -> Embedded:
        """A vector for each text or list of tokens; of its numbers the first `dimensions`.

        Error handling: raises `InvalidRequest`, `ContextOverflow` or `EngineStopped`.
        """
        ticket = self._native.request(inputs, dimensions=dimensions)
        failure: EngineError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at_end, ticket)
            try:
                embedded = await offload(ticket.wait)
            except EngineError as error:  # raised below, outside the nursery, so that it is not wrapped in a group
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return embedded

    async def answer(self, body: bytes, reply: Reply) -> None:
        """Answer a request to `/v1/embeddings`. Raises `ApiError`."""
        request = decode_body(body, _decode)
        inputs = embedding_inputs(request.input)
        try:
            embedded = await self.embed(inputs, request.dimensions)
        except ContextOverflow as error:
            message = f"A text of {error.prompt} tokens does not fit into the model's context of {error.limit}"
            raise ApiError(errors.CONTEXT_LENGTH_EXCEEDED, message, param="input") from error
        except InvalidRequest as error:
            raise ApiError(errors.INVALID_REQUEST, str(error), param=error.field) from error
        except EngineStopped as error:
            raise ApiError(errors.ENGINE_STOPPED, str(error)) from error
        except EngineError as error:
            raise ApiError(errors.ENGINE_ERROR, str(error)) from error
        tokens = sum(embedded.tokens)
        reply.usage = Usage(tokens, 0, tokens)
        await reply.complete(200, await _written(request, embedded))


@asynccontextmanager
async def open_local_encoder(path: str, *, threads: int = 0) -> AsyncIterator[LocalEncoder]:
    """A model file, loaded and running. `threads` 0 means one per processor.

    Error handling: raises `ModelLoadError` when the file cannot be loaded.

    Resource handling: at the end requests that are still open fail with `EngineStopped`.
    """
    native = await offload(partial(Encoder, path, threads=threads))
    try:
        yield LocalEncoder(native)
    finally:
        with trio.CancelScope(shield=True):  # the batch under way is bounded
            await offload(native.close)


def embedding_inputs(given: object) -> list[Input]:
    """The texts, or lists of token ids, of a request's `input`. Raises `ApiError` that names the one at fault."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise _invalid("`input` should be a text or tokens, or a list of them that is not empty", "input")
    if _is_token(given[0]):
        return [_tokens(given, "input")]
    if len(given) > MAX_INPUTS:
        raise _invalid(f"`input` has {len(given)} elements; at most {MAX_INPUTS} are taken", "input")
    return [
        element if isinstance(element, str) else _tokens(element, f"input[{index}]")
        for index, element in enumerate(given)
    ]


def _tokens(given: object, param: str) -> list[int]:
    if not isinstance(given, list) or not given or not all(map(_is_token, given)):
        raise _invalid(f"`{param}` should be a text or a list of token ids that is not empty", param)
    return given


def _is_token(given: object) -> bool:
    return type(given) is int and 0 <= given < TOKEN_LIMIT


def _invalid(message: str, param: str) -> ApiError:
    return ApiError(errors.INVALID_REQUEST, message, param=param)


async def _cancel_at_end(ticket: EmbeddingTicket) -> None:
    try:
        await trio.sleep_forever()
    finally:
        ticket.cancel()


async def _written(request: EmbeddingRequest, embedded: Embedded) -> bytes:
    """The reply's body. Written vector by vector: a request may ask for millions of numbers, and others run meanwhile."""
    size = embedded.width * 4
    written = []
    for index in range(len(embedded.tokens)):
        vector = embedded.values[index * size : (index + 1) * size]
        value = b64encode(vector).decode() if request.encoding_format == "base64" else _numbers(vector)
        written.append(_encode(Embedding("embedding", index, value)))
        if index % VECTORS_AT_ONCE == VECTORS_AT_ONCE - 1:
            await trio.lowlevel.checkpoint()
    tokens = sum(embedded.tokens)
    rest = _encode({"model": request.model, "usage": EmbeddingUsage(tokens, tokens)})
    return b'{"object":"list","data":[' + b",".join(written) + b"]," + rest[1:]


def _numbers(vector: bytes) -> list[float]:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
