"""A gateway's exchange handler over scripted backends, with its parts and its records at hand."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import pytest
import trio
import trio.testing
from quiver.proxy.access.keys import KeyRing
from quiver.proxy.admission.admission import Admission
from quiver.proxy.content import Content
from quiver.proxy.exchange import ExchangeHandler
from quiver.proxy.inference import Inference
from quiver.proxy.registry import Backend, Registry
from quiver.proxy.reuse.store import ReuseStore
from quiver.proxy.telemetry.accounting import Ledger
from quiver.proxy.telemetry.metrics import Metrics
from quiver.proxy.telemetry.record import Record
from quiver.proxy.testing import fixed_world
from quiver.schemas.config import Auth, Config

from .servers import Farm


async def at_once(fn: Callable[..., object], *args: object) -> object:
    """Stands where threads are: virtual time does not wait for them."""
    await trio.lowlevel.checkpoint()
    return fn(*args)


class RecordingLedger(Ledger):
    """Keeps the records it is given."""

    def __init__(self, metrics: Metrics) -> None:
        self.records: list[Record] = []
        super().__init__(metrics, lambda batch: None)

    def record(self, record: Record, content: Content | None = None) -> None:
        self.records.append(record)
        super().record(record)


class Exchanges(ExchangeHandler):
    """Put together as `Gateway` does it, without what listens and what checks servers."""

    def __init__(self, backends: Sequence[Backend], config: Config) -> None:
        world, metrics = fixed_world(), Metrics()
        registry = Registry(backends, config.routing)
        self.admission: Admission[Backend] = Admission(config.admission, lambda backend: backend.load.returned())
        registry.changed = self.admission.poke
        self.reuse = ReuseStore(config.reuse)
        inference = Inference(registry, self.admission, self.reuse, config, world.random, metrics)
        keys = KeyRing(config.keys, config.auth.keys, config.rate)
        super().__init__(registry, inference, keys, RecordingLedger(metrics), metrics, world)


def records(handler: ExchangeHandler) -> list[Record]:
    """What the handler has recorded so far."""
    assert isinstance(handler.ledger, RecordingLedger)
    return handler.ledger.records


class Build(Protocol):
    """Makes a handler and runs beside the test what has to run beside a handler."""

    def __call__(
        self, backends: Sequence[Backend], *, keys: Sequence[str] = (), config: Config | None = None
    ) -> Exchanges: ...


class Start(Protocol):
    """As `build`, with everything that runs beside the handler in its place: what is shared has somewhere to live."""

    def __call__(self, backends: Sequence[Backend], config: Config | None = None) -> Awaitable[Exchanges]: ...


@pytest.fixture
def build(nursery: trio.Nursery) -> Build:
    def build(backends: Sequence[Backend], *, keys: Sequence[str] = (), config: Config | None = None) -> Exchanges:
        handler = Exchanges(backends, config or Config(auth=Auth(keys=tuple(keys))))
        nursery.start_soon(handler.run)
        return handler

    return build


@pytest.fixture
def start(build: Build) -> Start:
    async def start(backends: Sequence[Backend], config: Config | None = None) -> Exchanges:
        handler = build(backends, config=config)
        await trio.testing.wait_all_tasks_blocked()
        return handler

    return start


@pytest.fixture
def farm(nursery: trio.Nursery) -> Farm:
    return Farm(nursery)
