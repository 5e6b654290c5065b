"""A loader of models that takes the time it is told to, on Trio's clock, and engines that answer with their file's name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property

import msgspec
import trio
from quiver.schemas.models import MemoryReport, ModelDescription

from ..local.catalogue import ModelFile
from ..local.dialect import Dialect
from ..local.engine import Event, LocalEngine
from ..local.loading import Progress, Settings
from ..local.ollama import SourceError
from ..native import Finished, ModelLoadError, Text

GIB = 1024**3


@dataclass
class ScriptedProgress:
    """How far a scripted load is."""

    stage: str = "header"
    done: int = 0
    total: int = 0

    @property
    def fraction(self) -> float:
        return self.done / self.total if self.total else 0.0


@dataclass
class ScriptedFile:
    """What a file does: `seconds` to load, `bytes` it takes, `error` where it cannot be loaded. It answers `tokens` times
    with its name, one every `pace` seconds.
    """

    seconds: float = 1.0
    bytes: int = GIB
    error: str | None = None
    tokens: int = 3
    pace: float = 0.1


@dataclass
class ScriptedLoader:
    """Loads `files`, on a machine with `memory` bytes that nothing else uses. `opened` and `closed`: the files, in order;
    `cut`: answers that were going on when their engine was closed.
    """

    files: dict[str, ScriptedFile]
    memory: int | None = 64 * GIB
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    used: int = 0
    most_used: int = 0
    cut: int = 0

    async def find(self, source: str) -> ModelFile:
        await trio.lowlevel.checkpoint()
        if source not in self.files:
            raise SourceError(f"no file `{source}`")
        return ModelFile(source)

    async def estimate(self, file: str, settings: Settings) -> MemoryReport:
        await trio.lowlevel.checkpoint()
        total = self.files[file].bytes
        return MemoryReport(weights=total, kv=0, kv_tokens=0, scratch=0, total=total)

    async def available(self) -> int | None:
        await trio.lowlevel.checkpoint()
        return None if self.memory is None else self.memory - self.used

    def progress(self) -> Progress:
        return ScriptedProgress()

    @asynccontextmanager
    async def open(self, file: str, settings: Settings, progress: Progress) -> AsyncIterator[LocalEngine]:
        assert isinstance(progress, ScriptedProgress)
        script = self.files[file]
        self.used += script.bytes
        self.most_used = max(self.most_used, self.used)
        try:
            progress.stage, progress.total = "weights", script.bytes
            for tenth in range(1, 11):
                await trio.sleep(script.seconds / 10)
                progress.done = script.bytes * tenth // 10
            if script.error is not None:
                error = ModelLoadError(script.error)
                error.code = "not_gguf"
                raise error
            self.opened.append(file)
            engine = ScriptedEngine(file, script)
            try:
                yield engine
            finally:
                self.closed.append(file)
                self.cut += engine.going_on
        finally:
            self.used -= script.bytes


class ScriptedEngine(LocalEngine):
    """Answers with its file's name."""

    def __init__(self, file: str, script: ScriptedFile) -> None:
        self._file, self._script = file, script
        self.going_on = 0

    def __repr__(self) -> str:
        return f"<ScriptedEngine {self._file}: {self.going_on} going on>"

    @property
    def description(self) -> ModelDescription:
        return ModelDescription(
            architecture="scripted",
            name=self._file,
            parameters=0,
            context_length=4096,
            size_bytes=self._script.bytes,
            file_type="F32",
        )

    @cached_property
    def dialect(self) -> Dialect:
        return Dialect()

    @property
    def kv_bytes(self) -> int:
        return 0

    @asynccontextmanager
    async def generate(self, request: bytes) -> AsyncIterator[AsyncIterator[Event]]:  # type: ignore[override]  # no native part
        msgspec.json.decode(request)
        self.going_on += 1
        try:
            yield self._events()
        finally:
            self.going_on -= 1

    async def _events(self) -> AsyncIterator[Event]:
        for number in range(self._script.tokens):
            await trio.sleep(self._script.pace)
            yield Text(1, f"{self._file} ", number + 1)
        yield Finished(1, "stop", 1, self._script.tokens, 0, 0, 0, 0, 0, 0, 0, 0)
