"""Answering an inference request: which backends may, in which order, and when another one is tried.

The first content byte is the commit point. Before it a failure moves on to the next backend, after it never.
"""

import contextlib
from typing import assert_never

import msgspec
import structlog
import trio
from quiver.schemas import errors
from quiver.schemas.config import Limits
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import Peek

from . import routing
from .decoding import decode_body
from .record import Progress
from .registry import Backend, Call, Endpoint, Registry
from .reply import DownstreamGone, Reply
from .request import Request


class Inference:
    """Carries inference requests to the registry's backends."""

    def __init__(self, registry: Registry, limits: Limits) -> None:
        self._registry, self._limits = registry, limits
        self._turns: dict[str, int] = {}
        self._log = structlog.get_logger(component="inference")

    async def answer(self, endpoint: Endpoint, scope: str, request: Request, reply: Reply, progress: Progress) -> None:
        """Answer through `reply`. Raises `ApiError` for what the client is to be told, `DownstreamGone` when it left."""
        peek = _peek(endpoint, request.body)
        backends = self._candidates(peek.model)
        progress.model, progress.stream = peek.model, bool(peek.stream)
        call = Call(endpoint, peek.model, progress.stream, request.body, request.headers, reply.request_id, scope)
        if not call.stream:
            await self._forward(backends, call, reply, progress)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._heartbeat, reply, nursery.cancel_scope)
            with contextlib.suppress(DownstreamGone):  # a nursery would wrap it; told below
                try:
                    await self._forward(backends, call, reply, progress)
                except ApiError as error:
                    progress.error = error.kind.code
                    await reply.fail(error)
            nursery.cancel_scope.cancel()
        if reply.gone:
            raise DownstreamGone

    async def _heartbeat(self, reply: Reply, exchange: trio.CancelScope) -> None:
        """Keep a silent stream open; when the client turns out to be gone, end the exchange."""
        try:
            await reply.keep_alive(self._limits.heartbeat)
        except DownstreamGone:
            exchange.cancel()

    async def _forward(self, backends: list[Backend], call: Call, reply: Reply, progress: Progress) -> None:
        """Try backends in turn until one has answered; none after the commit point."""
        failures: list[ApiError] = []
        for backend in backends[: 3]:
            progress.attempts += 1
            reply.server_id = backend.id
            try:
                await backend.forward(call, reply)
                return
            except ApiError as error:
                if reply.committed or error.kind.fault == "client":
                    raise
                failures.append(error)
                self._log.warning("attempt failed", request_id=call.request_id, server=backend.id, error=str(error))
        raise _verdict(call.model, failures)

    def _candidates(self, model: str) -> list[Backend]:
        offering = self._registry.offering(model)
        if not offering:
            raise unknown_model(model, self._registry)
        turn = self._turns.get(model, 0)
        self._turns[model] = turn + 1
        return routing.round_robin(offering, turn)


def unknown_model(model: str, registry: Registry) -> ApiError:
    """404, with the name that was probably meant."""
    guess = routing.nearest(model, list(registry.models()))
    hint = f"; did you mean `{guess}`?" if guess else "; `GET /v1/models` lists what is on offer"
    return ApiError(errors.MODEL_NOT_FOUND, f"No server offers the model `{model[:255]}`{hint}", param="model")


_decode_peek = msgspec.json.Decoder(Peek).decode


def _peek(endpoint: Endpoint, body: bytes) -> Peek:
    """What routing needs of the body. Raises `ApiError` that says where the body is wrong."""
    peek = decode_body(body, _decode_peek)
    match endpoint:
        case "chat/completions":
            missing, field_name = peek.messages is msgspec.UNSET, "messages"
        case "completions":
            missing, field_name = peek.prompt is msgspec.UNSET, "prompt"
        case _:
            assert_never(endpoint)
    if missing:
        raise ApiError(errors.INVALID_REQUEST, f"The required field `{field_name}` is missing", param=field_name)
    return peek


def _verdict(model: str, failures: list[ApiError]) -> ApiError:
    """What the client is told when every attempt failed."""
    if all(failure.kind is errors.UPSTREAM_UNREACHABLE for failure in failures):
        return ApiError(
            errors.NO_HEALTHY_BACKEND, f"No server that offers `{model}` can be reached right now", retry_after=5
        )
    return failures[-1]
