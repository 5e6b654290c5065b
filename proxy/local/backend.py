"""A model file of the built-in engine as a backend of the registry: whether it takes a call, and carrying that out."""

from importlib.resources import files
from pathlib import Path

import structlog
import trio
from quiver.schemas import errors
from quiver.schemas.config import Engine as EngineConfig
from quiver.schemas.config import LocalModel
from quiver.schemas.errors import ApiError

from ..native import ModelLoadError
from ..registry import BackendStatus, Call, Health
from ..reply import Reply
from ..routing.load import Load
from ..seams import World
from ..watch import Watch
from .answering import ENDPOINTS, answer
from .engine import LocalEngine, open_local_engine

BOLT = LocalModel(path=str(files("quiver").joinpath("models", "bolt.gguf")), id="bolt")

TIERS: dict[Health, int] = {"healthy": 0, "unknown": 1, "unhealthy": 3}


class EngineModel:
    """One GGUF file served by the engine. `run` loads it and holds it until `stop`."""

    endpoints = ENDPOINTS

    def __init__(self, model: LocalModel, config: EngineConfig, world: World) -> None:
        self.model = model.id or Path(model.path).stem
        self.id = f"engine:{self.model}"
        self._path, self._config, self._world = model.path, config, world
        self._engine: LocalEngine | None = None
        self._loaded, self._stopping = trio.Event(), trio.Event()
        self._reason: str | None = "loading"
        self.load = Load(limit=config.max_sequences)
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

    def stop(self) -> None:
        """Make `run` free the model and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Load the model and hold it. A file that cannot be loaded is logged and told to clients; nothing else stops."""
        config = self._config
        try:
            async with open_local_engine(
                self._path,
                threads=config.threads,
                context_length=config.context_length,
                max_sequences=config.max_sequences,
                kv_type=config.kv,
            ) as engine:
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
            await answer(await self._ready(), call, reply, self._world)

    async def _ready(self) -> LocalEngine:
        await self._loaded.wait()
        if self._engine is None:
            raise ApiError(
                errors.MODEL_NOT_LOADED, f"The model `{self.model}` could not be loaded; the gateway's log says why"
            )
        return self._engine


def _first(group: BaseExceptionGroup[ModelLoadError]) -> ModelLoadError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
