"""The tasks that look after a gateway's servers: one for each that is in the registry, from when it comes until it goes."""

from collections.abc import Callable

import structlog
import trio
from quiver.schemas.config import Health

from ..registry import Registry
from ..request import REQUEST_ID
from ..seams import World
from . import health
from .backend import RemoteServer


class Checks:
    """Checks the servers of `registry` while `run` runs. `settings`: how, when a check begins; `turned` is told of a server
    whose state is another one.
    """

    def __init__(
        self, registry: Registry, world: World, settings: Callable[[], Health], turned: Callable[[RemoteServer], None]
    ) -> None:
        self._registry, self._world = registry, world
        self._settings, self._turned = settings, turned
        self._nursery: trio.Nursery | None = None
        self._scopes: dict[str, trio.CancelScope] = {}

    def __repr__(self) -> str:
        return f"<Checks: {len(self._scopes)} servers>"

    async def run(self) -> None:
        """Check every server that is or gets registered, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            for server in self._servers():
                self.begin(server)
            await trio.sleep_forever()

    def begin(self, server: RemoteServer) -> None:
        """Check `server` at once, and then whenever it is due."""
        if self._nursery is not None:
            self._scopes[server.id] = scope = trio.CancelScope()
            self._nursery.start_soon(self._look_after, server, scope)

    def end(self, server: RemoteServer) -> None:
        """Check the server of this id no more, if it was."""
        if (scope := self._scopes.pop(server.id, None)) is not None:
            scope.cancel()

    def begin_anew(self) -> None:
        """Check every server at once, and then as the settings say now."""
        for server in self._servers():
            if server.id in self._scopes:
                self.end(server)
                self.begin(server)

    def _servers(self) -> list[RemoteServer]:
        return [backend for backend in self._registry if isinstance(backend, RemoteServer)]

    async def _look_after(self, server: RemoteServer, scope: trio.CancelScope) -> None:
        REQUEST_ID.set(None)  # this goes on when the request that brought the server has long been answered
        with scope:
            while True:
                try:
                    await health.watch(server, self._settings(), self._world, lambda: self._turned(server))
                except Exception:  # a fault of ours must not leave the server unwatched, nor end the gateway
                    structlog.get_logger(component="health").exception("check broke", server=server.id)
                await trio.sleep(self._settings().interval)
