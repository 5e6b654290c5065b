"""The gateway as one structured program: nested scopes, opened from the root and closed from the leaf.

    telemetry    the ledger's writer, the store's                     closes last
      resources  the engine's models, connections to remote servers
        control  health checks, one task for each server
          serving  listener, a session per connection, the exchanges' guards     closes first

How it ends is `shutdown`'s business.
"""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import inf
from pathlib import Path
from typing import Literal

import msgspec
import structlog
import trio
from hypercorn.typing import ASGIFramework
from quiver.schemas.config import Config, RemoteBackend, Telemetry
from quiver.schemas.servers import Detection, Entry
from quiver.schemas.settings import Change

from . import upkeep
from .access.cors import cross_origin
from .access.forwarding import Proxies
from .access.keys import KeyRing
from .access.spending import spent_before
from .accounting import Ledger, Sink
from .admission.admission import Admission
from .egress import open_wire, operator_policy
from .events import Journal
from .exchange import ExchangeHandler
from .exposition import Page
from .figures import gateway_figures
from .handover import HypercornControl
from .inference import Inference
from .levels import LEVELS
from .listener import Listener
from .local.backend import EngineModel
from .local.catalogue import Catalogue
from .local.gpu import GpuFigures
from .local.loading import EngineLoader, Loader
from .local.models import LocalModels
from .loop_lag import watch_lag
from .metrics import Metrics
from .metrics_port import MetricsPort
from .network import Acceptor, Wire, listen_locally
from .reconfigure import Applier, reconfigure
from .record import Record
from .registry import Backend, BackendStatus, Registry
from .remote import health, questions
from .remote.backend import RemoteServer
from .remote.modes import Modes, entry_of
from .remote.standings import Standings
from .reuse.store import ReuseStore
from .seams import World, offload
from .shutdown import Shutdown
from .store.store import Store
from .tracing import Tracer, Tracing
from .tunnel.door import JoinDoor
from .tunnel.joins import Joins

# What sending the last spans may take.
FLUSH = 3.0

State = Literal["starting", "ready", "draining"]


@dataclass(frozen=True)
class Listening:
    """Where the gateway can be reached, told once it accepts connections."""

    host: str
    port: int
    keys_required: bool

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class Gateway:
    """The parts of one running gateway, for the control plane to look at and to change. Raises `ValueError` when the
    configuration contradicts itself. `loader` stands in for the engine's own. Without a `store` everything is kept in
    memory.
    """

    def __init__(
        self,
        config: Config,
        world: World,
        sink: Sink,
        *,
        on_loopback: bool,
        loader: Loader | None = None,
        store: Store | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.config, self.world = config, world
        self.state: State = "starting"
        self.metrics = Metrics()
        self.store = store or Store.open(None, config.store, world.wall_clock)
        self.journal = Journal(world)
        self.journal.keep = self.store.keep_event
        self.store.told = self._store_changed
        if self.store.recovery is not None:
            self.journal.note("store.recovered", "database", **msgspec.to_builtins(self.store.recovery))
        self.ledger = Ledger(self.metrics, sink, self._keep_records)
        self.on_loopback = on_loopback
        self.egress = operator_policy(config.egress, on_loopback)
        # What else a changed configuration is told to, and what else runs while the gateway serves.
        self.appliers: list[Applier] = []
        self.jobs: list[Callable[[], Awaitable[None]]] = []
        # Held from the last look at the registry to the change of it, as saving takes time in between.
        self.changes = trio.Lock()
        self._checks: trio.Nursery | None = None
        self._checking: dict[str, trio.CancelScope] = {}
        catalogue = Catalogue(config.engine.models_dir)
        self.models = LocalModels(config, world, catalogue, loader or EngineLoader(catalogue), self.store, self.journal)
        self.registry = Registry(tuple(self.models), config.routing)
        self.standings = Standings(self.registry, self.store, self.journal, world)
        self.modes = Modes(self.registry, self.store, self.journal, self.changes, world)
        self._add_known_servers()
        self.keys = KeyRing(
            config.keys,
            config.auth.keys,
            config.rate,
            secret=self.store.secret,
            auth=config.auth,
            closed=not on_loopback,
            wall_clock=world.wall_clock,
            note=self._note_failures,
        )
        self._add_known_keys()
        self.admission: Admission[Backend] = Admission(
            config.admission, give_back=lambda backend: backend.load.returned()
        )
        self.registry.changed = self.admission.poke
        self.joins = Joins(self)
        self.reuse = ReuseStore(config.reuse)
        self.models.offer_in(self.registry)
        self.models.changed = self._models_changed
        inference = Inference(self.registry, self.admission, self.reuse, config, world.random, self.metrics)
        self.cors = cross_origin(config.cors)
        self.proxies = Proxies(config.server.trusted_proxies) if config.server.trusted_proxies else None
        self.tracer = tracer
        self.exchanges = ExchangeHandler(
            self.registry,
            inference,
            self.keys,
            self.ledger,
            self.metrics,
            world,
            cors=self.cors,
            proxies=self.proxies,
            tracing=Tracing(world.random, tracer, propagate=config.telemetry.propagate),
        )
        self.exchanges.keep_content = config.log.prompts or config.store.content
        self.gpus = GpuFigures()
        self.metrics.figures = lambda: chain(gateway_figures(self), self.gpus.figures())
        self.page = Page(self.metrics)
        self.scraped: Sequence[Acceptor] = ()

    def __repr__(self) -> str:
        return f"<Gateway: {self.state}, {self.exchanges!r}, {self.registry!r}>"

    def backends(self) -> Sequence[BackendStatus]:
        """The state of every backend."""
        return [backend.status() for backend in self.registry]

    def candidate(self, backend: RemoteBackend, entry: Entry, config: Config | None = None) -> RemoteServer:
        """A server that gets no requests yet, to check first and then `adopt`, or `close`. `config`: where its limits are not
        those in force. Raises `ValueError` when its URL cannot be used.
        """
        config = config or self.config
        server = RemoteServer(backend, config.limits, config.health, self.world, self._open_wire, entry)
        self.standings.follow(server)
        return server

    async def detect(self, server: RemoteServer) -> Detection:
        """What `server` is. Takes as long as a check at most."""
        key, limits = server.config.api_key, self.config.limits
        return await questions.ask(server.origin, key, limits, self._open_wire, self.config.health.timeout)

    def register(self, backend: RemoteBackend) -> RemoteServer:
        """`adopt` a server that nobody has checked. Raises `ValueError` as `candidate` and `adopt` do."""
        now = self.world.wall_clock()
        server = self.candidate(backend, Entry(origin="registered", created=now, changed=now))
        self.adopt(server)
        return server

    def adopt(self, server: RemoteServer) -> None:
        """Add a server, or put it in the place of the one with the same id, whose calls go on. It is checked at once.

        Raises `ValueError` when the id is the engine's.
        """
        before, known = self.registry.get(server.id), False
        if isinstance(before, EngineModel):
            raise ValueError(f"`{server.id}` is a model of the built-in engine")
        if isinstance(before, RemoteServer):
            server.succeed(before)
            known = server.circuit is before.circuit
            self._let_go(before)
        self.registry.replace(server)
        self.modes.settle(server)
        self.standings.settle(server, known=known)
        self.reuse.clear(trio.current_time())
        self._watch(server)

    def deregister(self, id: str) -> bool:
        """Take a server out of the registry; whether it was there. It gets no new calls; those on it go on."""
        server = self.registry.get(id)
        if not isinstance(server, RemoteServer):
            return False
        self.registry.remove(id)
        self._let_go(server)
        self.reuse.clear(trio.current_time())
        return True

    async def reconfigure(self, config: Config) -> list[Change]:
        """Put another configuration in force, as far as that goes without a restart; what differs. Raises `Refused`."""
        return await reconfigure(self, config)

    def exchange_servers(self, added: Sequence[RemoteServer], removed: Sequence[RemoteServer]) -> None:
        """Put servers in, some in the place of those with the same id, and take others out, as one change."""
        replaced = [before for server in added if isinstance(before := self.registry.get(server.id), RemoteServer)]
        for server, before in ((server, self.registry.get(server.id)) for server in added):
            if isinstance(before, RemoteServer):
                server.succeed(before)
        for server in (*replaced, *removed):
            self._let_go(server)
        self.registry.exchange(removed, added)
        for server in added:
            self.modes.settle(server)
            self._watch(server)
        if added or removed:
            self.reuse.clear(trio.current_time())

    def watch_anew(self) -> None:
        """Check every server at once, and then as the configuration says now."""
        for backend in self.registry:
            if isinstance(backend, RemoteServer) and (scope := self._checking.pop(backend.id, None)) is not None:
                scope.cancel()
                self._watch(backend)

    async def check_servers(self) -> None:
        """Check every server that is or gets registered, until cancelled."""
        async with trio.open_nursery() as self._checks:
            for backend in self.registry:
                if isinstance(backend, RemoteServer):
                    self._watch(backend)
            await trio.sleep_forever()

    def _add_known_servers(self) -> None:
        """Those that are configured, and those that were registered before; each as it was when the gateway last ran."""
        now = self.world.wall_clock()
        for configured in self.config.backends:
            self.registry.add(self.candidate(configured, Entry(created=now, changed=now)))
        log = structlog.get_logger(component="store")
        for saved in self.store.saved.servers:
            try:
                if self.registry.get(saved.id) is None:
                    self.registry.add(self.candidate(saved.backend, entry_of(saved)))
                else:
                    log.warning("a server is configured and was registered; the configuration wins", server=saved.id)
            except ValueError as error:
                log.error("a registered server cannot be used", server=saved.id, reason=str(error))
        for backend in self.registry:
            if isinstance(backend, RemoteServer):
                self.standings.recall(backend)
        self.registry.refresh()

    def _add_known_keys(self) -> None:
        for key in self.store.saved.keys:
            client = self.keys.put(key, -inf, spent_before(key, self.store, self.world.wall_clock()))
            client.used_before = self.store.last_used(key.name)
        admin_key = self.config.auth.admin_key
        if admin_key is not None and (owner := self.keys.owner(self.keys.digest_of(admin_key))) is not None:
            raise ValueError(f"`auth.admin_key` is also the client key of `{owner.name}`")

    def _models_changed(self, replaced: bool) -> None:
        if replaced:  # what was kept of another file's answers is void
            self.reuse.clear(trio.current_time())
        self.registry.refresh()

    def _note_failures(self, address: str, count: int) -> None:
        self.journal.note("auth.refused", address, failures=count)

    def _store_changed(self, reason: str | None) -> None:
        if reason is None:
            self.journal.note("store.recovered", "store", dropped=self.store.statistics().dropped)
        else:
            self.journal.note("store.degraded", "store", reason=reason)

    def _keep_records(self, records: Sequence[Record]) -> None:
        """Into the store, with prompts and answers only where it may keep them: they may be there for the log alone."""
        if not self.config.store.content:
            records = [
                record
                if record.keep_content or record.prompt is None
                else msgspec.structs.replace(record, prompt=None, answer=None)
                for record in records
            ]
        self.store.keep_records(records)

    async def _open_wire(self, host: str, port: int) -> Wire:
        return await open_wire(self.world.network, self.egress, host, port)

    def _watch(self, server: RemoteServer) -> None:
        if self._checks is not None:
            self._checking[server.id] = scope = trio.CancelScope()
            self._checks.start_soon(self._check, server, scope)

    async def _check(self, server: RemoteServer, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                try:
                    await health.watch(server, self.config.health, self.world, partial(self.standings.turned, server))
                except Exception:  # a fault of ours must not leave the server unwatched, nor end the gateway
                    structlog.get_logger(component="health").exception("check broke", server=server.id)
                await trio.sleep(self.config.health.interval)

    def _let_go(self, server: RemoteServer) -> None:
        if (scope := self._checking.pop(server.id, None)) is not None:
            scope.cancel()
        server.close()


async def run(
    config: Config,
    *,
    control: Callable[[Gateway], ASGIFramework],
    sink: Sink,
    announce: Callable[[Listening], None] = lambda listening: None,
    world: World | None = None,
    signals: AsyncIterator[int] | None = None,
    on_loopback: bool = True,
    loader: Loader | None = None,
    tracer: Tracer | None = None,
    stopping: Callable[[float], None] = lambda seconds: None,
    local_socket: Path | None = None,
    store: Store | None = None,
) -> int:
    """Serve until SIGINT or SIGTERM; the process's exit code (130 or 143).

    `sink` gets the records of finished requests, in batches, off the event loop. `signals` stands in for the process's
    own, `loader` for the engine's; `tracer` gets the traces of requests. `on_loopback`: whether only this machine can reach
    the gateway. `local_socket`: where to listen for this user's own programs, too. `store` keeps what lasts and is closed at
    the end; without one nothing lasts. `stopping` is told how many seconds the shutdown may take, once it begins; the exit
    code is 1 when that was not enough, or a part of the gateway failed to stop. Raises `OSError` when the address cannot be
    bound, `ValueError` when the configuration contradicts itself.
    """
    world = world or World()
    gateway = Gateway(config, world, sink, on_loopback=on_loopback, loader=loader, store=store, tracer=tracer)
    acceptors = await world.network.listen(config.server.host, config.server.port)
    gateway.scraped = await _metrics_acceptors(config.telemetry, world)
    if local_socket is not None:
        acceptors += _local_acceptors(local_socket)
    shutdown = Shutdown(gateway.config.drain, stopping)
    gateway.appliers.append(lambda changed: shutdown.configure(changed.drain))
    with contextlib.ExitStack() as stack:
        if signals is None:
            signals = stack.enter_context(trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM))
        try:
            with shutdown.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(shutdown.listen, signals)
                    await _run(gateway, acceptors, control(gateway), announce, shutdown)
                    nursery.cancel_scope.cancel()
        except Exception:
            if shutdown.began is None:
                raise
            shutdown.failed()
        return shutdown.exit_code()


async def _metrics_acceptors(config: Telemetry, world: World) -> Sequence[Acceptor]:
    """The scrapers' own port, if there is to be one."""
    if config.metrics_port is None:
        return ()
    try:
        return await world.network.listen(config.metrics_host, config.metrics_port)
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        where = f"`{config.metrics_host}`, port {config.metrics_port}"
        raise ValueError(f"`telemetry.metrics_port`: cannot listen on {where}: {reason}") from error


def _local_acceptors(path: Path) -> list[Acceptor]:
    """The Unix socket, if there can be one: the gateway is of use without."""
    try:
        return [listen_locally(path)]
    except OSError as error:
        log = structlog.get_logger(component="server")
        log.warning("no local socket: use the address and a key instead", path=str(path), reason=str(error))
        return []


async def _run(
    gateway: Gateway,
    acceptors: Sequence[Acceptor],
    app: ASGIFramework,
    announce: Callable[[Listening], None],
    shutdown: Shutdown,
) -> None:
    async with trio.open_nursery() as telemetry:
        telemetry.start_soon(gateway.store.write)
        telemetry.start_soon(_write_records, gateway)
        async with _resources(gateway), trio.open_nursery() as scope:
            scope.start_soon(watch_lag, gateway.metrics.loop_lag)
            scope.start_soon(MetricsPort(gateway.page, gateway.keys, gateway.world).serve, gateway.scraped)
            scope.start_soon(upkeep.take_samples, gateway)
            scope.start_soon(upkeep.tidy_store, gateway.store)
            scope.start_soon(gateway.check_servers)
            scope.start_soon(gateway.joins.run)
            scope.start_soon(LEVELS.go_back, gateway.journal)
            for job in gateway.jobs:
                scope.start_soon(job)
            await _serve(gateway, acceptors, app, announce, shutdown)
            scope.cancel_scope.cancel()
        gateway.journal.note("gateway.stopped", "gateway")
        gateway.ledger.close()
    if gateway.tracer is not None:
        await offload(gateway.tracer.close, FLUSH)


async def _write_records(gateway: Gateway) -> None:
    """The ledger's writer; when it is done, nothing more comes for the store."""
    await gateway.ledger.write_records()
    gateway.store.close()


@asynccontextmanager
async def _resources(gateway: Gateway) -> AsyncIterator[None]:
    """The engine's models, loading beside each other, and the remote servers' connections."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.models.run)
        try:
            yield
        finally:
            gateway.models.close()
            for backend in gateway.registry:
                if isinstance(backend, RemoteServer):
                    backend.close()


async def _serve(
    gateway: Gateway,
    acceptors: Sequence[Acceptor],
    app: ASGIFramework,
    announce: Callable[[Listening], None],
    shutdown: Shutdown,
) -> None:
    """Accept and answer until a signal comes, then give way."""
    hypercorn = HypercornControl(app, gateway.exchanges, gateway.config.server)
    door = JoinDoor(gateway.joins, hypercorn, gateway.keys, gateway.proxies, on_loopback=gateway.on_loopback)
    listener = Listener(gateway.exchanges, door, gateway.metrics, gateway.config.server)
    async with trio.open_nursery() as sessions:
        sessions.start_soon(gateway.exchanges.run)
        await sessions.start(listener.serve, acceptors, sessions)
        announce(Listening(acceptors[0].address.host, acceptors[0].address.port, gateway.keys.required))
        gateway.state = "ready"
        gateway.journal.note("gateway.started", "gateway", servers=len(list(gateway.registry)))
        await shutdown.wait_asked()
        gateway.state = "draining"
        await shutdown.drain(gateway.exchanges, gateway.admission, listener, hypercorn, gateway.joins)
        sessions.cancel_scope.cancel()
