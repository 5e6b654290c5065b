"""How servers stand, kept over restarts: every result and every turn goes to the store, and at start a server is what it was.

Until it is checked it offers the models that it offered, so that requests right after a restart find them.
"""

import logging

import trio
from quiver.schemas.saved import CheckResult

from ..registry import Registry
from ..seams import World
from ..store.store import Store
from ..telemetry.journal import Journal
from .backend import RemoteServer
from .circuit import Circuit, Result
from .modes import state_of


class Standings:
    """Tells the store how the servers of `registry` stand."""

    def __init__(self, registry: Registry, store: Store, journal: Journal, world: World) -> None:
        self._registry, self._store, self._journal, self._world = registry, store, journal, world

    def __repr__(self) -> str:
        return "<Standings>"

    def follow(self, server: RemoteServer) -> None:
        """Keep what is learnt of `server` from when it is in the registry."""
        id, circuit = server.id, server.circuit
        server.found = lambda: self._changed(server)
        circuit.on_result = lambda result: self._result(id, circuit, result)

    def settle(self, server: RemoteServer, *, known: bool) -> None:
        """A server came into the registry: what was learnt of it before counts too, unless the one before it is `known`
        to have told that.
        """
        for result in () if known else server.circuit.history:
            self._keep(server.id, result)
        self._store.keep_state(state_of(server, server.mode, self._world))

    def turned(self, server: RemoteServer) -> None:
        """A server's state is another one than was told last."""
        circuit = server.circuit
        level = logging.INFO if circuit.state == "healthy" else logging.WARNING
        self._journal.note("server.state", server.id, level=level, state=circuit.state, reason=circuit.reason)

    def recall(self, server: RemoteServer) -> None:
        """Let `server` be what it was when the gateway last ran."""
        saved = self._store.saved
        state, results = saved.states.get(server.id), saved.checks.get(server.id, ())
        ahead = self._world.wall_clock() - trio.current_time() if results else 0.0
        server.circuit.recall(
            [Result(each.at - ahead, each.ok, each.seconds, each.reason, each.source) for each in results]
        )
        if state is not None:
            # What was draining has nothing on it any more.
            server.mode = "serving" if state.mode == "serving" else "paused"
            server.recall(state.models)
            server.circuit.suspect(state.state, state.reason)

    def _changed(self, server: RemoteServer) -> None:
        self._registry.refresh()
        if self._registry.get(server.id) is server:
            self._store.keep_state(state_of(server, server.mode, self._world))

    def _result(self, id: str, circuit: Circuit, result: Result) -> None:
        current = self._registry.get(id)
        if isinstance(current, RemoteServer) and current.circuit is circuit:
            self._keep(id, result)

    def _keep(self, id: str, result: Result) -> None:
        at = result.at + self._world.wall_clock() - trio.current_time()
        kept = CheckResult(at, result.ok, result.seconds, result.reason, result.source)
        self._store.keep_check(id, kept)
