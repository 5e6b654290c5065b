"""A model of the built-in engine as a backend of the registry: whether it takes a call, and carrying that out on the engine
that is in memory then.
"""

from collections.abc import Iterator
from importlib.resources import files

from quiver.schemas.config import LocalModel
from quiver.schemas.models import ModelState

from ..registry import BackendStatus, Call, Health
from ..reply import Reply
from ..routing.load import Load
from ..seams import World
from ..telemetry.metrics import Figure
from ..watch import Watch
from .answering import answer
from .embedding import LocalEncoder
from .engine import LocalEngine
from .figures import SequenceFigures, statistics_figures
from .instance import Instance
from .residency import Residency, Spawn

BOLT = LocalModel(path=str(files("quiver").joinpath("models", "bolt.gguf")), id="bolt")

# An idle model counts as unknown: one that is loaded answers sooner.
HEALTH: dict[ModelState, Health] = {
    "ready": "healthy",
    "loading": "unknown",
    "idle": "unknown",
    "unloading": "unhealthy",
    "unloaded": "unhealthy",
    "failed": "unhealthy",
}
TIERS: dict[Health, int] = {"healthy": 0, "unknown": 1, "unhealthy": 3}
# How often a waiting client is told how far the load is.
PLACE_INTERVAL = 5.0


class EngineModel:
    """One model that the engine serves, whatever file it is at the moment. `spawn` starts the tasks of its loads."""

    def __init__(self, residency: Residency, spawn: Spawn, world: World) -> None:
        self.model = residency.name
        self.id = f"engine:{self.model}"
        self.residency = residency
        self._spawn, self._world = spawn, world
        self._sequences = SequenceFigures()
        self.load = Load(limit=residency.wanted.settings.max_sequences)

    def __repr__(self) -> str:
        return f"<EngineModel {self.model}: {self.residency.state}, {self.load.in_flight} in flight>"

    @property
    def endpoints(self) -> tuple[str, ...]:
        """An encoder makes embeddings, any other model text."""
        return ("embeddings",) if self.residency.encodes else ("chat/completions", "completions")

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model,)

    @property
    def health(self) -> Health:
        return HEALTH[self.residency.state]

    def status(self) -> BackendStatus:
        residency = self.residency
        reason = residency.reason or ("loading" if residency.state == "loading" else None)
        return BackendStatus(
            self.id, "engine", residency.wanted.label, self.models, self.health, reason, self.load.in_flight
        )

    def figures(self) -> Iterator[Figure]:
        """For the metrics page. A model that is not loaded has no statistics."""
        label, current = ("model", self.model), self.residency.current
        if current is not None and isinstance(current.engine, LocalEngine):
            yield from statistics_figures(current.engine.statistics(), label)
            meaning = "From cancelling a sequence to its end in the engine"
            yield Figure("histogram", "quiver_engine_cancel_seconds", meaning, current.engine.freed, (label,))
        yield from self._sequences.figures(label)

    @property
    def serving(self) -> bool:
        return True

    def takes(self, call: Call) -> bool:
        return call.endpoint in self.endpoints

    def fits(self, call: Call) -> bool:
        return True  # it counts the tokens itself, and says both numbers

    def ready(self, call: Call, now: float) -> bool:
        return self.residency.current is not None and not self.load.full and call.endpoint in self.endpoints

    def tier(self, now: float) -> int:
        return TIERS[self.health]

    def paused_until(self, model: str) -> float:
        return 0.0

    async def forward(self, call: Call, reply: Reply, watch: Watch) -> None:
        """Generate the reply to `call`, once the model is loaded."""
        with watch:
            instance = self.residency.current or await self._loaded(reply, watch)
            instance.enter()
            try:
                if isinstance(instance.engine, LocalEncoder):
                    await instance.engine.answer(call.body, reply)
                else:
                    await answer(instance.engine, call, reply, watch.deadline, self._world, self._sequences)
            finally:
                instance.leave()
                self.make_room()

    def make_room(self) -> None:
        """As many requests as the engine takes at a time; those that end on one that was replaced are not in the way."""
        self.load.limit = self.residency.wanted.settings.max_sequences + self.residency.draining

    async def _loaded(self, reply: Reply, watch: Watch) -> Instance:
        """The engine, once it is there. The client is told meanwhile how far it is."""
        reply.say_meanwhile(self._told, PLACE_INTERVAL)
        watch.nudge()
        try:
            return await self.residency.ready(self._spawn)
        finally:
            reply.say_meanwhile(None)

    def _told(self) -> bytes:
        """How far the load is, as a comment that event-stream parsers pass over."""
        loading = self.residency.loading
        if loading is None:
            return b": loading\n\n"
        return b": loading stage=%s progress=%d%%\n\n" % (
            loading.progress.stage.encode(),
            round(100 * loading.progress.fraction),
        )
