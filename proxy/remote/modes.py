"""Whether servers get new calls: their operators pause, resume and drain them, and that outlives a restart.

A change is durable first, then in effect, then told. A paused server is checked like any other, so that it is known how it is
when it is resumed.
"""

import trio
from quiver.schemas import errors
from quiver.schemas.errors import ApiError
from quiver.schemas.events import EventKind
from quiver.schemas.saved import Mode, SavedServer, SavedState
from quiver.schemas.servers import Entry

from ..registry import Registry
from ..seams import World
from ..store.store import Store
from ..telemetry.journal import Journal
from .backend import RemoteServer

_EVENTS: dict[Mode, EventKind] = {
    "paused": "server.paused",
    "serving": "server.resumed",
    "draining": "server.draining",
}


class Modes:
    """Changes the modes of the registry's servers. `changes` is held while one is changed."""

    def __init__(self, registry: Registry, store: Store, journal: Journal, changes: trio.Lock, world: World) -> None:
        self._registry, self._store, self._journal = registry, store, journal
        self._changes, self._world = changes, world
        self._emptied = trio.Event()

    def __repr__(self) -> str:
        return "<Modes>"

    async def pause(self, id: str, actor: str) -> RemoteServer:
        """Give the server no new calls; those on it go on. Raises `ApiError` (404, 503)."""
        return await self._change(id, "paused", actor)

    async def resume(self, id: str, actor: str) -> RemoteServer:
        """Give the server calls again. Raises `ApiError` (404, 503)."""
        return await self._change(id, "serving", actor)

    async def drain(self, id: str, actor: str) -> RemoteServer:
        """Give the server no new calls; it is paused once none is on it. Raises `ApiError` (404, 503)."""
        return await self._change(id, "draining", actor)

    async def wait_drained(self, id: str) -> None:
        """Return once the server is not draining any more: paused, resumed or gone."""
        while isinstance(server := self._registry.get(id), RemoteServer) and server.mode == "draining":
            await self._emptied.wait()

    def settle(self, server: RemoteServer) -> None:
        """A server came into the registry, perhaps in the place of one that was draining."""
        if server.mode == "draining":
            self._watch_emptying(server)

    def find(self, id: str) -> RemoteServer:
        """The server with this id. Raises `ApiError` (404)."""
        server = self._registry.get(id)
        if not isinstance(server, RemoteServer):
            raise ApiError(errors.NOT_FOUND, f"No server is registered as `{id[:64]}`; `GET /admin/servers` lists them")
        return server

    async def _change(self, id: str, mode: Mode, actor: str) -> RemoteServer:
        async with self._changes:
            server = self.find(id)
            before = server.mode
            if mode == before or (mode == "draining" and before == "paused" and not server.load.in_flight):
                return server
            with trio.CancelScope(
                shield=True
            ):  # a client that leaves must not leave the two apart; the store has limits
                await self._store.save_state(state_of(server, mode, self._world))
            server = self.find(id)
            server.mode = mode
        server.load.emptied = None
        self._wake()
        self._registry.refresh()
        self._journal.note(_EVENTS[mode], id, actor=actor, before=before, after=mode, in_flight=server.load.in_flight)
        if mode == "draining":
            self._watch_emptying(server)
        return server

    def _watch_emptying(self, server: RemoteServer) -> None:
        server.load.emptied = lambda: self._drained(server)
        if not server.load.in_flight:
            self._drained(server)

    def _drained(self, server: RemoteServer) -> None:
        server.load.emptied = None
        if self._registry.get(server.id) is not server:
            return
        server.mode = "paused"
        # Nothing to save: what is found draining after a restart is empty, and so paused.
        self._journal.note("server.drained", server.id, before="draining", after="paused")
        self._wake()

    def _wake(self) -> None:
        self._emptied.set()
        self._emptied = trio.Event()


def state_of(server: RemoteServer, mode: Mode, world: World) -> SavedState:
    """How `server` stands now, in this mode."""
    circuit = server.circuit
    since = None if circuit.since is None else world.wall_clock() + circuit.since - trio.current_time()
    return SavedState(
        id=server.id, mode=mode, models=server.models, state=circuit.state, reason=circuit.reason, since=since
    )


def entry_of(saved: SavedServer) -> Entry:
    """Where a registered server comes from."""
    return Entry(
        origin="registered",
        metadata=saved.metadata,
        created=saved.created,
        changed=saved.changed,
        version=saved.version,
    )
