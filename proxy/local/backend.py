"""The built-in engine as a backend: an OpenAI request becomes sequences in the engine, their events an OpenAI reply. A
file with an encoder makes embeddings instead.

What the engine cannot honour is refused by name, never ignored.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from importlib.resources import files
from pathlib import Path

import msgspec
import structlog
import trio
from quiver.schemas import errors
from quiver.schemas.config import Engine as EngineConfig
from quiver.schemas.config import LocalModel
from quiver.schemas.engine import GenerateRequest
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import ChatRequest, CompletionRequest

from ..decoding import decode_body
from ..metrics import Figure
from ..native import EngineError, Failed, Finished, InvalidRequest, ModelLoadError, Text
from ..record import EngineTimings
from ..registry import BackendStatus, Call, Health
from ..reply import Reply
from ..routing.load import Load
from ..seams import World
from ..watch import Watch
from .completion import ChatWriter, TextWriter, Writer
from .embedding import LocalEncoder, makes_embeddings, open_local_encoder
from .engine import LocalEngine, open_local_engine
from .figures import SequenceFigures, statistics_figures
from .prompting import chat_requests, completion_requests

BOLT = LocalModel(path=str(files("quiver").joinpath("models", "bolt.gguf")), id="bolt")

# Engine codes that have a row of their own in the catalogue; the rest are faults of the engine.
CODES = {
    "context_length_exceeded": errors.CONTEXT_LENGTH_EXCEEDED,
    "invalid_request": errors.INVALID_REQUEST,
    "chat_template": errors.INVALID_REQUEST,
    "engine_stopped": errors.ENGINE_STOPPED,
}

TIERS: dict[Health, int] = {"healthy": 0, "unknown": 1, "unhealthy": 3}

_decode_chat = msgspec.json.Decoder(ChatRequest).decode
_decode_completion = msgspec.json.Decoder(CompletionRequest).decode
_encode = msgspec.json.Encoder().encode


class EngineModel:
    """One GGUF file served by the engine. `run` loads it and holds it until `stop`. What it holds, a decoder or an encoder,
    decides which paths it serves.
    """

    def __init__(self, model: LocalModel, config: EngineConfig, world: World) -> None:
        self.model = model.id or Path(model.path).stem
        self.id = f"engine:{self.model}"
        self._path, self._config, self._world = model.path, config, world
        self._encodes = makes_embeddings(model.path)
        self.endpoints = ("embeddings",) if self._encodes else ("chat/completions", "completions")
        self._engine: LocalEngine | LocalEncoder | None = None
        self._loaded, self._stopping = trio.Event(), trio.Event()
        self._reason: str | None = "loading"
        self.load = Load(limit=config.max_sequences)
        self._sequences = SequenceFigures()
        self._log = structlog.get_logger(component="engine", model=self.model)

    def __repr__(self) -> str:
        return f"<EngineModel {self.model}: {self.health}, {self.load.in_flight} in flight>"

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model,)

    @property
    def health(self) -> Health:
        if self._engine is not None:
            return "healthy"
        return "unhealthy" if self._loaded.is_set() else "unknown"

    def status(self) -> BackendStatus:
        return BackendStatus(
            self.id, "engine", Path(self._path).name, self.models, self.health, self._reason, self.load.in_flight
        )

    def figures(self) -> Iterator[Figure]:
        """For the metrics page. A model that is not loaded has no statistics."""
        label = ("model", self.model)
        if self._engine is not None:
            yield from statistics_figures(self._engine.statistics(), label)
        yield from self._sequences.figures(label)

    def stop(self) -> None:
        """Make `run` free the model and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Load the model and hold it. A file that cannot be loaded is logged and told to clients; nothing else stops."""
        try:
            async with self._opened() as engine:
                self._engine, self._reason = engine, None
                self._loaded.set()
                self._log.info("model loaded", file=self._path, info=repr(engine.info))
                await self._stopping.wait()
                self._engine, self._reason = None, "stopped"
        except* ModelLoadError as group:
            error = _first(group)
            self._reason = str(error)
            self._log.error("model cannot be loaded", file=self._path, error=str(error), code=error.code)
        finally:
            self._loaded.set()

    def _opened(self) -> AbstractAsyncContextManager[LocalEngine | LocalEncoder]:
        config = self._config
        if self._encodes:
            return open_local_encoder(self._path, threads=config.threads)
        return open_local_engine(
            self._path,
            threads=config.threads,
            context_length=config.context_length,
            max_sequences=config.max_sequences,
            kv_type=config.kv,
        )

    def takes(self, call: Call) -> bool:
        return call.endpoint in self.endpoints

    def fits(self, call: Call) -> bool:
        return True  # it counts the tokens itself, and says both numbers

    def ready(self, call: Call, now: float) -> bool:
        return self._engine is not None and not self.load.full and call.endpoint in self.endpoints

    def tier(self, now: float) -> int:
        return TIERS[self.health]

    def paused_until(self, model: str) -> float:
        return 0.0

    async def forward(self, call: Call, reply: Reply, watch: Watch) -> None:
        """Generate the reply to `call`."""
        with watch:
            engine = await self._ready()
            if isinstance(engine, LocalEncoder):
                await engine.answer(call.body, reply)
            else:
                await self._generate(engine, call, reply)

    async def _ready(self) -> LocalEngine | LocalEncoder:
        await self._loaded.wait()
        if self._engine is None:
            raise ApiError(
                errors.MODEL_NOT_LOADED, f"The model `{self.model}` could not be loaded; the gateway's log says why"
            )
        return self._engine

    async def _generate(self, engine: LocalEngine, call: Call, reply: Reply) -> None:
        created = int(self._world.wall_clock())
        writer: Writer
        if call.endpoint == "chat/completions":
            chat = decode_body(call.body, _decode_chat)
            requests = chat_requests(chat, call.scope)
            writer = ChatWriter(reply, self._world.unique_id("chatcmpl-"), created, chat, len(requests))
        else:
            completion = decode_body(call.body, _decode_completion)
            requests = completion_requests(completion, call.scope)
            writer = TextWriter(reply, self._world.unique_id("cmpl-"), created, completion, len(requests))

        async def take(index: int, event: Text | Finished) -> None:
            if isinstance(event, Finished):
                self._sequences.observe(event)
                timings = _timings(event)
                reply.engine = timings if reply.engine is None else timings.beside(reply.engine)
            await writer.take(index, event)

        if len(requests) == 1:
            await _follow(engine, requests[0], 0, take)
        else:
            await _follow_all(engine, requests, take)
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


Take = Callable[[int, Text | Finished], Awaitable[None]]


async def _follow(engine: LocalEngine, request: GenerateRequest, index: int, take: Take) -> None:
    """Run one sequence to its end. Leaving early, for whatever reason, cancels it in the engine."""
    try:
        async with engine.generate(_encode(request)) as events:
            async for event in events:
                if isinstance(event, Failed):
                    raise ApiError(CODES.get(event.code, errors.ENGINE_ERROR), event.message)
                if isinstance(event, Text | Finished):
                    await take(index, event)
    except InvalidRequest as error:
        raise ApiError(errors.INVALID_REQUEST, str(error), param=error.field) from error
    except EngineError as error:
        raise ApiError(CODES.get(error.code, errors.ENGINE_ERROR), str(error)) from error


async def _follow_all(engine: LocalEngine, requests: list[GenerateRequest], take: Take) -> None:
    """Run several sequences of one request side by side; the first error ends them all."""
    failures: list[Exception] = []
    one_at_a_time = trio.Lock()

    async def take_in_turn(index: int, event: Text | Finished) -> None:
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


def _first(group: BaseExceptionGroup[ModelLoadError]) -> ModelLoadError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
