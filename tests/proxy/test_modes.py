"""Pausing, resuming and draining servers of a gateway under traffic, in memory and virtual time."""

import signal

import msgspec
import pytest
import trio
from quiver.schemas.config import Health
from quiver.schemas.errors import ApiError
from quiver.schemas.events import Event
from trio.testing import MockClock

from .gateways import BODY, OK, STREAM, answering, chats, code_in, keep, running, streaming
from .servers import Asked, Farm, Said, response
from .wires import read_until_close

CLOSE = b"Connection: close"
WHO = "admin@10.9.0.1"


@pytest.fixture
def farm(nursery: trio.Nursery) -> Farm:
    return Farm(nursery)


async def test_paused_server_gets_no_calls_and_is_checked(farm: Farm, autojump_clock: MockClock) -> None:
    (one, first), (two, second) = await farm.configure(answering(OK)), await farm.configure(answering(OK))
    async with running(farm, [one, two], health=Health(interval=10)) as gateway:
        await gateway.gateway.modes.pause("b1", WHO)
        for _ in range(6):
            assert (await gateway.ask(BODY, CLOSE))[9:12] == b"200"
        assert (chats(first), chats(second)) == (0, 6)
        checks = len(first.asked)
        await trio.sleep(60)
        assert len(first.asked) >= checks + 5
        await gateway.gateway.modes.resume("b1", WHO)
        for _ in range(6):
            await gateway.ask(BODY, CLOSE)
        assert chats(first) == 3
        gateway.signal(signal.SIGINT)


async def test_model_whose_servers_are_paused_says_so(farm: Farm, autojump_clock: MockClock) -> None:
    config, server = await farm.configure(answering(OK))
    async with running(farm, [config]) as gateway:
        await gateway.gateway.modes.pause("b1", WHO)
        received = await gateway.ask(BODY, CLOSE)
        assert (received[9:12], code_in(received)) == (b"503", "servers_paused")
        client = await gateway.connect()
        await client.send_all(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b'"id":"m"' in (listed := await read_until_close(client))
        assert b'"available_servers":0' in listed
        assert b"retry-after: 30" in received.lower()
        assert chats(server) == 0
        gateway.signal(signal.SIGINT)


async def test_waiting_calls_are_told_of_a_pause(farm: Farm, autojump_clock: MockClock) -> None:
    """Those that run go on."""
    config, _ = await farm.configure(answering(streaming(20)), max_concurrency=1)
    received: list[tuple[float, bytes]] = []
    async with running(farm, [config]) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(keep, received, gateway, STREAM, CLOSE)
        await trio.sleep(2)
        nursery.start_soon(keep, received, gateway, BODY, CLOSE)
        await trio.sleep(2)
        await gateway.gateway.modes.pause("b1", WHO)
        await trio.sleep(60)
        (_, waited), (_, ran) = received
        assert code_in(waited) == "servers_paused"
        assert ran.count(b'"n": 1') == 20
        assert b"[DONE]" in ran
        gateway.signal(signal.SIGINT)


async def test_drained_server_becomes_paused_when_empty(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(streaming(20)))
    events: list[Event] = []
    async with running(farm, [config]) as gateway, trio.open_nursery() as nursery:
        modes, gateway.gateway.journal.keep = gateway.gateway.modes, events.append
        nursery.start_soon(keep, [], gateway, STREAM, CLOSE)
        await trio.sleep(2)
        began = trio.current_time()
        server = await modes.drain("b1", WHO)
        assert (server.mode, server.load.in_flight) == ("draining", 1)
        assert code_in(await gateway.ask(BODY, CLOSE)) == "servers_paused"
        with trio.fail_after(100):
            await modes.wait_drained("b1")
        assert (server.mode, server.load.in_flight) == ("paused", 0)
        assert trio.current_time() - began > 10
        told = [(event.kind, event.actor, event.details["before"], event.details["after"]) for event in events[-2:]]
        assert told == [
            ("server.draining", WHO, "serving", "draining"),
            ("server.drained", None, "draining", "paused"),
        ]
        gateway.signal(signal.SIGINT)


async def test_empty_server_is_drained_at_once(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(OK))
    async with running(farm, [config]) as gateway:
        assert (await gateway.gateway.modes.drain("b1", WHO)).mode == "paused"
        await gateway.gateway.modes.wait_drained("b1")
        gateway.signal(signal.SIGINT)


async def test_resumed_drain_stays_in_service(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(streaming(10)))
    async with running(farm, [config]) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(keep, [], gateway, STREAM, CLOSE)
        await trio.sleep(2)
        server = await gateway.gateway.modes.drain("b1", WHO)
        await gateway.gateway.modes.resume("b1", WHO)
        await trio.sleep(60)
        assert (server.mode, server.load.in_flight) == ("serving", 0)
        gateway.signal(signal.SIGINT)


async def test_replaced_server_keeps_its_mode(farm: Farm, autojump_clock: MockClock) -> None:
    """Whoever changes a server that is being drained does not resume it."""
    config, _ = await farm.configure(answering(streaming(10)))
    async with running(farm, []) as gateway, trio.open_nursery() as nursery:
        gateway.gateway.register(config)
        await trio.sleep(1)
        nursery.start_soon(keep, [], gateway, STREAM, CLOSE)
        await trio.sleep(2)
        await gateway.gateway.modes.drain("b1", WHO)
        after = gateway.gateway.register(msgspec.structs.replace(config, weight=7))
        assert (after.mode, after.load.in_flight, after.load.weight) == ("draining", 1, 7)
        await trio.sleep(60)
        assert after.mode == "paused"
        gateway.signal(signal.SIGINT)


async def test_unknown_server_has_no_mode(farm: Farm, autojump_clock: MockClock) -> None:
    async with running(farm, []) as gateway:
        with pytest.raises(ApiError, match="`gone`"):
            await gateway.gateway.modes.pause("gone", WHO)
        gateway.signal(signal.SIGINT)


async def test_fifty_servers_are_checked_together(farm: Farm, autojump_clock: MockClock) -> None:
    """A cycle takes as long as its slowest server."""
    configs = [(await farm.configure(slow_list))[0] for _ in range(50)]
    async with running(farm, configs, health=Health(timeout=10)) as gateway:
        await trio.sleep(9)
        assert {status.health for status in gateway.gateway.backends()} == {"healthy"}
        gateway.signal(signal.SIGINT)


def slow_list(asked: Asked) -> Said:
    """Eight seconds, and no figures."""
    if asked.path == b"/v1/models":
        return Said(response(b"200 OK", b'{"data": [{"id": "m"}]}'), after=8)
    return Said(response(b"404 Not Found", b""))
