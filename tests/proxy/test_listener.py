"""Accepting in memory and virtual time: how many, how long a client may be silent, and how accepting ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
from quiver.proxy.listener import SWEEP, Listener
from quiver.proxy.network import Address, Wire
from quiver.proxy.session import LAST_CALL
from quiver.proxy.testing import ScriptedBackend, SimulatedNetwork
from quiver.schemas.config import Server
from trio.testing import MockClock

from .conftest import Build, Exchanges, records
from .scripts import BODY, lasting, whole
from .wires import RecordingControl, post, read_until_close, receive_reply

GATEWAY = Address("10.0.0.1", 8080)
CONFIG = Server(keep_alive=75, head_timeout=10, body_timeout=60)
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


class House:
    """A listener on a simulated network."""

    def __init__(self, handler: Exchanges, config: Server, control: RecordingControl) -> None:
        self.network = SimulatedNetwork(Random(1))
        self.listener = Listener(handler, control, handler.metrics, config)

    async def connect(self) -> Wire:
        return await self.network.connect(GATEWAY, "10.0.0.2")


@asynccontextmanager
async def listening(
    handler: Exchanges, config: Server = CONFIG, control: RecordingControl | None = None
) -> AsyncIterator[House]:
    house = House(handler, config, control or RecordingControl())
    acceptors = await house.network.listen(GATEWAY.host, GATEWAY.port)
    async with trio.open_nursery() as nursery:
        await nursery.start(house.listener.serve, acceptors, nursery)
        yield house
        nursery.cancel_scope.cancel()
    await trio.sleep(1)
    assert house.network.open_ends(GATEWAY.host) == []


async def is_served(client: Wire) -> bool:
    try:
        await client.send_all(MODELS)
        return b"200 OK" in await client.receive_some()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return False


async def test_connections_are_bounded(build: Build, autojump_clock: MockClock) -> None:
    handler = build([])
    async with listening(handler, Server(max_connections=2)) as house:
        clients = [await house.connect() for _ in range(4)]
        assert [await is_served(client) for client in clients] == [True, True, False, False]
        assert handler.metrics.connections == 2
        clients[0].close()
        await trio.sleep(1)
        assert handler.metrics.connections == 1
        assert await is_served(await house.connect())
    assert handler.metrics.connections == 0


async def drip(client: Wire, data: bytes) -> None:
    for byte in data:
        await trio.sleep(1)
        try:
            await client.send_all(bytes([byte]))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return


@pytest.mark.parametrize(
    ("first", "dripping", "status", "word", "seconds"),
    [
        (b"", b"", b"", b"", 75),
        (b"GET /v1/mo", b"", b"408", b"head", 10),
        (b"G", b"ET /v1/models HTTP/1.1\r\n", b"408", b"head", 10),
        (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", b"", b"408", b"body", 60),
        (
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n",
            b"x" * 300,
            b"408",
            b"body",
            60,
        ),
    ],
    ids=["idle", "head that stops", "head that drips", "body that stops", "body that drips"],
)
async def test_sweep_ends_overdue_clients(
    build: Build,
    autojump_clock: MockClock,
    first: bytes,
    dripping: bytes,
    status: bytes,
    word: bytes,
    seconds: float,
) -> None:
    async with listening(build([])) as house:
        client = await house.connect()
        if first:
            await client.send_all(first)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, client, dripping)
            received = await client.receive_some()
            nursery.cancel_scope.cancel()
        assert seconds <= trio.current_time() <= seconds + 2 * SWEEP
        assert received[9:12] == status
        assert b"The request's %b did not arrive in time" % word in received or not status


async def test_idle_time_counts_from_the_last_reply(build: Build, autojump_clock: MockClock) -> None:
    async with listening(build([ScriptedBackend("b", ["m"], lasting(200))])) as house:
        client = await house.connect()
        await trio.sleep(70)
        await client.send_all(post(BODY))
        assert await receive_reply(client) == b'{"ok": true}', "a client whose request is worked on is not idle"
        began = trio.current_time()
        assert await client.receive_some() == b""
        assert 75 <= trio.current_time() - began <= 75 + 2 * SWEEP


async def test_wind_down_closes_after_replies(build: Build, autojump_clock: MockClock) -> None:
    async with listening(build([ScriptedBackend("b", ["m"], whole)])) as house:
        known = await house.connect()
        await known.send_all(post(BODY))
        assert await receive_reply(known) == b'{"ok": true}'
        house.listener.wind_down()
        await trio.sleep(20)
        for client in (known, await house.connect()):
            await client.send_all(post(BODY))
            received = await read_until_close(client)
            assert received.startswith(b"HTTP/1.1 200")
            assert b"connection: close\r\n" in received.lower()


async def test_stop_accepting_ends_the_silent(build: Build, autojump_clock: MockClock) -> None:
    handler = build([ScriptedBackend("b", ["m"], lasting(30))])
    async with listening(handler) as house:
        idle, busy, late = [await house.connect() for _ in range(3)]
        await busy.send_all(post(BODY))
        await trio.sleep(2)
        house.listener.wind_down()
        house.listener.stop_accepting()
        with pytest.raises(OSError, match="refused"):
            await house.connect()
        await trio.sleep(LAST_CALL / 2)
        await late.send_all(MODELS)
        received = await read_until_close(late)
        assert received.startswith(b"HTTP/1.1 200"), "a request that was on its way is answered"
        assert b"connection: close" in received.lower()
        assert await idle.receive_some() == b""
        assert trio.current_time() <= 2 + LAST_CALL + 2 * SWEEP + 0.1
        received = await read_until_close(busy)
        assert received.endswith(b'{"ok": true}')
        assert b"connection: close" in received.lower()
    assert {record.status for record in records(handler)} == {200}


async def test_cancelling_closes_everything(build: Build, autojump_clock: MockClock) -> None:
    handler = build([ScriptedBackend("b", ["m"], lasting(30))])
    async with listening(handler) as house:
        idle, busy = [await house.connect() for _ in range(2)]
        await busy.send_all(post(BODY))
        await trio.sleep(1)
    assert await idle.receive_some() == await busy.receive_some() == b""
    assert [record.outcome for record in records(handler)] == ["cancelled"]
    assert handler.metrics.connections == 0
    with pytest.raises(OSError, match="refused"):
        await house.connect()


class BrokenControl(RecordingControl):
    """Has a fault of its own."""

    async def serve(self, wire: Wire, prefix: bytes) -> None:
        raise RuntimeError("a fault of ours")


async def test_broken_session_costs_its_connection(build: Build, autojump_clock: MockClock) -> None:
    handler = build([])
    async with listening(handler, control=BrokenControl()) as house:
        broken, whole_one = await house.connect(), await house.connect()
        await broken.send_all(b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await read_until_close(broken) == b""
        assert await is_served(whole_one)
        assert await is_served(await house.connect())
