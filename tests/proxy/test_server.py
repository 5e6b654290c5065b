"""A gateway that runs: how it starts, what it tells of itself, and how its servers change."""

import signal

import msgspec
import pytest
import trio
from quiver.proxy.server import Listening
from quiver.schemas.config import Auth, Config, Egress, Engine, Health
from trio.testing import MockClock

from .gateways import (
    BODY,
    CLIENT,
    GATEWAY,
    LAST,
    OK,
    STREAM,
    WORD,
    Running,
    answering,
    chats,
    code_in,
    keep,
    running,
    streaming,
    unchunked,
)
from .servers import Farm, Said, response
from .telemetry.test_metrics import samples, total, value


async def test_gateway_says_where_it_listens(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(OK))
    async with running(farm, [config]) as gateway:
        assert gateway.listening == Listening("127.0.0.1", 8080, False)
        assert gateway.gateway.state == "ready"
        assert await gateway.ready() == b"200"
        received = await gateway.ask(BODY, b"Connection: close")
        assert received.endswith(b'{"ok": true}')
        gateway.signal(signal.SIGINT)
    assert [record.status for record in gateway.records] == [200]


async def test_keys_are_told_and_asked_for(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(OK))
    async with running(farm, [config], auth=Auth(keys=("sk-the-key",))) as gateway:
        assert gateway.listening == Listening("127.0.0.1", 8080, True)
        assert code_in(await gateway.ask(BODY, b"Connection: close")) == "invalid_api_key"
        received = await gateway.ask(BODY, b"Connection: close", b"Authorization: Bearer sk-the-key")
        assert received.endswith(b'{"ok": true}')
        gateway.signal(signal.SIGINT)
    assert [record.client for record in gateway.records] == [CLIENT, "key-1"]


@pytest.mark.parametrize(
    ("egress", "status"),
    [(Egress(), b"502"), (Egress(private="allow"), b"200"), (Egress(allow=("10.0.0.1:9000",)), b"200")],
    ids=["refused", "allowed", "listed"],
)
async def test_public_gateway_keeps_out_of_private_networks(
    farm: Farm, autojump_clock: MockClock, egress: Egress, status: bytes
) -> None:
    config, server = await farm.configure(answering(OK))
    async with running(farm, [config], on_loopback=False, egress=egress, auth=Auth(open=True)) as gateway:
        received = await gateway.ask(BODY, b"Connection: close")
        assert received[9:12] == status
        if status == b"502":
            assert code_in(received) == "upstream_forbidden"
            assert b"10.0.0" not in received
            assert server.asked == []
        gateway.signal(signal.SIGINT)


async def test_servers_are_checked_and_found(farm: Farm, autojump_clock: MockClock) -> None:
    config, server = await farm.configure(answering(OK), models=())
    async with running(farm, [config], health=Health(interval=10)) as gateway:
        assert [(status.health, status.models) for status in gateway.gateway.backends()] == [("healthy", ("m",))]
        await trio.sleep(60)
        checks = [asked for asked in server.asked if asked.path == b"/v1/models"]
        assert 6 <= len(checks) <= 8
        gateway.signal(signal.SIGINT)


async def test_dead_server_is_taken_out_and_rejoins(farm: Farm, autojump_clock: MockClock) -> None:
    config, server = await farm.configure(answering(OK))
    async with running(farm, [config], health=Health(interval=10)) as gateway:
        server.answer = lambda asked: Said(response(b"500 Oops", b""))
        await trio.sleep(40)
        (status,) = gateway.gateway.backends()
        assert (status.health, status.reason) == ("unhealthy", "`/v1/models` answered 500")
        server.answer = answering(OK)
        await trio.sleep(60)
        assert gateway.gateway.backends()[0].health == "healthy"
        gateway.signal(signal.SIGINT)


async def test_page_tells_of_every_part(farm: Farm, autojump_clock: MockClock) -> None:
    (busy, _), (dead, dead_server) = (
        await farm.configure(answering(streaming(20)), max_concurrency=1),
        await farm.configure(answering(OK), models=("n",)),
    )
    repeatable = BODY.replace(b'"m"', b'"n", "seed": 1')
    async with running(farm, [busy, dead], health=Health(interval=10)) as gateway, trio.open_nursery() as nursery:
        for _ in range(2):
            await gateway.ask(repeatable, b"Connection: close")
        dead_server.answer = lambda asked: Said(response(b"500 Oops", b""))
        await trio.sleep(40)
        for _ in range(3):
            nursery.start_soon(keep, [], gateway, STREAM)
        await trio.sleep(1)
        found = samples(gateway.gateway.metrics)
        assert [value(found, "quiver_server_up", server=server) for server in ("b1", "b2")] == [1, 0]
        assert [value(found, "quiver_server_in_flight", server=server) for server in ("b1", "b2")] == [1, 0]
        assert [total(found, f"quiver_{name}") for name in ("queue_waiting", "in_flight", "connections")] == [2, 3, 3]
        assert value(found, "quiver_queue_waiting", priority="normal") == 2
        assert [value(found, "quiver_model_in_flight", model=model) for model in "mn"] == [3, 0]
        assert [value(found, "quiver_model_servers", model=model) for model in "mn"] == [1, 0]
        assert total(found, "quiver_circuit_state", server="b2") == 1
        assert value(found, "quiver_circuit_state", server="b2", quiver_circuit_state="ejected") == 1
        for state, times in (("healthy", 1), ("suspect", 1), ("ejected", 1)):
            assert total(found, "quiver_circuit_transitions_total", server="b2", state=state) >= times
        for server, result in (("b1", "passed"), ("b2", "failed")):
            checks = total(found, "quiver_health_check_seconds_count", server=server, result=result)
            assert checks >= 3
        assert value(found, "quiver_upstream_connections", server="b1", state="busy") == 1
        assert value(found, "quiver_upstream_connections_opened_total", server="b1") >= 1
        assert value(found, "quiver_connections_opened_total") == 5
        assert total(found, "quiver_event_loop_lag_seconds_count") > 100
        assert [value(found, f"quiver_cache_{name}_total") for name in ("hits", "shared", "misses")] == [1, 0, 1]
        assert value(found, "quiver_cache_answers") == 1
        assert value(found, "quiver_cache_bytes") > len(b'{"ok": true}')
        assert value(found, "quiver_records_waiting") == value(found, "quiver_records_dropped_total") == 0
        gateway.signal(signal.SIGINT)
    assert len(gateway.records) == 5


async def test_servers_come_and_go(farm: Farm, autojump_clock: MockClock) -> None:
    (first, first_server), (second, second_server) = [await farm.configure(answering(OK)) for _ in range(2)]
    async with running(farm, []) as gateway:
        assert code_in(await gateway.ask(BODY, b"Connection: close")) == "model_not_found"
        gateway.gateway.register(first)
        await trio.sleep(1)
        assert [status.health for status in gateway.gateway.backends()] == ["healthy"], "it is checked at once"
        gateway.gateway.register(second)
        await trio.sleep(1)
        for _ in range(4):
            assert b'{"ok": true}' in await gateway.ask(BODY, b"Connection: close")
        assert [chats(server) for server in (first_server, second_server)] == [2, 2]
        assert gateway.gateway.deregister("b1")
        assert not gateway.gateway.deregister("b1")
        for _ in range(2):
            await gateway.ask(BODY, b"Connection: close")
        assert [chats(server) for server in (first_server, second_server)] == [2, 4]
        checks = len(first_server.asked)
        await trio.sleep(300)
        assert len(first_server.asked) == checks, "a server that was let go is not checked any more"
        gateway.signal(signal.SIGINT)


async def test_registering_again_updates(farm: Farm, autojump_clock: MockClock) -> None:
    config, server = await farm.configure(answering(OK))
    async with running(farm, [config]) as gateway:
        gateway.gateway.register(msgspec.structs.replace(config, models=("n",), api_key="new-key"))
        await trio.sleep(1)
        assert [(status.id, status.models) for status in gateway.gateway.backends()] == [("b1", ("n",))]
        assert code_in(await gateway.ask(BODY, b"Connection: close")) == "model_not_found"
        assert b'{"ok": true}' in await gateway.ask(BODY.replace(b'"m"', b'"n"'), b"Connection: close")
        assert b"authorization: Bearer new-key" in server.asked[-1].head
        gateway.signal(signal.SIGINT)


async def test_calls_outlive_their_server(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(streaming(10)))
    received: list[tuple[float, bytes]] = []
    async with running(farm, [config]) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(keep, received, gateway, STREAM, b"Connection: close")
        await trio.sleep(5)
        gateway.gateway.deregister("b1")
        await trio.sleep(20)
        gateway.signal(signal.SIGINT)
    assert unchunked(received[0][1]) == WORD * 10 + LAST


async def test_contradictions_are_refused(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(OK))
    gateway = Running(farm.network)
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="two backends are called `b1`")):
        async with trio.open_nursery() as nursery:
            await nursery.start(gateway.run, Config(engine=Engine(bolt=False), backends=(config, config)))
    assert farm.network.open_ends(GATEWAY.host) == []


class FailsOnce:
    """Has a fault of its own the first time."""

    def __init__(self) -> None:
        self.called = False

    def __call__(self) -> None:
        if not self.called:
            self.called = True
            raise RuntimeError("a fault of ours")


async def test_broken_check_is_made_again(farm: Farm, autojump_clock: MockClock) -> None:
    """A fault of ours inside a check costs neither the gateway nor the server its checks."""
    config, server = await farm.configure(answering(OK))
    config = msgspec.structs.replace(config, models=())
    async with running(farm, [config], health=Health(interval=5)) as gateway:
        other = gateway.gateway.register(msgspec.structs.replace(config, name="other"))
        other.circuit.on_change = fail_once = FailsOnce()
        await trio.sleep(1)
        assert fail_once.called
        checks = len(server.asked)
        await trio.sleep(12)
        assert len(server.asked) >= checks + 4, "both are checked every 5 s"
        assert (await gateway.ready(), other.health) == (b"200", "healthy")
        gateway.signal(signal.SIGINT)
