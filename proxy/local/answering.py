"""Answering one call on a loaded model: what the call asks for becomes sequences in the engine, their events the reply.

What the engine cannot honour is refused by name, never ignored. Which model it is, and whether it is loaded, is settled
before.
"""

from collections.abc import Awaitable, Callable

import msgspec
import trio
from msgspec.structs import replace
from quiver.schemas import errors
from quiver.schemas.engine import GenerateRequest
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import ChatRequest, CompletionRequest

from ..admission.ticket import LEVELS
from ..decoding import decode_body
from ..native import EngineError, Failed, Finished, InvalidRequest, Started, Text
from ..registry import Call
from ..reply import DownstreamGone, Reply
from ..seams import World
from ..telemetry.record import EngineTimings
from .completion import ChatWriter, TextWriter, Writer
from .engine import LocalEngine
from .figures import SequenceFigures
from .prompting import chat_requests, completion_requests
from .tools import known_id

# Engine codes that have a row of their own in the catalogue; the rest are faults of the engine.
CODES = {
    "context_length_exceeded": errors.CONTEXT_LENGTH_EXCEEDED,
    "invalid_request": errors.INVALID_REQUEST,
    "chat_template": errors.INVALID_REQUEST,
    "grammar": errors.INVALID_REQUEST,
    "engine_stopped": errors.ENGINE_STOPPED,
    "deadline_exceeded": errors.DEADLINE_EXCEEDED,
    "kv_full": errors.CONTEXT_LENGTH_EXCEEDED,
}

_decode_chat = msgspec.json.Decoder(ChatRequest).decode
_decode_completion = msgspec.json.Decoder(CompletionRequest).decode
_encode = msgspec.json.Encoder().encode


async def answer(
    engine: LocalEngine, call: Call, reply: Reply, deadline: float, world: World, figures: SequenceFigures
) -> None:
    """Generate the reply to `call`, which has until `deadline`, and note in `figures` how that went. Raises `ApiError`."""
    created = int(world.wall_clock())
    writer: Writer
    if call.endpoint == "chat/completions":
        chat = decode_body(call.body, _decode_chat)
        dialect = engine.dialect

        def call_id() -> str:
            return known_id(world.unique_id("call_"), dialect)

        requests = chat_requests(chat, call.scope, dialect)
        reply_id = world.unique_id("chatcmpl-")
        writer = ChatWriter(reply, reply_id, created, chat, len(requests), dialect, call_id)
    else:
        completion = decode_body(call.body, _decode_completion)
        requests = completion_requests(completion, call.scope)
        writer = TextWriter(reply, world.unique_id("cmpl-"), created, completion, len(requests))

    left = max(1, round(1000 * (deadline - trio.current_time())))
    priority = LEVELS["normal"] - LEVELS[call.priority]
    requests = [replace(request, priority=priority, deadline_ms=left) for request in requests]

    async def take(index: int, event: Started | Text | Finished) -> None:
        if isinstance(event, Finished):
            figures.observe(event)
            timings = _timings(event)
            reply.engine = timings if reply.engine is None else timings.beside(reply.engine)
        await writer.take(index, event)

    try:
        if len(requests) == 1:
            await _follow(engine, requests[0], 0, take)
        else:
            await _follow_all(engine, requests, take)
    except (DownstreamGone, trio.Cancelled):
        writer.leave()
        raise
    await writer.close()


def _timings(event: Finished) -> EngineTimings:
    return EngineTimings(
        queue=event.queue_seconds,
        prompt=event.prefill_seconds,
        generation=event.decode_seconds,
        first_token=event.first_token_seconds,
        prompt_tokens=event.prompt_tokens,
        completion_tokens=event.completion_tokens,
        cached_tokens=event.cached_tokens,
        drafted_tokens=event.drafted_tokens,
        accepted_tokens=event.accepted_tokens,
    )


Take = Callable[[int, Started | Text | Finished], Awaitable[None]]


async def _follow(engine: LocalEngine, request: GenerateRequest, index: int, take: Take) -> None:
    """Run one sequence to its end. Leaving early, for whatever reason, cancels it in the engine."""
    try:
        async with engine.generate(_encode(request)) as events:
            async for event in events:
                if isinstance(event, Failed):
                    kind = CODES.get(event.code, errors.ENGINE_ERROR)
                    raise ApiError(kind, event.message, param=_field_of(event))
                await take(index, event)
    except InvalidRequest as error:
        raise ApiError(errors.INVALID_REQUEST, str(error), param=error.field) from error
    except EngineError as error:
        raise ApiError(CODES.get(error.code, errors.ENGINE_ERROR), str(error)) from error


async def _follow_all(engine: LocalEngine, requests: list[GenerateRequest], take: Take) -> None:
    """Run several sequences of one request side by side; the first error ends them all."""
    failures: list[Exception] = []
    one_at_a_time = trio.Lock()

    async def take_in_turn(index: int, event: Started | Text | Finished) -> None:
        async with one_at_a_time:
            await take(index, event)

    async def follow(index: int, scope: trio.CancelScope) -> None:
        try:
            await _follow(engine, requests[index], index, take_in_turn)
        except Exception as error:  # re-raised below, outside the nursery, so that it is not wrapped in a group
            failures.append(error)
            scope.cancel()

    async with trio.open_nursery() as nursery:
        for index in range(len(requests)):
            nursery.start_soon(follow, index, nursery.cancel_scope)
    if failures:
        raise failures[0]


def _field_of(failed: Failed) -> str | None:
    """The field of a request that was refused once it was read: the engine's words begin with it."""
    if failed.code != "invalid_request" or not failed.message.startswith("`"):
        return None
    return failed.message[1:].partition("`")[0]
