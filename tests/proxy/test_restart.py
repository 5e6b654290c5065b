"""A gateway that ends and comes back: it knows its servers, how they stood, what they offered, and the engine's models."""

from pathlib import Path

import msgspec
import structlog.testing
import trio
from quiver.proxy.remote.backend import RemoteServer
from quiver.proxy.store.store import Store
from quiver.proxy.testing.models import ScriptedFile, ScriptedLoader
from quiver.schemas import config
from quiver.schemas.config import Health, LocalModel, RemoteBackend
from quiver.schemas.history import EventQuery
from quiver.schemas.models import ModelLoad
from quiver.schemas.saved import SavedServer
from trio.testing import MockClock

from .gateways import BODY, Running, answering, running
from .servers import Farm, Said, response

CHATTED = Said(response(b"200 OK", b'{"ok": true}'))
NOW = 1_700_000_000.0


def open_store(folder: Path) -> Store:
    return Store.open(folder, config.Store(), lambda: NOW)


async def register(gateway: Running, wanted: RemoteBackend) -> None:
    """As the admin API does it, but for the first check."""
    assert wanted.name is not None
    await gateway.gateway.store.save_server(SavedServer(id=wanted.name, backend=wanted, created=NOW, changed=NOW))
    gateway.gateway.register(wanted)


def server(gateway: Running, id: str) -> RemoteServer:
    found = gateway.gateway.registry.get(id)
    assert isinstance(found, RemoteServer)
    return found


async def test_servers_come_back_as_they_were(farm: Farm, tmp_path: Path, autojump_clock: MockClock) -> None:
    one_backend, _ = await farm.configure(answering(CHATTED), models=())
    two_backend, _ = await farm.configure(answering(CHATTED), models=())
    async with running(farm, [], store=open_store(tmp_path)) as gateway:
        await register(gateway, msgspec.structs.replace(one_backend, api_key="key-of-one"))
        await register(gateway, two_backend)
        await gateway.gateway.modes.pause("b2", "ada")
        await trio.sleep(200)
        gateway.signal(15)
    async with running(farm, [], store=open_store(tmp_path)) as gateway:
        one, two = server(gateway, "b1"), server(gateway, "b2")
        assert (one.config.api_key, one.entry.origin, one.mode) == ("key-of-one", "registered", "serving")
        assert (two.mode, two.models) == ("paused", ("m",))
        assert [result.ok for result in one.circuit.history][:2] == [True, True]
        told = await gateway.gateway.store.history.events(EventQuery(kind=("server.state",)))
        assert {event.subject for event in told.events} == {"b1", "b2"}
        told = await gateway.gateway.store.history.events(EventQuery(kind=("gateway.started", "gateway.stopped")))
        assert [event.kind for event in told.events] == ["gateway.started", "gateway.stopped", "gateway.started"]
        gateway.signal(15)


async def test_requests_right_after_a_restart_find_their_model(
    farm: Farm, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The first check takes its time; nobody has to wait for it."""
    backend, machine = await farm.configure(answering(CHATTED), models=())
    async with running(farm, [], store=open_store(tmp_path)) as gateway:
        await register(gateway, backend)
        await trio.sleep(10)
        gateway.signal(15)
    machine.answer = lambda asked: (
        Said(response(b"200 OK", b'{"data": [{"id": "m"}]}'), after=8) if asked.path == b"/v1/models" else CHATTED
    )
    async with running(farm, [], store=open_store(tmp_path)) as gateway:
        assert server(gateway, "b1").circuit.state == "unknown"
        assert (await gateway.ask(BODY, b"Connection: close"))[9:12] == b"200"
        gateway.signal(15)


async def test_server_that_was_out_has_to_prove_itself(farm: Farm, tmp_path: Path, autojump_clock: MockClock) -> None:
    backend, machine = await farm.configure(answering(CHATTED), models=())
    health = Health(interval=10, ejection=5)
    async with running(farm, [], store=open_store(tmp_path), health=health) as gateway:
        await register(gateway, backend)
        await trio.sleep(15)
        machine.answer = lambda asked: Said(response(b"500 No", b""))
        await trio.sleep(60)
        assert server(gateway, "b1").circuit.state == "ejected"
        gateway.signal(15)
    async with running(farm, [], store=open_store(tmp_path), health=health) as gateway:
        circuit = server(gateway, "b1").circuit
        assert (circuit.state, circuit.reason) == ("ejected", "`/v1/models` answered 500"), "one failure was enough"
        machine.answer = answering(CHATTED)
        await trio.sleep(30)
        assert circuit.state == "healthy"
        gateway.signal(15)


async def test_configuration_wins(farm: Farm, tmp_path: Path, autojump_clock: MockClock) -> None:
    backend, _ = await farm.configure(answering(CHATTED))
    async with running(farm, [], store=open_store(tmp_path)) as gateway:
        await register(gateway, msgspec.structs.replace(backend, api_key="registered"))
        gateway.signal(15)
    with structlog.testing.capture_logs() as log:
        configured = msgspec.structs.replace(backend, api_key="configured")
        async with running(farm, [configured], store=open_store(tmp_path)) as gateway:
            found = server(gateway, "b1")
            assert (found.config.api_key, found.entry.origin) == ("configured", "configuration")
            gateway.signal(15)
    warned = [line for line in log if line["log_level"] == "warning"]
    assert [(line["event"], line["server"]) for line in warned] == [
        ("a server is configured and was registered; the configuration wins", "b1")
    ]


async def test_models_come_back(farm: Farm, tmp_path: Path, autojump_clock: MockClock) -> None:
    files = {f"/models/{name}": ScriptedFile() for name in ("a", "b", "c")}
    configured = (LocalModel(path="/models/a"),)

    def loader() -> ScriptedLoader:
        return ScriptedLoader(files)

    async with running(farm, [], loader=loader(), models=configured, store=open_store(tmp_path)) as gateway:
        models = gateway.gateway.models
        await trio.sleep(5)
        for path in ("b", "c", "bad"):
            _, loading = await models.load(ModelLoad(path=f"/models/{path}"), "ada")
            await loading.ended.wait()
        _, loading = await models.load(ModelLoad(path="/models/b", id="d"))
        await loading.ended.wait()
        await models.unload("c")
        await models.unload("a")
        await models.remove("d")
        await trio.sleep(5)
        events = await gateway.gateway.store.history.events(EventQuery(limit=100))
        told = {(event.kind, event.subject) for event in events.events}
        assert {("model.loaded", "b"), ("model.failed", "bad"), ("model.unloaded", "c"), ("model.removed", "d")} <= told
        gateway.signal(15)
    async with running(farm, [], loader=loader(), models=configured, store=open_store(tmp_path)) as gateway:
        await trio.sleep(5)
        models = gateway.gateway.models
        assert {model.model: models.state(model.model) for model in models} == {
            "a": "ready",
            "b": "ready",
            "c": "unloaded",
        }
        gateway.signal(15)
