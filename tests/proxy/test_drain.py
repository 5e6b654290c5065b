"""How a gateway gives way when it is told to stop: what is still accepted, what ends and how, and when."""

import signal
from collections.abc import Callable

import msgspec
import pytest
import structlog
import trio
from quiver.proxy.seams import offload_runner
from quiver.proxy.shutdown import CLOSE_TIMEOUT, HURRY
from quiver.proxy.telemetry.accounting import Ledger
from quiver.schemas.config import Admission, Drain
from trio.testing import MockClock

from .gateways import (
    BODY,
    FAREWELL,
    LAST,
    OK,
    READY,
    STREAM,
    WORD,
    answering,
    chats,
    code_in,
    keep,
    running,
    streaming,
    unchunked,
)
from .servers import Farm, Said, events
from .wires import post, read_until_close, receive_reply


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


@pytest.mark.parametrize(("number", "answered"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
async def test_control_plane_ends_what_it_began(
    farm: Farm, autojump_clock: MockClock, number: int, answered: bool
) -> None:
    """As long as others get, too: 30 s, but 2 s when a person waits."""
    async with running(farm, []) as gateway:
        client = await gateway.connect()
        await client.send_all(READY.replace(b"/readyz", b"/slow"))
        await trio.sleep(1)
        gateway.signal(number)
        received = await read_until_close(client)
        assert (b"draining" in received) is answered
        began = trio.current_time()
    assert gateway.ended_at - began <= FAREWELL + 3


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
    assert chats(server) == 1
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


async def test_total_bounds_the_drain(farm: Farm, autojump_clock: MockClock) -> None:
    config, _ = await farm.configure(answering(streaming(10_000)))
    received: list[tuple[float, bytes]] = []
    with structlog.testing.capture_logs() as lines:
        async with (
            running(farm, [config], drain=Drain(timeout=600, total=20)) as gateway,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(keep, received, gateway, STREAM)
            await trio.sleep(2)
            gateway.signal(signal.SIGTERM)
            began = trio.current_time()
    assert began + 15 <= gateway.ended_at <= began + 20
    assert gateway.code == 143
    assert b'"code":"shutting_down"' in unchunked(received[0][1]), "the client is told while there is time"
    (stopped,) = (line for line in lines if line["event"].startswith("request stopped"))
    assert stopped["request_id"] == gateway.records[0].request_id
    assert lines[-1]["event"] == "stopped"
    assert lines[-1]["reason"] == "SIGTERM"
    assert 15 <= lines[-1]["seconds"] <= 20


@pytest.mark.parametrize("signals", [1, 2])
async def test_what_does_not_stop_is_stopped_by_force(farm: Farm, autojump_clock: MockClock, signals: int) -> None:
    config, _ = await farm.configure(answering(OK))

    async def stuck(fn: Callable[..., object], *args: object) -> object:
        await trio.sleep_forever()

    async with running(farm, [config], drain=Drain(total=20)) as gateway:
        offload_runner.set(stuck)
        await gateway.ask()
        for _ in range(signals):
            gateway.signal(signal.SIGTERM)
        began = trio.current_time()
    assert gateway.code == 1
    assert gateway.ended_at == pytest.approx(began + (20 if signals == 1 else CLOSE_TIMEOUT + HURRY), abs=0.1)


async def test_failure_on_the_way_is_told(
    farm: Farm, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = await farm.configure(answering(OK))

    def broken(self: Ledger) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(Ledger, "close", broken)
    with structlog.testing.capture_logs() as lines:
        async with running(farm, [config]) as gateway:
            gateway.signal(signal.SIGINT)
    assert gateway.code == 1
    assert [line["log_level"] for line in lines if line["event"] == "a part of the gateway failed to stop"] == ["error"]


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
