"""One model's place in memory: loaded, swapped for another file without dropping a request, unloaded by an operator or
because nobody asked for it, and loaded again by the first who does.

    loading -> ready -> idle -> loading ...         a request loads an idle model
                     -> unloading -> unloaded       an operator's word; only an operator loads it again
    loading -> failed                               with the reason

An `Instance` is an engine in memory. The newest one is `current` and gets every new request; older ones finish theirs. Each
has a task of its own, from the load to the freeing.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol, TypeVarTuple

import msgspec
import structlog
import trio
from quiver.schemas import errors
from quiver.schemas.errors import ApiError
from quiver.schemas.models import ModelState

from ..native import ModelLoadError
from .budget import Budget, Claim
from .catalogue import ModelFile
from .embedding import LocalEncoder
from .engine import LocalEngine
from .instance import Instance
from .loading import Loader, Loading, Wanted
from .ollama import SourceError

Ts = TypeVarTuple("Ts")

# A request loads an idle model again; after a failure not before so many seconds.
RETRY_SECONDS = 5.0
# How often the log tells of a long load.
LOG_SECONDS = 10.0
FAILED = "The model `{name}` could not be loaded; the gateway's log says why"
UNLOADED = "The model `{name}` was unloaded; `quiver models load` loads it again"


class Spawn(Protocol):
    """Starts a task that outlives its starter."""

    def __call__(self, task: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None: ...


class Residency:
    """Loads, holds and frees one model. `changed` is called whenever another engine, or none, gets the new requests, and
    told whether it may be another file; `drain`: seconds that requests get when their model is unloaded.
    """

    def __init__(
        self,
        name: str,
        wanted: Wanted,
        loader: Loader,
        budget: Budget,
        changed: Callable[[bool], None],
        drain: float,
    ) -> None:
        self.name, self.wanted = name, wanted
        self.current: Instance | None = None
        self.loading: Loading | None = None
        self.reason: str | None = None
        self.encodes = False  # whether it makes embeddings instead of text
        self.notes: tuple[str, ...] = ()
        self._rest: ModelState = "loading"  # what it is when nothing is in memory and nothing loads
        self._instances: set[Instance] = set()
        self._loader, self._budget, self._changed, self.drain = loader, budget, changed, drain
        self._retry_at = 0.0
        self._settled = trio.Event()
        self._log = structlog.get_logger(component="engine", model=name)

    def __repr__(self) -> str:
        return f"<Residency {self.name}: {self.state}, {len(self._instances)} in memory>"

    @property
    def state(self) -> ModelState:
        if self.current is not None:
            return "ready"
        if self.loading is not None:
            return "loading"
        return "unloading" if self._rest == "unloaded" and self._instances else self._rest

    @property
    def draining(self) -> int:
        """Requests on engines that get no new ones."""
        return sum(instance.users for instance in self._instances if instance is not self.current)

    def claims(self) -> Iterator[Claim]:
        """Memory taken and to be taken."""
        for instance in self._instances:
            yield instance.claim()
        loading = self.loading
        if loading is not None and loading.memory is not None:
            yield Claim(loading.memory.total, max(0, loading.memory.total - loading.progress.done))

    def load(self, wanted: Wanted, spawn: Spawn, *, first: bool = False, asked: bool = True) -> Loading:
        """Begin to load `wanted`, beside what runs or, with `first`, once that is gone. Raises `ApiError` (409) while
        another load is under way.
        """
        self.refuse_while_loading()
        self.loading = loading = Loading(wanted, self._loader.progress(), first=first, asked=asked)
        spawn(self._hold, loading, spawn)
        spawn(self._log_progress, loading)
        return loading

    def refuse_while_loading(self) -> None:
        """Raises `ApiError` (409) while a load is under way."""
        if self.loading is not None:
            raise ApiError(errors.MODEL_LOADING, f"The model `{self.name}` is being loaded; wait, or unload it first")

    def stay_unloaded(self) -> None:
        """An operator unloaded it before the gateway was started."""
        self._rest, self.reason = "unloaded", "unloaded"

    async def ready(self, spawn: Spawn) -> Instance:
        """The engine for a new request. Waits for one that loads, and has an idle model loaded. Raises `ApiError` (503)."""
        while self.current is None:
            loading = self.loading
            if loading is None:
                self._refuse_unless_idle()
                loading = self.load(self.wanted, spawn, asked=False)
            await loading.ended.wait()
            if loading.error is not None and self.loading is None:
                raise self._unavailable()
        return self.current

    async def unload(self) -> None:
        """Free the memory, once the requests on it are over or had their time; a load under way is cancelled."""
        self._rest, self.reason = "unloaded", "unloaded"
        if self.loading is not None:
            self.loading.cancel()
        loading, instances = self.loading, set(self._instances)
        self._retire_all(trio.current_time() + self.drain)
        while instances & self._instances or (loading is not None and loading is self.loading):
            await self._settled.wait()

    def close(self) -> None:
        """The gateway stops, and its requests are over."""
        self._rest, self.reason = "unloaded", "stopped"
        if self.loading is not None:
            self.loading.cancel()
        self._retire_all(trio.current_time())

    def _retire_all(self, deadline: float) -> None:
        self.current = None
        for instance in self._instances:
            instance.retire(deadline)
        self._changed(False)

    def _refuse_unless_idle(self) -> None:
        if self._rest != "idle":
            raise self._unavailable()
        if trio.current_time() < self._retry_at:
            raise self._unavailable(RETRY_SECONDS)

    def _unavailable(self, retry_after: float | None = None) -> ApiError:
        text = UNLOADED if self._rest == "unloaded" else FAILED
        wait = None if retry_after is None else int(retry_after)
        return ApiError(errors.MODEL_NOT_LOADED, text.format(name=self.name), retry_after=wait)

    async def _hold(self, loading: Loading, spawn: Spawn) -> None:
        """Load, serve, and free again."""
        instance: Instance | None = None
        before = self.current if loading.first else None
        try:
            with loading.scope:
                if before is not None:
                    await self._make_way(before)
                file = await self._admitted(loading)
                assert loading.memory is not None
                async with self._loader.open(file.path, loading.wanted.settings, loading.progress) as engine:
                    await trio.lowlevel.checkpoint()  # the last moment to cancel it
                    instance = self._put_in_place(loading, engine, file)
                    if await instance.wait_unwanted():
                        self._fall_idle(instance)
                    await instance.wait_finished()
        except Exception as error:  # whatever it is, the other models go on
            if instance is None:
                self._fail(loading, error)
            else:
                self._log.exception("model broke")
                self._rest, self.reason = "failed", "the engine broke; the log says why"
        finally:
            if instance is None and not loading.ended.is_set():
                self._fail(loading, ApiError(errors.LOAD_CANCELLED, f"The load of `{self.name}` was cancelled"))
            self._forget(loading, instance)
        if before is not None and loading.error is not None and self._rest != "unloaded":
            self.load(before.wanted, spawn, asked=False)

    async def _log_progress(self, loading: Loading) -> None:
        """A line now and then, so that a long load does not look like a dead one."""
        while True:
            with trio.move_on_after(LOG_SECONDS):
                await loading.ended.wait()
                return
            progress = loading.progress
            self._log.info("model loads", stage=progress.stage, percent=round(100 * progress.fraction))

    async def _make_way(self, before: Instance) -> None:
        """Let what runs finish, and have it freed. New requests wait for what is loaded in its place."""
        self.current = None
        before.retire(trio.current_time() + self.drain)
        self._changed(False)
        while before in self._instances:
            await self._settled.wait()

    async def _admitted(self, loading: Loading) -> ModelFile:
        """The file to load, for which there is memory."""
        wanted = loading.wanted
        file = await self._loader.find(wanted.source)
        loading.file = file.path
        memory = await self._loader.estimate(file.path, wanted.settings)
        available = await self._loader.available()
        if not wanted.force:
            self._budget.admit(memory, available, beside=self.current is not None)
        loading.memory = memory
        self._log.info("loading model", file=wanted.source, bytes=memory.total, available=available)
        return file

    def _put_in_place(self, loading: Loading, engine: LocalEngine | LocalEncoder, file: ModelFile) -> Instance:
        """From now on new requests go to `engine`."""
        assert loading.memory is not None
        instance = Instance(engine, loading.wanted, loading.memory)
        self._instances.add(instance)
        before, self.current = self.current, instance
        self.encodes = isinstance(engine, LocalEncoder)
        self.wanted, self.notes, self.reason, self.loading = loading.wanted, file.notes, None, None
        self._rest = "failed"
        if before is not None:
            before.retire()
        seconds = round(trio.current_time() - loading.began, 3)
        described = msgspec.to_builtins(engine.description)
        self._log.info("model loaded", file=file.path, seconds=seconds, notes=list(file.notes), **described)
        loading.finish(None)
        self._changed(loading.asked)
        return instance

    def _fall_idle(self, instance: Instance) -> None:
        self._rest, self.reason = "idle", "idle; the next request loads it"
        self.current = None
        self._log.info("model unloaded", idle=instance.wanted.settings.idle)
        self._changed(False)

    def _fail(self, loading: Loading, error: Exception) -> None:
        """The load came to nothing. What runs goes on; an idle model may be tried again."""
        told = as_api_error(error)
        if told.kind is errors.INTERNAL_ERROR:
            self._log.exception("load broke")
        self._log.error("model cannot be loaded", file=loading.wanted.source, error=told.message, code=told.kind.code)
        self.loading = None
        if told.kind is not errors.LOAD_CANCELLED:
            self.reason = told.message.replace(loading.file or loading.wanted.source, loading.wanted.label)
            self._rest = "idle" if self._rest == "idle" and not loading.asked else "failed"
            self._retry_at = trio.current_time() + RETRY_SECONDS
        loading.finish(told)
        self._changed(False)

    def _forget(self, loading: Loading, instance: Instance | None) -> None:
        if instance is not None:
            self._instances.discard(instance)
            if self.current is instance:
                self.current = None
                self._changed(False)
        settled, self._settled = self._settled, trio.Event()
        settled.set()


def as_api_error(error: Exception) -> ApiError:
    """Why a load came to nothing, as an operator is told."""
    match error:
        case ApiError():
            return error
        case ModelLoadError() if error.code == "load_cancelled":
            return ApiError(errors.LOAD_CANCELLED, "The load was cancelled")
        case ModelLoadError() | SourceError():
            return ApiError(errors.MODEL_UNUSABLE, str(error))
        case _:
            return ApiError(errors.INTERNAL_ERROR, "Internal error; the log has it")
