"""What is told of one of the built-in engine's models."""

from math import inf

import trio
from quiver.proxy.local.backend import EngineModel
from quiver.proxy.seams import World
from quiver.schemas.models import LocalModelReport


def report(model: EngineModel, world: World) -> LocalModelReport:
    """How `model` stands."""
    residency = model.residency
    current, loading = residency.current, residency.loading
    idle_at = inf if current is None else current.idle_at
    return LocalModelReport(
        id=model.model,
        state=residency.state,
        source=residency.wanted.source,
        reason=residency.reason,
        in_flight=model.load.in_flight,
        draining=residency.draining,
        loading=None if loading is None else loading.report(),
        memory=None if current is None else current.memory,
        model=None if current is None else current.engine.description,
        idle_unload_s=residency.wanted.settings.idle,
        unloads_at=None if idle_at == inf else world.wall_clock() + idle_at - trio.current_time(),
    )
