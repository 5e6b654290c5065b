"""The gateway as one structured program: nested scopes, opened from the root and closed from the leaf.

    telemetry    the ledger's writer                                  closes last
      resources  the engine's models, connections to remote servers
        control  health checks
          serving  listener, a session per connection                closes first

Shutdown: readiness turns 503, accepting stops, exchanges run to the drain timeout, open streams end with an error event,
then the scopes close. A second signal skips the waiting.
"""

import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import structlog
import trio
from hypercorn.typing import ASGIFramework
from quiver.schemas.config import Config, LocalModel

from .accounting import Ledger
from .auth import KeyRing
from .exchange import ExchangeHandler
from .handover import HypercornControl
from .listener import Listener
from .local.backend import BOLT, EngineModel
from .metrics import Metrics
from .registry import BackendStatus, Registry
from .remote import health
from .remote.backend import RemoteServer
from .seams import World

State = Literal["starting", "ready", "draining"]
# What cancelled work may take to close its sockets once everything was told to stop.
CLOSE_TIMEOUT = 2.0


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
    """The parts of one running gateway, for the control plane to look at."""

    def __init__(self, config: Config, world: World) -> None:
        self.config, self.world = config, world
        self.state: State = "starting"
        self.metrics = Metrics()
        self.ledger = Ledger(self.metrics)
        self.local = [EngineModel(model, config.engine, world) for model in _local_models(config)]
        self.remote = [RemoteServer(backend, backend.api_key, config.limits) for backend in config.backends]
        self.registry = Registry([*self.local, *self.remote])
        self.keys = KeyRing(config.auth.keys)
        self.exchanges = ExchangeHandler(self.registry, self.keys, config.limits, self.ledger, self.metrics, world)

    def __repr__(self) -> str:
        return f"<Gateway: {self.state}, {self.exchanges!r}, {self.registry!r}>"

    def backends(self) -> Sequence[BackendStatus]:
        """The state of every backend."""
        return [backend.status() for backend in self.registry]


async def run(
    config: Config,
    *,
    control: Callable[[Gateway], ASGIFramework],
    announce: Callable[[Listening], None] = lambda listening: None,
    world: World | None = None,
) -> int:
    """Serve until SIGINT or SIGTERM; the process's exit code (130 or 143).

    Raises `OSError` when the address cannot be bound, `ValueError` when the configuration contradicts itself.
    """
    gateway = Gateway(config, world or World())
    listeners = await trio.open_tcp_listeners(config.server.port, host=config.server.host)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as telemetry:
            telemetry.start_soon(gateway.ledger.write_records)
            async with _resources(gateway), trio.open_nursery() as scope:
                scope.start_soon(health.watch, gateway.remote, gateway.world)
                received = await _serve(gateway, listeners, control(gateway), announce, signals)
                scope.cancel_scope.cancel()
            gateway.ledger.close()
    return 128 + received


@asynccontextmanager
async def _resources(gateway: Gateway) -> AsyncIterator[None]:
    """The engine's models, loading beside each other, and the remote servers' connections."""
    async with trio.open_nursery() as nursery:
        for model in gateway.local:
            nursery.start_soon(model.run)
        try:
            yield
        finally:
            for model in gateway.local:
                model.stop()
            for server in gateway.remote:
                await server.aclose()


async def _serve(
    gateway: Gateway,
    listeners: Sequence[trio.SocketListener],
    app: ASGIFramework,
    announce: Callable[[Listening], None],
    signals: AsyncIterator[int],
) -> int:
    """Accept and answer until a signal comes, then drain; the signal's number."""
    hypercorn = HypercornControl(app, gateway.exchanges, gateway.config.server)
    listener = Listener(gateway.exchanges, hypercorn, gateway.metrics, gateway.config.server)
    async with trio.open_nursery() as sessions:
        await sessions.start(listener.serve, listeners, sessions)
        announce(_listening(gateway, listeners))
        gateway.state = "ready"
        received = int(await anext(signals))
        async with trio.open_nursery() as drain:
            drain.start_soon(_force_on_signal, signals, sessions.cancel_scope, drain.cancel_scope)
            await _drain(gateway, listener, hypercorn, signal.Signals(received))
            drain.cancel_scope.cancel()
        sessions.cancel_scope.cancel()
    return received


async def _drain(
    gateway: Gateway,
    listener: Listener,
    hypercorn: HypercornControl,
    received: signal.Signals,
) -> None:
    config, log = gateway.config.drain, structlog.get_logger(component="server")
    interrupted = received is signal.SIGINT
    timeout = config.interrupt_timeout if interrupted else config.timeout
    log.info("draining", signal=received.name, in_flight=gateway.exchanges.in_flight, timeout=timeout)
    gateway.state = "draining"
    if not interrupted:
        await trio.sleep(config.delay)
    gateway.exchanges.draining = True
    listener.wind_down()
    await hypercorn.wind_down()
    with trio.move_on_after(timeout) as patience:
        await gateway.exchanges.wait_idle()
    if patience.cancelled_caught:
        log.warning("drain timed out", stopped=gateway.exchanges.in_flight)
        gateway.exchanges.stop_all()
        with trio.move_on_after(CLOSE_TIMEOUT):
            await gateway.exchanges.wait_idle()


async def _force_on_signal(signals: AsyncIterator[int], *scopes: trio.CancelScope) -> None:
    """A second signal: stop waiting."""
    await anext(signals)
    for scope in scopes:
        scope.cancel()


def _listening(gateway: Gateway, listeners: Sequence[trio.SocketListener]) -> Listening:
    host, port = listeners[0].socket.getsockname()[:2]
    return Listening(host, port, gateway.keys.required)


def _local_models(config: Config) -> list[LocalModel]:
    return [*([BOLT] if config.engine.bolt else []), *config.models]
