"""`quiver serve`: a gateway in this process, from the checked configuration to the exit code."""

import contextlib
import errno
import gc
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
import trio
import typer
from hypercorn.typing import ASGIFramework
from quiver.proxy import server
from quiver.proxy.gateway import Gateway
from quiver.proxy.local.backend import EngineModel
from quiver.proxy.remote.backend import RemoteServer
from quiver.proxy.store.failure import StoreError
from quiver.proxy.store.folder import data_folder
from quiver.proxy.store.store import Store
from quiver.proxy.telemetry.tracing import Tracer
from quiver.schemas.config import Config
from quiver.schemas.models import ModelDescription

from .api.app import create_app
from .cli.console import fail, print_json
from .configuration.live import LiveConfiguration, hangups_ignored
from .configuration.settings import Loaded, Sources
from .logs.gpu import GpuWatch
from .logs.pipeline import Pipeline
from .logs.redactor import REDACTOR
from .logs.requests import RecordLog
from .logs.setup import configure, log_file, put_in_force
from .loopback import is_loopback
from .telemetry.opening import MissingExtra, open_tracer
from .watchdog import Watchdog


def serve(sources: Sources, *, announce_json: bool = False) -> int:
    """Run until a signal; the exit code. With `announce_json` one line on stdout says where it listens. Raises
    `SettingsError`.
    """
    loaded = sources.read()
    config = loaded.config
    folder = data_folder(config.store.data_dir)
    with hangups_ignored(), configure(config.log, file=log_file(config.log, folder)) as pipeline:
        put_in_force(config)
        for warning in loaded.warnings:
            structlog.get_logger(component="configuration").warning(warning)
        startup = Startup(loaded, sources, pipeline, announce_json=announce_json)
        watchdog = Watchdog()
        try:
            tracer = open_tracer(config.telemetry)
            with closing_store(Store.open(folder, config.store, time.time)) as store:
                return trio.run(_run, config, startup, watchdog, store, tracer, folder)
        except StoreError as error:
            fail(error.message, error.hint)
        except MissingExtra as missing:
            fail(str(missing), missing.hint, code=2)
        except OSError as error:
            fail(*why_not_bound(config, error))
        except ValueError as error:
            fail(str(error), code=2)
        except KeyboardInterrupt:  # before the gateway minds its signals
            return 130
        except BaseException:
            structlog.get_logger(component="server").critical("the gateway crashed", exc_info=True)
            raise
        finally:
            watchdog.disarm()


@contextlib.contextmanager
def closing_store(store: Store) -> Iterator[Store]:
    """Whoever does not come up keeps nobody else from the data folder."""
    try:
        yield store
    finally:
        store.release()


# Requests leave nothing behind that only the garbage collector could find, so it need not look often; a walk over
# everything that was loaded at start would hold up all streams for tens of milliseconds.
GARBAGE_THRESHOLDS = (50_000, 20, 50)


async def _run(
    config: Config, startup: "Startup", watchdog: Watchdog, store: Store, tracer: Tracer | None, folder: Path
) -> int:
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    return await server.run(
        config,
        control=startup.control,
        announce=startup.announce,
        sink=startup.records,
        on_loopback=is_loopback(config.server.host),
        store=store,
        stopping=watchdog.arm,
        local_socket=folder / "quiver.sock" if config.server.local_socket else None,
        tracer=tracer,
    )


class Startup:
    """What a starting gateway is told to do beside serving: carry the control plane, and say that it is there."""

    def __init__(self, loaded: Loaded, sources: Sources, pipeline: Pipeline, *, announce_json: bool) -> None:
        self._loaded, self._sources, self._pipeline, self._announce_json = loaded, sources, pipeline, announce_json
        self._config = config = loaded.config
        self._models: list[str] = []
        self.records = RecordLog(pipeline, prompts=config.log.prompts, gpu=GpuWatch())

    def control(self, gateway: Gateway) -> ASGIFramework:
        self._models = list(gateway.registry.models())
        self.records.describe = described(gateway)
        REDACTOR.learn(*(backend.config.api_key for backend in gateway.registry if isinstance(backend, RemoteServer)))
        live = LiveConfiguration(gateway, self._loaded, self._sources)
        gateway.jobs += [live.watch, live.mind_hangups]
        gateway.appliers.append(put_in_force)
        return create_app(gateway, self._pipeline, live)

    def announce(self, listening: server.Listening) -> None:
        url = reachable_url(listening)
        if self._announce_json:
            print_json({"url": url, "keys_required": listening.keys_required})
        if self._pipeline.format == "console":
            typer.echo(welcome(listening, self._models, len(self._config.backends)), err=True)
        else:
            log = structlog.get_logger(component="server")
            log.info("listening", url=url, access=access(listening), models=self._models)


def described(gateway: Gateway) -> Callable[[str], ModelDescription | None]:
    """What the model behind a server's id is, when the engine has it in memory."""

    def describe(id: str) -> ModelDescription | None:
        backend = gateway.registry.get(id)
        current = backend.residency.current if isinstance(backend, EngineModel) else None
        return None if current is None else current.engine.description

    return describe


def reachable_url(listening: server.Listening) -> str:
    """The gateway's address as this machine can use it: a wildcard address is none to connect to."""
    wildcards = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared with, not bound to
    if listening.host in wildcards:
        return f"http://{wildcards[listening.host]}:{listening.port}"
    return listening.url


def access(listening: server.Listening) -> str:
    """Who is let in."""
    if listening.keys_required:
        return "keys required"
    return "open to loopback only" if is_loopback(listening.host) else "OPEN to everyone"


def welcome(listening: server.Listening, models: list[str], remote: int) -> str:
    """What a person reads when the gateway is up."""
    url = reachable_url(listening)
    default = listening.port == 8080
    key = "QUIVER_API_KEY=YOUR_KEY " if listening.keys_required else ""
    asked = f" and what {remote} backend{'s' * (remote > 1)} offer{'s' * (remote == 1)}" if remote else ""
    return "\n".join(
        [
            f"Quiver listens on {url} ({access(listening)})",
            f"  models    {', '.join(models) or 'none of its own'}{asked}",
            f'  ask       {key}quiver chat {"" if default else f"--url {url} "}"What is Quiver?"',
            f"  clients   base URL {url}/v1",
            f"  API page  {url}/docs",
            "Stop it with Ctrl-C",
        ]
    )


def why_not_bound(config: Config, error: OSError) -> tuple[str, str]:
    """Message and hint for an address that cannot be listened on."""
    host, port = config.server.host, config.server.port
    if isinstance(error, socket.gaierror):
        return f"the host `{host}` is not known", "choose another with --host"
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} is already in use", "choose another with --port"
        case errno.EACCES:
            return f"this user may not listen on port {port}", "choose one above 1023 with --port"
        case errno.EADDRNOTAVAIL:
            return f"this machine has no address `{host}`", "choose another with --host"
        case number:
            reason = os.strerror(number) if number else str(error)
            return f"cannot listen on `{host}`, port {port}: {reason}", "choose others with --host and --port"
