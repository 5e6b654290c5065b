"""The models of the built-in engine: which there are, and loading, swapping, unloading and removing them while serving."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVarTuple

import msgspec
import trio
from quiver.schemas import errors
from quiver.schemas.config import OLLAMA, Config, Drain, LocalModel, name_of
from quiver.schemas.errors import ApiError
from quiver.schemas.models import EstimateReport, ModelLoad, ModelSource
from quiver.schemas.openai import ModelName
from quiver.schemas.saved import SavedModel
from quiver.schemas.sizes import bytes_of

from ..native import ModelLoadError
from ..registry import Registry
from ..seams import World, offload
from ..store.store import Store
from ..telemetry.journal import Journal
from .backend import BOLT, EngineModel
from .budget import Budget, Claim
from .catalogue import Catalogue
from .embedding import makes_embeddings
from .lasting import Lasting
from .loading import Loader, Loading, Wanted, settings_of, wanted_by
from .ollama import SourceError
from .residency import Residency, as_api_error

Ts = TypeVarTuple("Ts")


class LocalModels:
    """Every model of the engine. `run` holds them; `changed` is called when one of them answers differently from now on.
    Those that were loaded before the last restart are among them.

    Raises `ValueError` when two are called the same.
    """

    def __init__(
        self, config: Config, world: World, catalogue: Catalogue, loader: Loader, store: Store, journal: Journal
    ) -> None:
        self.catalogue = catalogue
        self.changed: Callable[[bool], None] = lambda replaced: None
        self._config, self._world, self._loader = config.engine, world, loader
        self._drain = config.drain.timeout
        limit = config.engine.memory_limit
        self._budget = Budget(None if limit is None else bytes_of(limit), self._claims)
        self._registry: Registry | None = None
        self._nursery: trio.Nursery | None = None
        self._stopped = trio.Event()
        self._journal = journal
        self._changes = trio.Lock()
        self._models: dict[str, EngineModel] = {}
        configured = [*([BOLT] if config.engine.bolt else []), *config.models]
        self._lasting = Lasting(store, {model.name for model in configured})
        for model in [*configured, *(row.model for row in self._lasting)]:
            if model.name in self._models:
                raise ValueError(f"two models are called `{model.name}`; give one of them another `id`")
            found = self._models[model.name] = self._model(model.name, wanted_by(model, config.engine))
            # Known from the start, so that the first request finds the right paths served.
            found.residency.encodes = not model.path.startswith(OLLAMA) and makes_embeddings(model.path)

    def __repr__(self) -> str:
        return f"<LocalModels: {', '.join(f'{name} {self.state(name)}' for name in self._models) or 'none'}>"

    def __iter__(self) -> Iterator[EngineModel]:
        return iter(list(self._models.values()))

    def state(self, id: str) -> str:
        """How the model stands."""
        return self._models[id].residency.state

    def get(self, id: str) -> EngineModel:
        """Raises `ApiError` (404)."""
        try:
            return self._models[id]
        except KeyError:
            raise ApiError(
                errors.NOT_FOUND, f"The engine has no model `{id[:64]}`; `GET /admin/models` lists them"
            ) from None

    def offer_in(self, registry: Registry) -> None:
        """From now on models come and go in `registry`."""
        self._registry = registry

    async def run(self) -> None:
        """Load the configured models beside each other, and hold all models until `close`."""
        async with trio.open_nursery() as self._nursery:
            for model in self:
                row = self._lasting.get(model.model)
                if row is not None and row.unloaded:
                    model.residency.stay_unloaded()
                else:
                    model.residency.load(model.residency.wanted, self._spawn)
            await self._stopped.wait()
            for model in self:
                model.residency.close()

    def close(self) -> None:
        """Free all models, and let `run` return."""
        self._stopped.set()

    def look_at(self, models: Sequence[LocalModel]) -> None:
        """Raises `ValueError` when one of the configuration's models cannot be changed now."""
        for model in models:
            known = self._models.get(model.name)
            loading = None if known is None else known.residency.loading
            if loading is not None and loading.wanted != wanted_by(model, self._config):
                raise ValueError(f"the model `{model.name}` is being loaded; wait, or unload it first")

    def configure(self, drain: Drain) -> None:
        """How long requests get when their model is unloaded."""
        self._drain = drain.timeout
        for model in self:
            model.residency.drain = drain.timeout

    def exchange(self, before: Sequence[LocalModel], after: Sequence[LocalModel]) -> None:
        """Unload the configured models that are not wanted any more, and begin to load those that are new or differ. After
        `look_at`.
        """
        kept = {model.name: model for model in before}
        wanted = {model.name: model for model in after}
        for name in kept.keys() - wanted.keys() & self._models.keys():
            self._drop(name)
        for name, model in wanted.items():
            asked = wanted_by(model, self._config)
            if kept.get(name) != model:
                known = self._models.get(name) or self._add(name, asked)
                if known.residency.loading is None:  # else it is what loads
                    known.residency.load(asked, self._spawn)

    async def load(self, asked: ModelLoad, actor: str | None = None) -> tuple[EngineModel, Loading]:
        """Begin to load what is `asked`, as a new model or in the place of one; it comes back after a restart.

        Raises `ApiError`: 404, 409, 422, 503.
        """
        source = await self._source(asked)
        id = asked.id or _model_name(name_of(source))
        wanted = Wanted(source, settings_of(asked.options, self._config), asked.force)
        async with self._changes:
            model, before = self._models.get(id), self._lasting.get(id)
            new = model is None
            if model is not None:
                model.residency.refuse_while_loading()
            await self._lasting.keep(id, _lasting_form(id, source, asked))
            try:
                if model is None:
                    model = self._add(id, wanted)
                loading = model.residency.load(wanted, self._spawn, first=asked.replace == "unload_first")
            except ApiError:  # a request has begun to load it meanwhile
                await self._lasting.put_back(id, before)
                raise
        self._spawn(self._see_through, model, loading, new, before, actor)
        return model, loading

    async def unload(self, id: str, actor: str | None = None) -> EngineModel:
        """Free the model's memory once its requests are over or had their time. Raises `ApiError` (404, 503)."""
        async with self._changes:
            model = self.get(id)
            await self._lasting.keep_unloaded(id)
        await model.residency.unload()
        self._journal.note("model.unloaded", id, actor=actor)
        return model

    async def remove(self, id: str, actor: str | None = None) -> None:
        """Offer the model no more; requests on it go on, for as long as they do when it is unloaded. Raises `ApiError`."""
        async with self._changes:
            self.get(id)
            await self._lasting.forget(id)
            self._drop(id)
        self._journal.note("model.removed", id, actor=actor)

    async def estimate(self, asked: ModelSource) -> EstimateReport:
        """What loading it would take, and whether there is so much. Raises `ApiError`: 404, 422."""
        source = await self._source(asked)
        try:
            file = await self._loader.find(source)
            memory = await self._loader.estimate(file.path, settings_of(asked.options, self._config))
        except (SourceError, ModelLoadError) as error:
            raise as_api_error(error) from None
        left = self._budget.left(await self._loader.available())
        return EstimateReport(
            source=source,
            file=file.path,
            memory=memory,
            available=left,
            fits=left is None or memory.total <= left,
            notes=list(file.notes),
        )

    async def _source(self, asked: ModelSource) -> str:
        if (asked.path is None) == (asked.name is None):
            raise ApiError(errors.INVALID_REQUEST, "Give `path` or `name`: one of them", param="path")
        if asked.path is not None:
            return asked.path
        try:
            return await offload(self.catalogue.source, asked.name or "")
        except SourceError as error:
            raise ApiError(errors.NOT_FOUND, str(error), param="name") from None

    async def _see_through(
        self, model: EngineModel, loading: Loading, new: bool, before: SavedModel | None, actor: str | None
    ) -> None:
        """Note what comes of a load. What never ran leaves nothing behind."""
        id = model.model
        await loading.ended.wait()
        if loading.error is None:
            self._journal.note("model.loaded", id, actor=actor, source=loading.wanted.label)
            return
        self._journal.note("model.failed", id, actor=actor, source=loading.wanted.label, error=loading.error.kind.code)
        async with self._changes:
            if self._models.get(id) is not model or model.residency.loading is not None:
                return
            if new:  # at once: whoever waits for the load is told its error now, and may look
                self._drop(id)
            await self._lasting.put_back(id, before)

    def _add(self, id: str, wanted: Wanted) -> EngineModel:
        model = self._models[id] = self._model(id, wanted)
        if self._registry is not None:
            self._registry.add(model)
        return model

    def _drop(self, id: str) -> None:
        model = self._models.pop(id)
        if self._registry is not None:
            self._registry.remove(model.id)
        self._spawn(model.residency.unload)

    def _model(self, id: str, wanted: Wanted) -> EngineModel:
        residency = Residency(
            id, wanted, self._loader, self._budget, lambda replaced: self._moved(id, replaced), self._drain
        )
        return EngineModel(residency, self._spawn, self._world)

    def _moved(self, id: str, replaced: bool) -> None:
        if (model := self._models.get(id)) is not None:
            model.make_room()
        self.changed(replaced)

    def _claims(self) -> list[Claim]:
        return [claim for model in self for claim in model.residency.claims()]

    def _spawn(self, task: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        assert self._nursery is not None, "no model loads before `run`"
        self._nursery.start_soon(task, *args)


def _lasting_form(id: str, source: str, asked: ModelLoad) -> LocalModel:
    """What loads it again, in whatever folder the gateway is started."""
    path = source if source.startswith(OLLAMA) else str(Path(source).absolute())
    return LocalModel(path=path, id=id, force=asked.force, **msgspec.structs.asdict(asked.options))


def _model_name(name: str) -> str:
    """Raises `ApiError` (400) when no client could ask for it."""
    try:
        return msgspec.convert(name, ModelName)
    except msgspec.ValidationError:
        raise ApiError(
            errors.INVALID_REQUEST, f"`{name}` makes no model name; give an `id` without blanks", param="id"
        ) from None
