"""A whole gateway in memory and virtual time: how it starts, changes its servers, and gives way when it is told to stop."""

import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import msgspec
import pytest
import trio
from hypercorn.typing import ASGIFramework
from quiver.proxy.network import Address, Wire
from quiver.proxy.record import Record
from quiver.proxy.seams import World, offload_runner
from quiver.proxy.server import CLOSE_TIMEOUT, Gateway, Listening, run
from quiver.proxy.testing import SimulatedNetwork
from quiver.schemas.config import Admission, Auth, Config, Drain, Egress, Engine, Health, RemoteBackend, Server
from trio.testing import MockClock

from .conftest import at_once
from .servers import Answer, Asked, Farm, Said, events, response
from .test_metrics import samples, value
from .test_session import post, read_until_close, receive_reply

GATEWAY = Address("127.0.0.1", 8080)
CLIENT = "10.9.0.1"
BODY = b'{"model": "m", "messages": []}'
STREAM = b'{"model": "m", "messages": [], "stream": true}'
READY = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
WORD, LAST = b'data: {"n": 1}\n\n', b"data: [DONE]\n\n"
OK = Said(response(b"200 OK", b'{"ok": true}'))
DRAIN = Drain(delay=5, timeout=30, interrupt_timeout=2)
# What closing and the last records may take once there is nothing to wait for.
FAREWELL = 1.0


class Running:
    """A gateway that runs: send it signals, ask it something, and look at what it leaves."""

    def __init__(self, network: SimulatedNetwork, *, on_loopback: bool = True) -> None:
        self.network, self._on_loopback = network, on_loopback
        self.records: list[Record] = []
        self.listening: Listening | None = None
        self.code: int | None = None
        self.ended_at = 0.0
        self._gateway: Gateway | None = None
        self._send, self._signals = trio.open_memory_channel[int](2)

    @property
    def gateway(self) -> Gateway:
        assert self._gateway is not None
        return self._gateway

    async def run(self, config: Config, task_status: trio.TaskStatus[None]) -> None:
        def announce(listening: Listening) -> None:
            self.listening = listening
            task_status.started()

        world = World(lambda: 1_700_000_000.0, Random(1), self.network)
        self.code = await run(
            config,
            control=self._control,
            sink=self.records.extend,
            announce=announce,
            world=world,
            signals=self._signals,
            on_loopback=self._on_loopback,
        )
        self.ended_at = trio.current_time()

    def signal(self, number: int) -> None:
        self._send.send_nowait(number)

    async def connect(self) -> Wire:
        return await self.network.connect(GATEWAY, CLIENT)

    async def ask(self, body: bytes = BODY, *headers: bytes) -> bytes:
        """A reply on a connection of its own, to the connection's end."""
        client = await self.connect()
        await client.send_all(post(body, *headers))
        return await read_until_close(client)

    async def ready(self) -> bytes:
        """What a load balancer is told."""
        client = await self.connect()
        await client.send_all(READY)
        return (await read_until_close(client))[9:12]

    def _control(self, gateway: Gateway) -> ASGIFramework:
        self._gateway = gateway

        async def app(scope: Any, receive: Any, send: Any) -> None:
            status = 200 if gateway.state == "ready" else 503
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": gateway.state.encode(), "more_body": False})

        return app


@asynccontextmanager
async def running(
    farm: Farm, backends: Sequence[RemoteBackend], *, on_loopback: bool = True, **sections: Any
) -> AsyncIterator[Running]:
    """The gateway must have ended by itself, leaving nothing open, some time after the block."""
    offload_runner.set(at_once)
    config = Config(engine=Engine(bolt=False), server=Server(port=GATEWAY.port), backends=tuple(backends), drain=DRAIN)
    gateway = Running(farm.network, on_loopback=on_loopback)
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.run, msgspec.structs.replace(config, **sections))
        await trio.sleep(1)
        yield gateway
        nursery.cancel_scope.deadline = trio.current_time() + 1000
    assert gateway.code is not None, "the gateway did not end"
    assert farm.network.open_ends(GATEWAY.host) == []
    with pytest.raises(OSError, match="refused"):
        await gateway.connect()


def answering(said: Said) -> Answer:
    """A server that lists its models as it should, and answers everything else alike."""

    def answer(asked: Asked) -> Said:
        if asked.path == b"/v1/models":
            return Said(response(b"200 OK", b'{"data": [{"id": "m"}]}'))
        return said if asked.path.startswith(b"/v1/") else Said(response(b"404 Not Found", b""))

    return answer


def streaming(words: int) -> Said:
    """A word a second; 10,000 are more than anyone waits for."""
    pieces = [events().removesuffix(b"0\r\n\r\n")]
    pieces += [b"%x\r\n%b\r\n" % (len(word), word) for word in [WORD] * words + [LAST]]
    return Said([*pieces, b"0\r\n\r\n"], after=1)


def code_in(received: bytes) -> object:
    """The code of an error reply."""
    return msgspec.json.decode(received.partition(b"\r\n\r\n")[2])["error"]["code"]


def unchunked(received: bytes) -> bytes:
    """The body of a chunked reply, which must be whole."""
    rest = received.partition(b"\r\n\r\n")[2]
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length:]
        assert rest.startswith(b"\r\n")
        rest = rest[2:]
        if not length:
            assert rest == b""
            return body


async def keep(received: list[tuple[float, bytes]], gateway: Running, body: bytes) -> None:
    """Ask, and note the reply and when it ended."""
    reply = await gateway.ask(body)
    received.append((trio.current_time(), reply))


# Serving.


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
    async with running(farm, [config], on_loopback=False, egress=egress) as gateway:
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
        assert [value(found, f"quiver_{name}") for name in ("queue_waiting", "in_flight", "connections")] == [2, 3, 3]
        assert [value(found, f"quiver_cache_{name}_total") for name in ("hits", "shared", "misses")] == [1, 0, 1]
        assert value(found, "quiver_cache_answers") == 1
        assert value(found, "quiver_cache_bytes") > len(b'{"ok": true}')
        assert value(found, "quiver_records_waiting") == value(found, "quiver_records_dropped_total") == 0
        gateway.signal(signal.SIGINT)
    assert len(gateway.records) == 5


# Changing servers.


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
        assert [_chats(server) for server in (first_server, second_server)] == [2, 2]
        assert gateway.gateway.deregister("b1")
        assert not gateway.gateway.deregister("b1")
        for _ in range(2):
            await gateway.ask(BODY, b"Connection: close")
        assert [_chats(server) for server in (first_server, second_server)] == [2, 4]
        checks = len(first_server.asked)
        await trio.sleep(300)
        assert len(first_server.asked) == checks, "a server that was let go is not checked any more"
        gateway.signal(signal.SIGINT)


def _chats(server: Any) -> int:
    return sum(asked.path == b"/v1/chat/completions" for asked in server.asked)


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
        nursery.start_soon(gateway_ask, received, gateway, STREAM)
        await trio.sleep(5)
        gateway.gateway.deregister("b1")
        await trio.sleep(20)
        gateway.signal(signal.SIGINT)
    assert unchunked(received[0][1]) == WORD * 10 + LAST


async def gateway_ask(received: list[tuple[float, bytes]], gateway: Running, body: bytes) -> None:
    """As `keep`, on a connection that is closed afterwards."""
    received.append((trio.current_time(), await gateway.ask(body, b"Connection: close")))


async def test_contradictions_are_refused(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(OK))
    gateway = Running(farm.network)
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="two backends are called `b1`")):
        async with trio.open_nursery() as nursery:
            await nursery.start(gateway.run, Config(engine=Engine(bolt=False), backends=(config, config)))
    assert farm.network.open_ends(GATEWAY.host) == []


# Draining.


async def test_delay_tells_and_still_accepts(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(OK))
    async with running(farm, [config]) as gateway:
        kept = await gateway.connect()
        await kept.send_all(post(BODY))
        assert await receive_reply(kept) == b'{"ok": true}'
        gateway.signal(signal.SIGTERM)
        began = trio.current_time()
        await trio.sleep(4)
        assert await gateway.ready() == b"503"
        assert gateway.gateway.state == "draining"
        for client in (kept, await gateway.connect()):
            await client.send_all(post(BODY))
            received = await read_until_close(client)
            assert received.startswith(b"HTTP/1.1 200")
            assert b"connection: close\r\n" in received.lower()
    assert gateway.code == 143
    assert began + 5 <= gateway.ended_at <= began + 5 + FAREWELL + 1
    assert [record.outcome for record in gateway.records] == ["completed"] * 3


async def test_accepting_ends_after_the_delay(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(streaming(20)))
    received: list[tuple[float, bytes]] = []
    async with running(farm, [config]) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(keep, received, gateway, STREAM)
        idle = await gateway.connect()
        await trio.sleep(2)
        gateway.signal(signal.SIGTERM)
        await trio.sleep(5.1)
        with pytest.raises(OSError, match="refused"):
            await gateway.connect()
        began = trio.current_time()
        assert await idle.receive_some() == b""
        assert trio.current_time() - began <= 2
    (_, reply) = received[0]
    assert unchunked(reply) == WORD * 20 + LAST, "what is in flight runs to its end"
    assert gateway.ended_at <= received[0][0] + FAREWELL + 1


@pytest.mark.parametrize("late_request", [post(BODY), b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_late_request_on_an_old_connection_is_refused(
    farm: Farm, autojump_clock: MockClock, late_request: bytes
) -> None:
    config, server = await farm.configure(answering(OK))
    async with running(farm, [config]) as gateway:
        late = await gateway.connect()
        await trio.sleep(1)
        gateway.signal(signal.SIGTERM)
        await trio.sleep(5.2)
        asked = len(server.asked)
        await late.send_all(late_request)
        received = await read_until_close(late)
        assert received.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 5\r\n" in received.lower()
        assert b"connection: close\r\n" in received.lower()
        assert code_in(received) == "shutting_down"
        assert len(server.asked) == asked


async def test_queued_requests_are_sent_away(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(streaming(20)), max_concurrency=1)
    received: list[tuple[float, bytes]] = []
    async with running(farm, [config], admission=Admission(max_wait=100)) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(keep, received, gateway, STREAM)
        await trio.sleep(1)
        for _ in range(2):
            nursery.start_soon(keep, received, gateway, BODY)
        await trio.sleep(1)
        gateway.signal(signal.SIGTERM)
        began = trio.current_time()
    *queued, (_, finished) = received
    assert len(queued) == 2
    for at, reply in queued:
        assert reply.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 5\r\n" in reply.lower()
        assert code_in(reply) == "shutting_down"
        assert began + 5 <= at <= began + 5.1 + 1, "they wait while work is still accepted"
    assert unchunked(finished) == WORD * 20 + LAST


async def test_limit_ends_streams_well(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(streaming(10_000)))
    received: list[tuple[float, bytes]] = []
    async with running(farm, [config]) as gateway, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(keep, received, gateway, STREAM)
        await trio.sleep(2)
        gateway.signal(signal.SIGTERM)
        began = trio.current_time()
    for _, reply in received:
        *words, last = unchunked(reply).removesuffix(b"\n\n").split(b"\n\n")
        assert len(words) > 30
        assert {word + b"\n\n" for word in words} == {WORD}
        assert msgspec.json.decode(last.removeprefix(b"data: "))["error"]["code"] == "shutting_down"
    assert began + 35 <= gateway.ended_at <= began + 35 + CLOSE_TIMEOUT + FAREWELL
    assert gateway.code == 143
    assert [(record.outcome, record.error) for record in gateway.records] == [("failed", "shutting_down")] * 3


async def test_limit_ends_shared_streams_well(farm: Farm, autojump_clock: MockClock) -> None:
    config, server = await farm.configure(answering(streaming(10_000)))
    received: list[tuple[float, bytes]] = []
    async with running(farm, [config]) as gateway, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(keep, received, gateway, STREAM.replace(b'"m"', b'"m", "seed": 1'))
        await trio.sleep(2)
        gateway.signal(signal.SIGTERM)
        began = trio.current_time()
    assert _chats(server) == 1
    for _, reply in received:
        assert unchunked(reply).startswith(WORD * 30)
        assert b'"code":"shutting_down"' in unchunked(reply)
    assert gateway.ended_at <= began + 35 + CLOSE_TIMEOUT + FAREWELL
    assert gateway.gateway.reuse.statistics().in_flight == 0


async def test_handed_over_connections_drain_too(farm: Farm, autojump_clock: MockClock) -> None:
    """A browser's connection, on which it has had a page, an idle one, and one that streams an answer."""
    config, _ = await farm.configure(answering(streaming(10_000)))
    page = READY.replace(b"Connection: close\r\n", b"")
    async with running(farm, [config]) as gateway:
        idle, busy = [await gateway.connect() for _ in range(2)]
        for client in (idle, busy):
            await client.send_all(page)
            assert b"200" in await client.receive_some()
        await busy.send_all(post(STREAM))
        await trio.sleep(2)
        gateway.signal(signal.SIGTERM)
        began = trio.current_time()
        await read_until_close(idle)
        assert began + 5 <= trio.current_time() <= began + 5 + 2
        received = await read_until_close(busy)
    assert received.count(WORD) > 30
    assert b'"code":"shutting_down"' in received
    assert received.endswith(b"0\r\n\r\n")
    assert gateway.ended_at <= began + 35 + CLOSE_TIMEOUT + FAREWELL
    assert [record.error for record in gateway.records] == ["shutting_down"]


async def test_pages_say_that_connections_end(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(OK))
    page = READY.replace(b"Connection: close\r\n", b"")
    async with running(farm, [config]) as gateway:
        known = await gateway.connect()
        await known.send_all(page)
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += await known.receive_some()
        assert b"connection: close" not in received.lower()
        gateway.signal(signal.SIGTERM)
        await trio.sleep(1)
        for client in (known, await gateway.connect()):
            await client.send_all(page)
            assert b"connection: close" in (await read_until_close(client)).lower()
            assert trio.current_time() < 5, "it ends with its reply, not with the delay"


async def test_limit_ends_silent_requests_well(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(Said(OK.data, after=500)))
    received: list[tuple[float, bytes]] = []
    async with running(farm, [config]) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(keep, received, gateway, BODY)
        nursery.start_soon(keep, received, gateway, STREAM)
        await trio.sleep(2)
        gateway.signal(signal.SIGTERM)
    whole, stream = sorted((reply for _, reply in received), key=lambda reply: b"event-stream" in reply)
    assert whole.startswith(b"HTTP/1.1 503")
    assert code_in(whole) == "shutting_down"
    assert unchunked(stream).startswith(b": heartbeat\n\n"), "heartbeats go on meanwhile"
    assert b'"code":"shutting_down"' in unchunked(stream)


async def test_interrupt_waits_less(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(streaming(10_000)))
    received: list[tuple[float, bytes]] = []
    async with running(farm, [config]) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(keep, received, gateway, STREAM)
        await trio.sleep(2)
        gateway.signal(signal.SIGINT)
        began = trio.current_time()
    assert gateway.code == 130
    assert began + 2 <= gateway.ended_at <= began + 2 + CLOSE_TIMEOUT + FAREWELL
    assert b'"code":"shutting_down"' in unchunked(received[0][1])


@pytest.mark.parametrize("pause", [1, 10], ids=["in the delay", "while draining"])
async def test_second_signal_skips_the_waiting(farm: Farm, autojump_clock: MockClock, pause: float) -> None:
    config, _ = await farm.configure(answering(streaming(10_000)))
    received: list[tuple[float, bytes]] = []
    async with running(farm, [config]) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(keep, received, gateway, STREAM)
        await trio.sleep(2)
        gateway.signal(signal.SIGTERM)
        await trio.sleep(pause)
        gateway.signal(signal.SIGTERM)
        began = trio.current_time()
    assert gateway.ended_at <= began + CLOSE_TIMEOUT + FAREWELL
    assert gateway.code == 143
    assert len(gateway.records) == 1, "the record is written all the same"
    assert b'"code":"shutting_down"' in unchunked(received[0][1]), "a second signal skips to the end of the waiting"


async def test_client_that_never_reads_holds_nothing_up(farm: Farm, autojump_clock: MockClock) -> None:
    flood = Said(events(*[b"data: " + b"x" * 60_000 + b"\n\n"] * 200, LAST))
    config, _ = await farm.configure(answering(flood))
    async with running(farm, [config], drain=Drain(timeout=5)) as gateway:
        client = await gateway.connect()
        await client.send_all(post(STREAM))
        await trio.sleep(2)
        gateway.signal(signal.SIGTERM)
        began = trio.current_time()
        await trio.sleep(20)
        client.close()
    assert gateway.ended_at <= began + 5 + CLOSE_TIMEOUT + FAREWELL
    assert len(gateway.records) == 1
    assert gateway.records[0].outcome != "completed"


async def test_idle_gateway_ends_at_once(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(OK))
    async with running(farm, [config]) as gateway:
        gateway.signal(signal.SIGINT)
        began = trio.current_time()
    assert gateway.ended_at <= began + FAREWELL
