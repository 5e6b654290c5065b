"""The gateway as one structured program: nested scopes, opened from the root and closed from the leaf.

    telemetry    the ledger's writer                                  closes last
      resources  the engine's models, connections to remote servers
        control  health checks, one task for each server
          serving  listener, a session per connection, the exchanges' guards     closes first

Shutdown: readiness turns 503 while work is still accepted, accepting stops, queued requests are turned away, exchanges run
to the drain timeout, open streams end with an error event, then the scopes close. A second signal skips the waiting.
"""

import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import structlog
import trio
from hypercorn.typing import ASGIFramework
from quiver.schemas.config import Config, RemoteBackend

from .access.keys import KeyRing
from .accounting import Ledger, Sink
from .admission.admission import Admission
from .egress import open_wire, operator_policy
from .events import Journal
from .exchange import ExchangeHandler
from .handover import HypercornControl
from .inference import Inference
from .listener import SWEEP, Listener
from .local.backend import EngineModel
from .local.catalogue import Catalogue
from .local.gpu import GpuFigures
from .local.loading import EngineLoader, Loader
from .local.models import LocalModels
from .metrics import Figure, Metrics
from .network import Acceptor, Wire
from .registry import OUT_OF_SERVICE, Backend, BackendStatus, Registry
from .remote import health
from .remote.backend import RemoteServer
from .reuse.store import ReuseStore
from .seams import World
from .session import LAST_CALL
from .tunnel.door import JoinDoor
from .tunnel.joins import Joins

State = Literal["starting", "ready", "draining"]
# What cancelled work may take to close its sockets once everything was told to stop.
CLOSE_TIMEOUT = 2.0
# What idle connections get, once all work is done: a last request may be on its way.
FAREWELL = LAST_CALL + 2 * SWEEP


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
    configuration contradicts itself. `loader` stands in for the engine's own.
    """

    def __init__(
        self, config: Config, world: World, sink: Sink, *, on_loopback: bool, loader: Loader | None = None
    ) -> None:
        self.config, self.world = config, world
        self.state: State = "starting"
        self.metrics = Metrics()
        self.journal = Journal(world)
        self.ledger = Ledger(self.metrics, sink)
        self.on_loopback = on_loopback
        self._egress = operator_policy(config.egress, on_loopback)
        self._checks: trio.Nursery | None = None
        self._checking: dict[str, trio.CancelScope] = {}
        catalogue = Catalogue(config.engine.models_dir)
        self.models = LocalModels(config, world, catalogue, loader or EngineLoader(catalogue))
        self.registry = Registry([*self.models, *map(self.candidate, config.backends)], config.routing)
        self.keys = KeyRing(config.keys, config.auth.keys, config.rate)
        self.admission: Admission[Backend] = Admission(
            config.admission, give_back=lambda backend: backend.load.returned()
        )
        self.registry.changed = self.admission.poke
        self.joins = Joins(self)
        self.reuse = ReuseStore(config.reuse)
        self.models.offer_in(self.registry)
        self.models.changed = self._models_changed
        inference = Inference(self.registry, self.admission, self.reuse, config, world.random)
        self.exchanges = ExchangeHandler(self.registry, inference, self.keys, self.ledger, self.metrics, world)
        self._gpus = GpuFigures()
        self.metrics.figures = self._figures

    def __repr__(self) -> str:
        return f"<Gateway: {self.state}, {self.exchanges!r}, {self.registry!r}>"

    def backends(self) -> Sequence[BackendStatus]:
        """The state of every backend."""
        return [backend.status() for backend in self.registry]

    def candidate(self, backend: RemoteBackend) -> RemoteServer:
        """A server that gets no requests yet, to check first and then `adopt`, or `close`. Raises `ValueError` when its
        URL cannot be used.
        """
        server = RemoteServer(backend, self.config.limits, self.config.health, self.world, self._open_wire)
        server.found = lambda: self.registry.refresh()
        return server

    def register(self, backend: RemoteBackend) -> RemoteServer:
        """`adopt` a server that nobody has checked. Raises `ValueError` as `candidate` and `adopt` do."""
        server = self.candidate(backend)
        self.adopt(server)
        return server

    def adopt(self, server: RemoteServer) -> None:
        """Add a server, or put it in the place of the one with the same id, whose calls go on. It is checked at once.

        Raises `ValueError` when the id is the engine's.
        """
        before = self.registry.get(server.id)
        if isinstance(before, EngineModel):
            raise ValueError(f"`{server.id}` is a model of the built-in engine")
        if isinstance(before, RemoteServer):
            server.succeed(before)
            self._let_go(before)
        self.registry.replace(server)
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

    async def check_servers(self) -> None:
        """Check every server that is or gets registered, until cancelled."""
        async with trio.open_nursery() as self._checks:
            for backend in self.registry:
                if isinstance(backend, RemoteServer):
                    self._watch(backend)
            await trio.sleep_forever()

    def _models_changed(self, replaced: bool) -> None:
        if replaced:  # what was kept of another file's answers is void
            self.reuse.clear(trio.current_time())
        self.registry.refresh()

    def _figures(self) -> Iterator[Figure]:
        """What other parts count, for the metrics page."""
        admission, reuse, ledger = self.admission.statistics(), self.reuse.statistics(), self.ledger
        yield Figure("gauge", "quiver_queue_waiting", "Requests that wait for a free server", admission.queue.waiting)
        yield Figure("counter", "quiver_queue_full", "Requests refused because too many waited", admission.full)
        yield Figure("counter", "quiver_queue_timeouts", "Requests that waited too long", admission.timed_out)
        yield Figure("gauge", "quiver_cache_bytes", "Memory taken by kept answers", reuse.bytes)
        yield Figure("gauge", "quiver_cache_answers", "Answers kept", reuse.kept)
        yield Figure("counter", "quiver_cache_hits", "Requests answered from memory", reuse.hits)
        yield Figure("counter", "quiver_cache_shared", "Requests that shared another's answer", reuse.shared)
        yield Figure("counter", "quiver_cache_misses", "Repeatable requests with no answer yet", reuse.misses)
        yield Figure("gauge", "quiver_records_waiting", "Records not yet written", ledger.waiting)
        yield Figure("counter", "quiver_records_dropped", "Records that could not be written", ledger.dropped)
        for backend in self.registry:
            label = ("server", backend.id)
            tier, load = backend.tier(trio.current_time()), backend.load
            yield Figure("gauge", "quiver_server_up", "Whether a server is in service", tier < OUT_OF_SERVICE, label)
            yield Figure("gauge", "quiver_server_in_flight", "Requests on a server", load.in_flight, label)
            if isinstance(backend, EngineModel):
                yield from backend.figures()
        yield from self._gpus.figures()

    async def _open_wire(self, host: str, port: int) -> Wire:
        return await open_wire(self.world.network, self._egress, host, port)

    def _watch(self, server: RemoteServer) -> None:
        if self._checks is not None:
            self._checking[server.id] = scope = trio.CancelScope()
            self._checks.start_soon(self._check, server, scope)

    async def _check(self, server: RemoteServer, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                try:
                    await health.watch(server, self.config.health, self.world)
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
) -> int:
    """Serve until SIGINT or SIGTERM; the process's exit code (130 or 143).

    `sink` gets the records of finished requests, in batches, off the event loop. `signals` stands in for the process's
    own, `loader` for the engine's. `on_loopback`: whether only this machine can reach the gateway. Raises `OSError` when the
    address cannot be bound, `ValueError` when the configuration contradicts itself.
    """
    world = world or World()
    gateway = Gateway(config, world, sink, on_loopback=on_loopback, loader=loader)
    acceptors = await world.network.listen(config.server.host, config.server.port)
    if signals is not None:
        return 128 + await _run(gateway, acceptors, control(gateway), announce, signals)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        return 128 + await _run(gateway, acceptors, control(gateway), announce, received)


async def _run(
    gateway: Gateway,
    acceptors: Sequence[Acceptor],
    app: ASGIFramework,
    announce: Callable[[Listening], None],
    signals: AsyncIterator[int],
) -> int:
    async with trio.open_nursery() as telemetry:
        telemetry.start_soon(gateway.ledger.write_records)
        async with _resources(gateway), trio.open_nursery() as scope:
            scope.start_soon(gateway.check_servers)
            scope.start_soon(gateway.joins.run)
            received = await _serve(gateway, acceptors, app, announce, signals)
            scope.cancel_scope.cancel()
        gateway.ledger.close()
    return received


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
    signals: AsyncIterator[int],
) -> int:
    """Accept and answer until a signal comes, then drain; the signal's number."""
    hypercorn = HypercornControl(app, gateway.exchanges, gateway.config.server)
    door = JoinDoor(gateway.joins, hypercorn, gateway.config, on_loopback=gateway.on_loopback)
    listener = Listener(gateway.exchanges, door, gateway.metrics, gateway.config.server)
    async with trio.open_nursery() as sessions:
        sessions.start_soon(gateway.exchanges.run)
        await sessions.start(listener.serve, acceptors, sessions)
        announce(Listening(acceptors[0].address.host, acceptors[0].address.port, gateway.keys.required))
        gateway.state = "ready"
        received = int(await anext(signals))
        async with trio.open_nursery() as drain:
            drain.start_soon(_stop_waiting_on_signal, signals, drain.cancel_scope)
            await _drain(gateway, listener, hypercorn, signal.Signals(received))
            drain.cancel_scope.cancel()
        await _stop(gateway, listener, hypercorn)
        sessions.cancel_scope.cancel()
    return received


async def _drain(
    gateway: Gateway,
    listener: Listener,
    hypercorn: HypercornControl,
    received: signal.Signals,
) -> None:
    """Let work in flight end by itself, for as long as the configuration gives it."""
    config, log = gateway.config.drain, structlog.get_logger(component="server")
    interrupted = received is signal.SIGINT
    timeout = config.interrupt_timeout if interrupted else config.timeout
    log.info("draining", signal=received.name, in_flight=gateway.exchanges.in_flight, timeout=timeout)
    gateway.state = "draining"
    listener.wind_down()
    hypercorn.wind_down()
    if not interrupted:
        await trio.sleep(config.delay)
    await _turn_away(gateway, listener, hypercorn)
    with trio.move_on_after(timeout):
        await gateway.exchanges.wait_idle()
        gateway.joins.close()
        with trio.move_on_after(FAREWELL):
            await listener.wait_empty()


async def _turn_away(gateway: Gateway, listener: Listener, hypercorn: HypercornControl) -> None:
    """No new connections, no new requests, no more waiting for a free server."""
    gateway.exchanges.draining = True
    listener.stop_accepting()
    gateway.admission.stop()
    await hypercorn.stop()


async def _stop(gateway: Gateway, listener: Listener, hypercorn: HypercornControl) -> None:
    """End what still runs: open streams get an error event, others an envelope."""
    await _turn_away(gateway, listener, hypercorn)
    if gateway.exchanges.in_flight:
        log = structlog.get_logger(component="server")
        log.warning("drain timed out", stopped=gateway.exchanges.in_flight)
        gateway.exchanges.stop_all()
        with trio.move_on_after(CLOSE_TIMEOUT):
            await gateway.exchanges.wait_idle()
    gateway.joins.close()


async def _stop_waiting_on_signal(signals: AsyncIterator[int], waiting: trio.CancelScope) -> None:
    """A second signal."""
    await anext(signals)
    waiting.cancel()
