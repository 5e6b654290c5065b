"""Another configuration for a gateway under load: nothing is lost, everything changes at once, or nothing does."""

from typing import Any

import msgspec
import pytest
import trio
from quiver.proxy.reconfigure import Refused, reconfigure
from quiver.proxy.remote.backend import RemoteServer
from quiver.proxy.testing.models import GIB, ScriptedFile, ScriptedLoader
from quiver.schemas.config import (
    Admission,
    Auth,
    Config,
    Drain,
    Health,
    Key,
    Limits,
    LocalModel,
    Policy,
    Rate,
    RemoteBackend,
    Retries,
    Reuse,
    Routing,
    Server,
)

from .gateways import BODY, OK, STREAM, Running, answering, code_in, keep, running, streaming, unchunked
from .servers import Asked, Farm, Said, response

URLS = ("http://10.0.0.1:9000", "http://10.0.0.2:9000", "http://10.0.0.3:9000")
A, B = RemoteBackend(url=URLS[0], name="a"), RemoteBackend(url=URLS[1], name="b")


def changed(gateway: Running, **sections: Any) -> Config:
    return msgspec.structs.replace(gateway.gateway.config, **sections)


def status_of(reply: bytes) -> bytes:
    return reply[9:12]


async def serving(farm: Farm, count: int = 3) -> None:
    for _ in range(count):
        await farm.configure(answering(OK))


async def test_no_request_is_lost_while_servers_come_and_go(farm: Farm, autojump_clock: object) -> None:
    """Four clients ask without a pause while the configuration changes forty times."""
    await serving(farm)
    replies: list[bytes] = []
    configs = [(A,), (A, B), (B,), (B, RemoteBackend(url=URLS[2], name="c")), (RemoteBackend(url=URLS[2], name="b"),)]

    async def ask(gateway: Running, until: float) -> None:
        while trio.current_time() < until:
            replies.append(await gateway.ask(BODY, b"Connection: close"))
            await trio.sleep(0.05)

    async with running(farm, [A], rate=Rate(anonymous_requests_per_minute=0)) as gateway:
        until = trio.current_time() + 6
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask, gateway, until)
            for turn in range(40):
                await trio.sleep(0.15)
                policy: Policy = "weighted" if turn % 2 else "round_robin"
                wanted = changed(
                    gateway,
                    backends=configs[turn % len(configs)],
                    routing=Routing(policy=policy),
                    limits=Limits(request=100 + turn),
                )
                await reconfigure(gateway.gateway, wanted)
        gateway.signal(15)
    assert len(replies) > 200
    assert {status_of(reply) for reply in replies} == {b"200"}


async def test_stream_goes_on_after_its_server_was_removed(farm: Farm, autojump_clock: object) -> None:
    await farm.configure(answering(streaming(20)))
    await farm.configure(answering(OK))
    received: list[tuple[float, bytes]] = []
    async with running(farm, [A]) as gateway:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, received, gateway, STREAM)
            await trio.sleep(5)
            wanted = changed(gateway, backends=(B,), limits=Limits(request=1, idle=0.5))
            await reconfigure(gateway.gateway, wanted)
            assert [backend.id for backend in gateway.gateway.registry] == ["b"]
        gateway.signal(15)
    assert unchunked(received[0][1]).endswith(b"data: [DONE]\n\n")


async def test_server_that_moves_keeps_its_models(farm: Farm, autojump_clock: object) -> None:
    """Its models are asked for at the new address before the old one is left."""
    await serving(farm)
    async with running(farm, [A]) as gateway:
        await reconfigure(gateway.gateway, changed(gateway, backends=(RemoteBackend(url=URLS[1], name="a"),)))
        assert status_of(await gateway.ask()) == b"200"
        server = gateway.gateway.registry.get("a")
        assert isinstance(server, RemoteServer)
        assert (server.status().address, server.entry.version) == (URLS[1] + "/v1", 2)
        gateway.signal(15)


async def test_every_live_section_takes_effect(farm: Farm, autojump_clock: object) -> None:
    await serving(farm, 2)
    async with running(farm, [A, B]) as gateway:
        parts = gateway.gateway
        wanted = changed(
            gateway,
            limits=Limits(request=7.0),
            retries=Retries(attempts=1),
            routing=Routing(aliases={"other": "m"}),
            health=Health(interval=1.0),
            admission=Admission(max_in_flight=1, queue=0),
            reuse=Reuse(share=False, cache=False),
            drain=Drain(timeout=3.0),
            keys=(Key(name="ada", key="the-key-of-ada"),),
            auth=Auth(admin_key="the-operators-key"),
        )
        found = await reconfigure(parts, wanted)
        assert parts.config == wanted
        assert {change.path for change in found if not change.live} == set()
        assert code_in(await gateway.ask()) == "invalid_api_key"
        key = b"Authorization: Bearer the-key-of-ada"
        assert status_of(await gateway.ask(b'{"model": "other", "messages": []}', key)) == b"200"
        assert parts.exchanges.inference.limits.request == 7.0
        assert not parts.reuse.applies()
        gateway.signal(15)


async def test_what_needs_a_restart_waits(farm: Farm, autojump_clock: object) -> None:
    await serving(farm, 1)
    async with running(farm, [A]) as gateway:
        before = gateway.gateway.config.server
        wanted = changed(gateway, server=Server(port=9999), limits=Limits(request=7.0))
        found = await reconfigure(gateway.gateway, wanted)
        assert [(change.path, change.before, change.after, change.live) for change in found] == [
            ("server.port", before.port, 9999, False),
            ("limits.request", 300.0, 7.0, True),
        ]
        assert gateway.gateway.config.server == before
        assert gateway.gateway.config.limits.request == 7.0
        gateway.signal(15)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"backends": (A, RemoteBackend(url=URLS[1], name="a"))}, "two backends are called `a`"),
    ({"backends": (A, RemoteBackend(url=URLS[1], name="late"))}, "`late` was registered while the gateway ran"),
    ({"keys": (Key(name="x", key="key-number-1"), Key(name="x", key="key-number-2"))}, "two keys are named `x`"),
]


@pytest.mark.parametrize(("sections", "message"), REFUSED)
async def test_unfit_configuration_changes_nothing(
    farm: Farm, autojump_clock: object, sections: dict[str, Any], message: str
) -> None:
    await serving(farm)
    async with running(farm, [A]) as gateway:
        gateway.gateway.register(RemoteBackend(url=URLS[2], name="late"))
        before, backends = gateway.gateway.config, list(gateway.gateway.registry)
        with pytest.raises(Refused, match=message):
            await reconfigure(gateway.gateway, changed(gateway, **sections, limits=Limits(request=7.0)))
        assert gateway.gateway.config is before
        assert list(gateway.gateway.registry) == backends
        assert gateway.gateway.exchanges.inference.limits.request == 300.0
        gateway.signal(15)


async def test_failure_midway_undoes_everything(farm: Farm, autojump_clock: object) -> None:
    """The last part to be told refuses: all those before it are as they were, and so are the servers."""
    await serving(farm)
    told: list[float] = []

    def refuse(config: Config) -> None:
        told.append(config.limits.request)
        if config.limits.request == 7.0:
            raise RuntimeError("out of order")

    async with running(farm, [A]) as gateway:
        parts = gateway.gateway
        parts.appliers.append(refuse)
        before, backends = parts.config, list(parts.registry)
        wanted = changed(
            gateway,
            backends=(B,),
            limits=Limits(request=7.0),
            admission=Admission(max_in_flight=1),
            routing=Routing(aliases={"other": "m"}),
            keys=(Key(name="ada", key="the-key-of-ada"),),
        )
        with pytest.raises(RuntimeError, match="out of order"):
            await reconfigure(parts, wanted)
        assert told == [7.0, 300.0]
        assert (parts.config, list(parts.registry)) == (before, backends)
        assert parts.exchanges.inference.limits.request == 300.0
        assert parts.registry.chain("other") == ()
        assert status_of(await gateway.ask()) == b"200"
        gateway.signal(15)


async def test_registered_server_stays(farm: Farm, autojump_clock: object) -> None:
    await serving(farm)
    async with running(farm, [A]) as gateway:
        late = gateway.gateway.register(RemoteBackend(url=URLS[2], name="late"))
        await reconfigure(gateway.gateway, changed(gateway, backends=()))
        assert list(gateway.gateway.registry) == [late]
        gateway.signal(15)


async def test_calls_count_for_a_server_that_changes(farm: Farm, autojump_clock: object) -> None:
    """A server with another weight is the same server: its calls fill its places, and it need not be checked first."""
    await farm.configure(answering(streaming(10)))
    received: list[tuple[float, bytes]] = []
    async with running(farm, [A]) as gateway:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, received, gateway, STREAM)
            await trio.sleep(2)
            heavier = RemoteBackend(url=URLS[0], name="a", weight=3.0, max_concurrency=1)
            await reconfigure(gateway.gateway, changed(gateway, backends=(heavier,)))
            server = gateway.gateway.registry.get("a")
            assert isinstance(server, RemoteServer)
            assert (server.load.in_flight, server.load.weight, server.load.full) == (1, 3.0, True)
            assert (server.health, server.models) == ("healthy", ("m",))
        assert server.load.in_flight == 0
        gateway.signal(15)


async def test_smaller_interval_counts_at_once(farm: Farm, autojump_clock: object) -> None:
    asked: list[float] = []

    def answer(request: Asked) -> Said:
        if request.path == b"/v1/models":
            asked.append(trio.current_time())
        return Said(response(b"200 OK", b'{"data": [{"id": "m"}]}'))

    await farm.configure(answer)
    async with running(farm, [A]) as gateway:
        await reconfigure(gateway.gateway, changed(gateway, health=Health(interval=1.0)))
        before = len(asked)
        await trio.sleep(10)
        assert len(asked) - before >= 8
        gateway.signal(15)


async def test_models_come_change_and_go(farm: Farm, autojump_clock: object) -> None:
    """A stream on a model that is taken out goes on; one whose options change is loaded beside itself."""
    loader = ScriptedLoader(
        {"one.gguf": ScriptedFile(bytes=GIB, tokens=20, pace=1.0), "two.gguf": ScriptedFile(bytes=GIB)}
    )
    received: list[tuple[float, bytes]] = []
    one, two = LocalModel(path="one.gguf"), LocalModel(path="two.gguf")

    def body(model: str, stream: str = "false") -> bytes:
        messages = b'[{"role": "user", "content": "hello"}]'
        return b'{"model": "%b", "stream": %b, "messages": %b}' % (model.encode(), stream.encode(), messages)

    async with running(farm, [], loader=loader, models=(one,)) as gateway:
        parts = gateway.gateway
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, received, gateway, body("one", "true"))
            await trio.sleep(3)
            await reconfigure(parts, changed(gateway, models=(two,)))
            await trio.sleep(2)
            assert [model.model for model in parts.models] == ["two"]
            assert status_of(await gateway.ask(body("two"))) == b"200"
            assert code_in(await gateway.ask(body("one"))) == "model_not_found"
            await reconfigure(parts, changed(gateway, models=(msgspec.structs.replace(two, max_sequences=3),)))
            await trio.sleep(2)
            assert parts.models.get("two").residency.wanted.settings.max_sequences == 3
        gateway.signal(15)
    assert unchunked(received[0][1]).endswith(b"data: [DONE]\n\n")
