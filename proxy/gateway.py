"""One running gateway: its parts, what joins them, and the changes of its servers. `server` runs it."""

from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from math import inf
from typing import Literal

import msgspec
import structlog
import trio
from quiver.schemas.config import Config, RemoteBackend
from quiver.schemas.servers import Detection, Entry

from .access.cors import cross_origin
from .access.forwarding import Proxies
from .access.keys import KeyRing
from .access.spending import spent_before
from .admission.admission import Admission
from .egress import open_wire, operator_policy
from .exchange import ExchangeHandler
from .inference import Inference
from .local.backend import EngineModel
from .local.catalogue import Catalogue
from .local.gpu import GpuFigures
from .local.loading import EngineLoader, Loader
from .local.models import LocalModels
from .network import Wire
from .registry import Backend, BackendStatus, Registry
from .remote import questions
from .remote.backend import RemoteServer
from .remote.checks import Checks
from .remote.modes import Modes, entry_of
from .remote.standings import Standings
from .reuse.store import ReuseStore
from .seams import World
from .store.store import Store
from .telemetry.accounting import Ledger, Sink
from .telemetry.exposition import Page
from .telemetry.figures import gateway_figures
from .telemetry.journal import Journal
from .telemetry.metrics import Metrics
from .telemetry.tracing import Tracer, Tracing
from .tunnel.joins import Joins

State = Literal["starting", "ready", "draining"]
# Told of a configuration that takes effect; of the one before again, when that had to be undone.
Applier = Callable[[Config], None]


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
        self.ledger = Ledger(self.metrics, sink, self.store.keep_records)
        self.on_loopback = on_loopback
        self.egress = operator_policy(config.egress, on_loopback)
        # What else a changed configuration is told to, and what else runs while the gateway serves.
        self.appliers: list[Applier] = []
        self.jobs: list[Callable[[], Awaitable[None]]] = []
        # Held from the last look at the registry to the change of it, as saving takes time in between.
        self.changes = trio.Lock()
        catalogue = Catalogue(config.engine.models_dir)
        self.models = LocalModels(config, world, catalogue, loader or EngineLoader(catalogue), self.store, self.journal)
        self.registry = Registry(tuple(self.models), config.routing)
        self.standings = Standings(self.registry, self.store, self.journal, world)
        self.checks = Checks(self.registry, world, lambda: self.config.health, self.standings.turned)
        self.modes = Modes(self.registry, self.store, self.journal, self.changes, world)
        self._add_known_servers()
        self.keys = self._key_ring()
        self._add_known_keys()
        self.admission: Admission[Backend] = Admission(
            config.admission, give_back=lambda backend: backend.load.returned()
        )
        self.registry.changed = self.admission.poke
        self.joins = Joins(self)
        self.reuse = ReuseStore(config.reuse)
        self.models.offer_in(self.registry)
        self.models.changed = self._models_changed
        self.cors = cross_origin(config.cors)
        self.proxies = Proxies(config.server.trusted_proxies) if config.server.trusted_proxies else None
        self.tracer = tracer
        self.exchanges = self._exchange_handler()
        self.gpus = GpuFigures()
        self.metrics.figures = lambda: chain(gateway_figures(self), self.gpus.figures())
        self.page = Page(self.metrics)

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
        self.checks.begin(server)

    def deregister(self, id: str) -> bool:
        """Take a server out of the registry; whether it was there. It gets no new calls; those on it go on."""
        server = self.registry.get(id)
        if not isinstance(server, RemoteServer):
            return False
        self.registry.remove(id)
        self._let_go(server)
        self.reuse.clear(trio.current_time())
        return True

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
            self.checks.begin(server)
        if added or removed:
            self.reuse.clear(trio.current_time())

    def _key_ring(self) -> KeyRing:
        return KeyRing(
            self.config.keys,
            self.config.auth.keys,
            self.config.rate,
            secret=self.store.secret,
            auth=self.config.auth,
            closed=not self.on_loopback,
            wall_clock=self.world.wall_clock,
            note=self._note_failures,
        )

    def _exchange_handler(self) -> ExchangeHandler:
        config, world = self.config, self.world
        inference = Inference(self.registry, self.admission, self.reuse, config, world.random, self.metrics)
        handler = ExchangeHandler(
            self.registry,
            inference,
            self.keys,
            self.ledger,
            self.metrics,
            world,
            cors=self.cors,
            proxies=self.proxies,
            tracing=Tracing(world.random, self.tracer, propagate=config.telemetry.propagate),
        )
        handler.keep_content = config.log.prompts or config.store.content
        return handler

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

    async def _open_wire(self, host: str, port: int) -> Wire:
        return await open_wire(self.world.network, self.egress, host, port)

    def _let_go(self, server: RemoteServer) -> None:
        self.checks.end(server)
        server.close()
