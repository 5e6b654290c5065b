"""One connection over in-memory streams and virtual time: pipelining, departures, slow clients, refusals, handover."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
from quiver.proxy.exchange import ExchangeHandler
from quiver.proxy.network import CHUNK, Wire
from quiver.proxy.registry import Call
from quiver.proxy.reply import Reply
from quiver.proxy.session import READ_AHEAD, Session
from quiver.proxy.testing import ScriptedBackend, SimulatedNetwork
from quiver.schemas.config import Config, Limits, Server
from trio.testing import MockClock

from .conftest import Build, records
from .wires import RecordingControl, post, read_until_close, receive_reply


async def whole(call: Call, reply: Reply) -> None:
    await reply.complete(200, b'{"echo": %d}' % len(call.body))


async def streamed(call: Call, reply: Reply) -> None:
    await reply.send_events(b"data: one\n\n")
    await reply.send_events(b"data: [DONE]\n\n")
    await reply.end_stream()


BODY = b'{"model": "m", "messages": []}'
STREAM = b'{"model": "m", "messages": [], "stream": true}'


@asynccontextmanager
async def connected(
    handler: ExchangeHandler, config: Server | None = None, control: RecordingControl | None = None
) -> AsyncIterator[tuple[Wire, Session]]:
    """A client's end of a connection that a session serves; the session must have ended by the end of the block."""
    client, server = await pair()
    session = Session(server, handler, control or RecordingControl(), config or Server())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expire_when_due, session)
        async with trio.open_nursery() as sessions:
            sessions.start_soon(session.run)
            yield client, session
            client.close()
            sessions.cancel_scope.deadline = trio.current_time() + 1000
        assert not sessions.cancel_scope.cancelled_caught, f"{session} goes on without its client"
        nursery.cancel_scope.cancel()


async def pair() -> tuple[Wire, Wire]:
    """Both ends of a connection: the client's and the session's."""
    network = SimulatedNetwork(Random(1))
    (acceptor,) = await network.listen("127.0.0.1", 0)
    client = await network.connect(acceptor.address)
    (server,) = await acceptor.accept()
    return client, server


async def expire_when_due(session: Session) -> None:
    """What a session's owner does."""
    while True:
        await trio.sleep(0.5)
        if trio.current_time() >= session.due:
            session.expire()


async def test_connection_carries_many(build: Build, autojump_clock: MockClock) -> None:
    async with connected(build([ScriptedBackend("b", ["m"], whole)])) as (client, _):
        for _ in range(3):
            await client.send_all(post(BODY))
            assert await receive_reply(client) == b'{"echo": 30}'


async def test_pipelined_requests_answer_in_order(build: Build, autojump_clock: MockClock) -> None:
    bodies = [BODY + b" " * number for number in range(5)]
    async with connected(build([ScriptedBackend("b", ["m"], whole)])) as (client, _):
        await client.send_all(b"".join(map(post, bodies)) + post(BODY, b"Connection: close"))
        received = await read_until_close(client)
    assert [received.index(b'{"echo": %d}' % (30 + number)) for number in range(1, 5)] == sorted(
        received.index(b'{"echo": %d}' % (30 + number)) for number in range(1, 5)
    )
    assert received.count(b"HTTP/1.1 200") == 6


async def test_bytes_may_come_one_by_one(build: Build, autojump_clock: MockClock) -> None:
    async with connected(build([ScriptedBackend("b", ["m"], whole)])) as (client, _):
        for byte in post(BODY):
            await client.send_all(bytes([byte]))
        assert await receive_reply(client) == b'{"echo": 30}'


async def test_stream_is_chunked(build: Build, autojump_clock: MockClock) -> None:
    async with connected(build([ScriptedBackend("b", ["m"], streamed)])) as (client, _):
        await client.send_all(post(STREAM, b"Connection: close"))
        received = await read_until_close(client)
    assert b"transfer-encoding: chunked" in received.lower()
    assert received.endswith(b"b\r\ndata: one\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


async def test_json_behind_blanks_is_chunked(build: Build, autojump_clock: MockClock) -> None:
    """Its length is not known when the first blank goes out; the connection lives on all the same."""

    async def slow(call: Call, reply: Reply) -> None:
        await trio.sleep(12)
        await whole(call, reply)

    handler = build([ScriptedBackend("b", ["m"], slow)], config=Config(limits=Limits(json_heartbeat=5)))
    async with connected(handler) as (client, _):
        for _ in range(2):
            await client.send_all(post(BODY))
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                received += await client.receive_some()
            head, _, body = received.partition(b"\r\n\r\n")
            assert b"content-length" not in head.lower()
            assert b"content-type: application/json" in head.lower()
            assert body == b'1\r\n \r\n1\r\n \r\nc\r\n{"echo": 30}\r\n0\r\n\r\n'


async def test_http10_stream_ends_with_connection(build: Build, autojump_clock: MockClock) -> None:
    request = post(STREAM).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    async with connected(build([ScriptedBackend("b", ["m"], streamed)])) as (client, _):
        await client.send_all(request)
        received = await read_until_close(client)
    assert b"chunked" not in received.lower()
    assert received.endswith(b"\r\n\r\ndata: one\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize("body", [BODY, STREAM])
async def test_departure_cancels_work(build: Build, autojump_clock: MockClock, body: bytes) -> None:
    began, ended = trio.Event(), trio.Event()

    async def endless(call: Call, reply: Reply) -> None:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    handler = build([ScriptedBackend("b", ["m"], endless)])
    async with connected(handler) as (client, _):
        await client.send_all(post(body))
        await began.wait()
        before = trio.current_time()
        await client.aclose()
        await ended.wait()
        assert trio.current_time() - before < 0.1
    assert handler.in_flight == 0
    assert len(records(handler)) == 1


async def test_next_request_hides_no_departure(build: Build, autojump_clock: MockClock) -> None:
    ended = trio.Event()

    async def endless(call: Call, reply: Reply) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with connected(build([ScriptedBackend("b", ["m"], endless)])) as (client, _):
        await client.send_all(post(BODY) + post(BODY))
        await client.aclose()
        await ended.wait()


async def test_long_replies_lose_no_request(build: Build, autojump_clock: MockClock) -> None:
    """While a reply takes long its guard reads in the session's place, and must give way before the session reads on."""

    async def slow(call: Call, reply: Reply) -> None:
        await trio.sleep(1)
        await whole(call, reply)

    handler = build([ScriptedBackend("b", ["m"], slow)])
    async with connected(handler) as (client, _), trio.open_nursery() as nursery:
        nursery.start_soon(send_raggedly, client, post(BODY) * 6)
        for _ in range(6):
            assert await receive_reply(client) == b'{"echo": 30}'
    assert [record.outcome for record in records(handler)] == ["completed"] * 6


async def send_raggedly(client: Wire, data: bytes) -> None:
    """In pieces that end anywhere, now and then after a while."""
    random = Random(5)
    while data:
        size = random.randint(1, 200)
        await client.send_all(data[:size])
        data = data[size:]
        await trio.sleep(random.choice((0, 0.3, 1)))


async def test_reading_ahead_is_bounded(build: Build, autojump_clock: MockClock) -> None:
    """A client may send its next requests early, but not fill the memory with them."""

    async def slow(call: Call, reply: Reply) -> None:
        await trio.sleep(100)
        await whole(call, reply)

    sent = 0
    async with connected(build([ScriptedBackend("b", ["m"], slow)])) as (client, _):
        await client.send_all(post(BODY))
        with trio.move_on_after(50):
            while True:
                await client.send_all(bytes(10_000))
                sent += 10_000
        assert READ_AHEAD <= sent <= READ_AHEAD + 2 * CHUNK + 20_000
        assert await receive_reply(client) == b'{"echo": 30}'


@pytest.mark.parametrize("limit", ["deadline", "shutdown"])
async def test_nothing_follows_half_a_message(build: Build, autojump_clock: MockClock, limit: str) -> None:
    """A write that is broken off leaves part of a chunk behind; an error event inside that would be nonsense."""

    async def flood(call: Call, reply: Reply) -> None:
        while True:
            await reply.send_events(b"data: %b\n\n" % (b"x" * 10_000))

    handler = build([ScriptedBackend("b", ["m"], flood)], config=Config(limits=Limits(request=10)))
    async with connected(handler, Server(write_timeout=60)) as (client, _):
        await client.send_all(post(STREAM))
        await trio.sleep(5)
        if limit == "shutdown":
            handler.stop_all()
        await trio.sleep(10)
        received = await read_until_close(client)
    body = received.partition(b"\r\n\r\n")[2]
    whole_chunk = b"%x\r\ndata: %b\n\n\r\n" % (10_008, b"x" * 10_000)
    rest = body
    while rest.startswith(whole_chunk):
        rest = rest.removeprefix(whole_chunk)
    assert whole_chunk.startswith(rest), "what is left is the beginning of one chunk"
    assert handler.in_flight == 0


async def test_client_that_never_reads_is_dropped(build: Build, autojump_clock: MockClock) -> None:
    writes: list[float] = []

    async def flood(call: Call, reply: Reply) -> None:
        while True:
            await reply.send_events(b"data: x\n\n")
            writes.append(trio.current_time())

    client, server = await pair()
    handler = build([ScriptedBackend("b", ["m"], flood)])
    session = Session(server, handler, RecordingControl(), Server(write_timeout=30))
    await client.send_all(post(STREAM))
    with trio.fail_after(31):
        await session.run()
    assert trio.current_time() - writes[-1] == pytest.approx(30)
    assert handler.in_flight == 0
    assert [record.outcome for record in records(handler)] == ["client_gone"]


@pytest.mark.parametrize(
    ("sent", "status", "seconds"),
    [
        (b"GET /v1/models HTTP/1.1\r\nHo", b"408", 10),
        (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", b"408", 60),
        (b"", b"", 75),
    ],
)
async def test_slow_clients_are_cut(
    build: Build, autojump_clock: MockClock, sent: bytes, status: bytes, seconds: float
) -> None:
    async with connected(build([])) as (client, _):
        if sent:
            await client.send_all(sent)
        received = await read_until_close(client)
    assert received[9:12] == status
    assert seconds <= trio.current_time() <= seconds + 6


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (
            b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            b"malformed_request",
        ),
        (b"GET /v1/models HTTP/1.1\nHost: x\n\n", 400, b"malformed_request"),
        (b"GET /v1/models HTTP/1.1\r\n\r\n", 400, b"malformed_request"),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 400, b"malformed_request"),
        (b"nonsense\r\n\r\n", 400, b"malformed_request"),
        (b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", 413, b"body_too_large"),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 40_000 + b"\r\n\r\n", 431, b"headers_too_large"),
        (b"GET /v1/models HTTP/3.0\r\nHost: x\r\n\r\n", 505, b"version_not_supported"),
    ],
)
async def test_bad_framing_is_refused(
    build: Build, autojump_clock: MockClock, sent: bytes, status: int, code: bytes
) -> None:
    handler = build([])
    async with connected(handler) as (client, _):
        await client.send_all(sent + b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        received = await read_until_close(client)
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert received.count(b"HTTP/1.1 ") == 1, "bytes after an ambiguous message were answered"
    assert b'"code":"%s"' % code in received
    assert b"connection: close" in received.lower()


async def test_continue_is_sent_when_asked(build: Build, autojump_clock: MockClock) -> None:
    head, body = post(BODY, b"Expect: 100-continue").split(b"\r\n\r\n")
    async with connected(build([ScriptedBackend("b", ["m"], whole)])) as (client, _):
        await client.send_all(head + b"\r\n\r\n")
        assert await client.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send_all(body)
        assert await receive_reply(client) == b'{"echo": 30}'


@pytest.mark.parametrize("before", [b"", post(BODY)])
async def test_other_paths_are_handed_over(build: Build, autojump_clock: MockClock, before: bytes) -> None:
    control = RecordingControl()
    handover = b"POST /admin/register HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd"
    async with connected(build([ScriptedBackend("b", ["m"], whole)]), control=control) as (client, _):
        await client.send_all(before + handover)
        received = await read_until_close(client)
    assert control.prefixes == [handover]
    assert received.endswith(b"handed over")


async def test_wind_down_closes_idle_and_finishes_busy(build: Build, autojump_clock: MockClock) -> None:
    async def slow(call: Call, reply: Reply) -> None:
        await trio.sleep(5)
        await whole(call, reply)

    handler = build([ScriptedBackend("b", ["m"], slow)])
    async with connected(handler) as (idle, idle_session), connected(handler) as (busy, busy_session):
        await busy.send_all(post(BODY))
        await trio.sleep(1)
        idle_session.wind_down()
        busy_session.wind_down()
        assert await read_until_close(idle) == b""
        received = await read_until_close(busy)
    assert b"connection: close" in received.lower()
    assert received.endswith(b'{"echo": 30}')
