"""Loading a model: what is wanted, how it is told about, and the loader that does it with the real engine.

The loader is the seam to the machine: a test puts one in its place that says what memory there is and how long it takes.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec
import trio
from quiver.schemas.config import OLLAMA, Engine, KvType, LocalModel, ModelOptions
from quiver.schemas.errors import ApiError
from quiver.schemas.models import LoadReport, MemoryReport
from quiver.schemas.sizes import bytes_of

from ..native import LoadProgress, estimate_memory
from ..seams import offload
from .catalogue import Catalogue, ModelFile
from .embedding import LocalEncoder, makes_embeddings, open_local_encoder
from .engine import LocalEngine, open_local_engine
from .memory import available_memory


class Settings(msgspec.Struct, frozen=True):
    """How a model is run. `idle`: seconds without a request after which it is unloaded, 0 for never."""

    threads: int
    context_length: int | None
    max_sequences: int
    kv: KvType
    kv_memory: int | None
    speculate: bool
    idle: float


class Wanted(msgspec.Struct, frozen=True):
    """A model to load: its source as the operator named it, and how to run it. `force`: without regard to memory."""

    source: str
    settings: Settings
    force: bool = False

    @property
    def label(self) -> str:
        """The source as strangers may see it: without the folders of this machine."""
        return self.source if self.source.startswith(OLLAMA) else Path(self.source).name


class Progress(Protocol):
    """How far a load is."""

    @property
    def stage(self) -> str: ...
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def fraction(self) -> float: ...


class Loader(Protocol):
    """Everything that loading does outside of the process' own memory."""

    async def find(self, source: str) -> ModelFile:
        """The file behind a source. Raises `SourceError`."""
        ...

    async def estimate(self, file: str, settings: Settings) -> MemoryReport:
        """What it would take. Raises `ModelLoadError`."""
        ...

    async def available(self) -> int | None:
        """Bytes of memory that are free; None when nobody knows."""
        ...

    def progress(self) -> Progress:
        """For one load."""
        ...

    def open(
        self, file: str, settings: Settings, progress: Progress
    ) -> AbstractAsyncContextManager[LocalEngine | LocalEncoder, bool | None]:
        """The model, loaded and running. Raises `ModelLoadError`; cancelling it ends the load."""
        ...


class EngineLoader:
    """Loads files into the built-in engine of this process."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    async def find(self, source: str) -> ModelFile:
        return await offload(self.catalogue.file, source)

    async def estimate(self, file: str, settings: Settings) -> MemoryReport:
        found = await offload(
            partial(
                estimate_memory,
                file,
                context_length=settings.context_length,
                max_sequences=settings.max_sequences,
                kv_type=settings.kv,
            )
        )
        kv, tokens = found.kv, found.kv_tokens
        if settings.kv_memory is not None and settings.kv_memory < kv:
            tokens = tokens * settings.kv_memory // kv
            kv = settings.kv_memory
        total = found.total - found.kv + kv
        return MemoryReport(weights=found.weights, kv=kv, kv_tokens=tokens, scratch=found.scratch, total=total)

    async def available(self) -> int | None:
        return await offload(available_memory)

    def progress(self) -> Progress:
        return LoadProgress()

    @asynccontextmanager
    async def open(
        self, file: str, settings: Settings, progress: Progress
    ) -> AsyncIterator[LocalEngine | LocalEncoder]:
        assert isinstance(progress, LoadProgress)
        if await offload(makes_embeddings, file):
            async with open_local_encoder(file, threads=settings.threads) as encoder:
                yield encoder
            return
        async with open_local_engine(
            file,
            threads=settings.threads,
            context_length=settings.context_length,
            max_sequences=settings.max_sequences,
            kv_type=settings.kv,
            kv_bytes=settings.kv_memory,
            speculate=settings.speculate,
            progress=progress,
        ) as engine:
            yield engine


class Loading:
    """One load under way, for whoever waits for it. `first`: whether what runs goes before; `asked`: whether an operator or
    the configuration wanted it, and not a request for a model that was idle.
    """

    def __init__(self, wanted: Wanted, progress: Progress, *, first: bool = False, asked: bool = True) -> None:
        self.wanted, self.progress, self.first, self.asked = wanted, progress, first, asked
        self.began = trio.current_time()
        self.ended = trio.Event()
        self.error: ApiError | None = None
        self.file: str | None = None
        self.memory: MemoryReport | None = None
        self._scope = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<Loading {self.wanted.source}: {self.progress.stage}, {self.progress.fraction:.0%}>"

    def cancel(self) -> None:
        """End it unless it has ended."""
        if not self.ended.is_set():
            self._scope.cancel()

    @property
    def scope(self) -> trio.CancelScope:
        """What `cancel` cancels: for the task that loads."""
        return self._scope

    def finish(self, error: ApiError | None) -> None:
        """It has come to its end."""
        self.error = error
        self.ended.set()

    def report(self) -> LoadReport:
        progress = self.progress
        return LoadReport(
            stage=progress.stage,
            done=progress.done,
            total=progress.total,
            fraction=round(progress.fraction, 4),
            seconds=round(trio.current_time() - self.began, 3),
        )


def settings_of(options: ModelOptions, config: Engine) -> Settings:
    """`options` where they say something, `config` where they do not."""

    def chosen(name: str) -> object:
        own = getattr(options, name)
        return getattr(config, name) if own is None else own

    names = ("threads", "context_length", "max_sequences", "kv", "speculate")
    memory = chosen("kv_memory")
    others = {"kv_memory": bytes_of(memory) if isinstance(memory, str) else None, "idle": chosen("idle_unload_s")}
    return msgspec.convert({**{name: chosen(name) for name in names}, **others}, Settings)


def wanted_by(model: LocalModel, config: Engine) -> Wanted:
    """What a configured model asks for."""
    return Wanted(model.path, settings_of(model, config), model.force)
