"""The engine on Trio: one task per engine waits for its events and hands each to the request it belongs to.

Nothing here waits for the model except a request's own iterator, and whoever leaves that iterator's scope, for whatever
reason, has cancelled the sequence in the engine.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property, partial

import msgspec
import trio
from quiver.schemas.models import ModelDescription

from ..native import (
    Engine,
    EngineStatistics,
    Failed,
    Finished,
    LoadProgress,
    ModelInfo,
    ModelLoadError,
    Started,
    Text,
)
from ..seams import offload
from ..telemetry.histogram import GAPS, Histogram
from .dialect import Dialect, dialect_of

Event = Started | Text | Finished | Failed

# Each waiting text has at least one token that is not acknowledged, so that at most `window` of them wait; then there
# is one event at the start and one at the end.
OTHER_EVENTS = 2
# The engine's own default.
WINDOW = 256
# The engine ends its threads after the step under way; a step is bounded, so this is never reached.
CLOSE_SECONDS = 30.0


class _Window(msgspec.Struct):
    """The one field of a request that matters here."""

    window: int | None = None


_decode_window = msgspec.json.Decoder(_Window).decode


class Generation:
    """The events of one request, ending with `Finished` or `Failed`. Asking for the next acknowledges the last: the
    engine generates no further ahead of the consumer than the request's `window`.
    """

    def __init__(self, native: Engine, number: int, events: trio.MemoryReceiveChannel[Event]) -> None:
        self._native, self._number, self._events = native, number, events
        self._taken = 0

    def __repr__(self) -> str:
        return f"<Generation {self._number}: {self._taken} tokens taken>"

    def __aiter__(self) -> "Generation":
        return self

    async def __anext__(self) -> Event:
        if self._taken:
            self._native.acknowledge(self._number, self._taken)
        try:
            event = await self._events.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        if isinstance(event, Text):
            self._taken = event.completion_tokens
        return event


class LocalEngine:
    """A loaded model that any number of tasks may use. Made by `open_local_engine`, which also closes it. `freed`: seconds
    from the cancelling of a sequence to its end in the engine.
    """

    def __init__(self, native: Engine) -> None:
        self._native = native
        self._open: dict[int, trio.MemorySendChannel[Event]] = {}
        self._leaving: dict[int, float] = {}
        self.freed = Histogram(GAPS)

    def __repr__(self) -> str:
        return f"<LocalEngine {self.info.architecture}: {len(self._open)} open, {self._native!r}>"

    @property
    def info(self) -> ModelInfo:
        return self._native.info

    @cached_property
    def dialect(self) -> Dialect:
        """How the model writes calls of tools and its reasoning."""
        return dialect_of(self.info)

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
            file_type=info.file_type,
        )

    @property
    def kv_bytes(self) -> int:
        """Memory of the sequences' keys and values, as of the last step."""
        return self._native.statistics().kv_bytes

    def statistics(self) -> EngineStatistics:
        """Figures as of the last step."""
        return self._native.statistics()

    @asynccontextmanager
    async def generate(self, request: bytes) -> AsyncIterator[Generation]:
        """The events of one generation. `request` is the JSON of `schemas.engine.GenerateRequest`.

        Error handling: raises `InvalidRequest`, `ContextOverflow` or `EngineStopped` when the request is refused. What
        goes wrong later comes as the last event, `Failed`.

        Resource handling: leaving the scope before the last event cancels the sequence.
        """
        number = self._native.submit(request)
        send, receive = trio.open_memory_channel[Event]((_decode_window(request).window or WINDOW) + OTHER_EVENTS)
        self._open[number] = send
        try:
            yield Generation(self._native, number, receive)
        finally:
            if self._open.pop(number, None) is not None:
                self._leaving[number] = trio.current_time()
                self._native.cancel(number)
            receive.close()

    async def pump(self) -> None:
        """Hand out events until cancelled. Exactly one task runs this."""
        while True:
            await trio.lowlevel.wait_readable(self._native.fd)
            self._hand_out()

    async def close(self) -> None:
        """End the engine's threads; requests that are still open get `Failed`. Nobody may be in `pump`."""
        trio.lowlevel.notify_closing(self._native.fd)
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await offload(self._native.close)
        self._hand_out()

    def _hand_out(self) -> None:
        """Everything in the engine's queue, each event to its request. Of those that were left nobody wants any."""
        for event in self._native.drain():
            send = self._open.get(event.request)
            if send is None:
                if (
                    isinstance(event, Finished | Failed)
                    and (left := self._leaving.pop(event.request, None)) is not None
                ):
                    self.freed.observe(trio.current_time() - left)
                continue
            send.send_nowait(event)
            if isinstance(event, Finished | Failed):
                del self._open[event.request]
                send.close()


@asynccontextmanager
async def open_local_engine(
    path: str,
    *,
    threads: int = 0,
    context_length: int | None = None,
    max_sequences: int = 16,
    kv_type: str = "f16",
    kv_bytes: int | None = None,
    speculate: bool = True,
    progress: LoadProgress | None = None,
) -> AsyncIterator[LocalEngine]:
    """A model file, loaded and running. `threads` 0 means one per processor; `context_length` None the model's own;
    `kv_bytes`, the most memory of the key-value cache, None enough for `max_sequences` of 4,096 tokens. `progress` is told
    how far the load is; cancelling the caller ends it at its next tensor.

    Error handling: raises `ModelLoadError` when the file cannot be loaded.

    Resource handling: at the end requests that are still open get `Failed`, and the model is freed.
    """
    progress = progress or LoadProgress()
    native = await _loaded(
        partial(
            Engine,
            path,
            threads=threads,
            context_length=context_length,
            max_sequences=max_sequences,
            kv_type=kv_type,
            kv_bytes=kv_bytes,
            speculate=speculate,
            progress=progress,
        ),
        progress,
    )
    engine = LocalEngine(native)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.pump)
            yield engine
            nursery.cancel_scope.cancel()
    finally:
        await engine.close()


async def _loaded(load: Callable[[], Engine], progress: LoadProgress) -> Engine:
    """What `load` makes on a thread of its own. Who is cancelled meanwhile cancels the load, and waits for its end."""
    native: Engine | ModelLoadError
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_on_departure, progress)
        try:
            native = await offload(load)
        except ModelLoadError as error:  # raised below, outside the nursery, so that it is not wrapped in a group
            native = error
        nursery.cancel_scope.cancel()
    if isinstance(native, ModelLoadError):
        raise native
    return native


async def _cancel_on_departure(progress: LoadProgress) -> None:
    try:
        await trio.sleep_forever()
    finally:
        progress.cancel()
