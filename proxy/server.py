"""The gateway as one structured program: nested scopes, opened from the root and closed from the leaf.

    telemetry    the ledger's writer, the store's                           closes last
      resources  the engine's models, connections to remote servers
        control  checks of the servers, joined servers, samples and tidying of the store,
                 the metrics port, passing log levels, the configuration's watch
          serving  listener, a session per connection, the exchanges' guards     closes first

How it ends is `shutdown`'s business.
"""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio
from hypercorn.typing import ASGIFramework
from quiver.schemas.config import Config, Telemetry

from .gateway import Gateway
from .handover import HypercornControl
from .listener import Listener
from .local.loading import Loader
from .network import Acceptor, listen_locally
from .remote.backend import RemoteServer
from .seams import World, offload
from .shutdown import Shutdown
from .store.store import Store
from .telemetry import upkeep
from .telemetry.accounting import Sink
from .telemetry.levels import LEVELS
from .telemetry.loop_lag import watch_lag
from .telemetry.port import MetricsPort
from .telemetry.tracing import Tracer
from .tunnel.door import JoinDoor

# What sending the last spans may take.
FLUSH = 3.0


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
    scraped = await _metrics_acceptors(config.telemetry, world)
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
                    await _run(gateway, acceptors, scraped, control(gateway), announce, shutdown)
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
    scraped: Sequence[Acceptor],
    app: ASGIFramework,
    announce: Callable[[Listening], None],
    shutdown: Shutdown,
) -> None:
    async with trio.open_nursery() as telemetry:
        telemetry.start_soon(gateway.store.write)
        telemetry.start_soon(_write_records, gateway)
        async with _resources(gateway), trio.open_nursery() as scope:
            scope.start_soon(watch_lag, gateway.metrics.loop_lag)
            scope.start_soon(MetricsPort(gateway.page, gateway.keys, gateway.world).serve, scraped)
            scope.start_soon(upkeep.take_samples, gateway)
            scope.start_soon(upkeep.tidy_store, gateway.store)
            scope.start_soon(gateway.checks.run)
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
