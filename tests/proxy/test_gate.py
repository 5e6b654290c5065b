"""Requests on a connection that Hypercorn serves: the rules, limits and clocks of the inference paths hold there too."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio
from quiver.proxy.handover import HypercornControl
from quiver.proxy.listener import Listener
from quiver.proxy.network import Address, Wire
from quiver.proxy.session import READ_AHEAD
from quiver.proxy.testing import SimulatedNetwork
from quiver.schemas.config import Server
from trio.testing import MockClock

from .conftest import Build, records
from .gateways import code_in
from .wires import read_until_close

LIMITS = Server(max_head=2048, max_body=10_000, head_timeout=10, body_timeout=60, keep_alive=75)
PAGE = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: x\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what it was sent; `/early` before it has read that, `/slow` late."""
    if scope["path"] == "/slow":
        await trio.sleep(30)
    body, more = b"", scope["path"] != "/early"
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    body = b"<%b %b>" % (scope["path"].encode(), body)
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


@asynccontextmanager
async def connected(build: Build, config: Server = LIMITS) -> AsyncIterator[Wire]:
    handler, network = build([]), SimulatedNetwork(Random(1))
    listener = Listener(handler, HypercornControl(application, handler, config), handler.metrics, config)
    acceptors = await network.listen("127.0.0.1", 8080)
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.serve, acceptors, nursery)
        async with await network.connect(Address("127.0.0.1", 8080), "10.9.0.1") as client:
            yield client
        nursery.cancel_scope.cancel()


async def answer_to(client: Wire, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        data = await client.receive_some()
        assert data, f"closed after {received!r}"
        received += data
    return received


SENT = [
    (PAGE, b"</page >"),
    (POST + b"Content-Length: 4\r\n\r\nbody", b"</echo body>"),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\nTrailer: x\r\n\r\n", b"</echo body>"),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"</echo >"),
    (POST + b"Content-Length: 0\r\n\r\n", b"</echo >"),
    (POST + b"Content-Length: 9000\r\n\r\n" + b"x" * 9000, b"x>"),
]


@pytest.mark.parametrize("pieces", [1, 7, None], ids=["bytes", "pieces", "whole"])
async def test_requests_get_through_however_they_come(
    build: Build, autojump_clock: MockClock, pieces: int | None
) -> None:
    async with connected(build) as client:
        for sent, end in SENT:
            for start in range(0, len(sent), pieces or len(sent)):
                await client.send_all(sent[start : start + (pieces or len(sent))])
            await answer_to(client, end)


async def test_requests_sent_ahead_are_answered_in_order(build: Build, autojump_clock: MockClock) -> None:
    async with connected(build) as client:
        await client.send_all(PAGE.replace(b"/page", b"/slow") + b"".join(sent for sent, _ in SENT) + PAGE)
        received = b""
        while received.count(b"HTTP/1.1 200") < len(SENT) + 2:
            received += await client.receive_some()
        found = [received.index(end) for end in (b"</slow >", b"</page >", b"</echo body>", b"</echo >")]
        assert found == sorted(found)


BROKEN = [
    (PAGE.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 3000 + b"\r\n\r\n"), 431, "headers_too_large"),
    (b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "target_too_long"),
    (POST + b"Content-Length: 10001\r\n\r\n", 413, "body_too_large"),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n2711\r\n" + b"x" * 10_001, 413, "body_too_large"),
    (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "malformed_request"),
    (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "malformed_request"),
    (PAGE.replace(b"Host: x", b"Host: x\r\nContent-Length: 1") + b"x", 400, "malformed_request"),
    (b"GET /page HTTP/1.1\r\n\r\n", 400, "malformed_request"),
]


@pytest.mark.parametrize(("sent", "status", "code"), BROKEN)
@pytest.mark.parametrize("first", [False, True], ids=["later", "first"])
async def test_rules_hold_behind_the_handover(
    build: Build, autojump_clock: MockClock, sent: bytes, status: int, code: str, first: bool
) -> None:
    async with connected(build) as client:
        if not first:
            await client.send_all(PAGE)
            await answer_to(client, b"</page >")
        await client.send_all(sent)
        received = await read_until_close(client)
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in received
    assert code_in(received) == code
    assert b"server:" not in received.lower()


async def test_head_that_drips_is_cut_off(build: Build, autojump_clock: MockClock) -> None:
    async with connected(build) as client:
        await client.send_all(PAGE)
        await answer_to(client, b"</page >")
        await trio.sleep(60)  # silence ahead of a head is none of its time
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, client, PAGE)
            received = await read_until_close(client)
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began == pytest.approx(10, abs=6)
    assert code_in(received) == "request_timeout"


async def test_body_that_drips_is_cut_off(build: Build, autojump_clock: MockClock) -> None:
    async with connected(build) as client:
        began = trio.current_time()
        await client.send_all(POST + b"Content-Length: 1000\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, client, b"x" * 1000)
            received = await read_until_close(client)
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began == pytest.approx(60, abs=6)
    assert code_in(received) == "request_timeout"


async def drip(client: Wire, data: bytes) -> None:
    for byte in data:
        await client.send_all(bytes([byte]))
        await trio.sleep(2)


async def test_refusal_does_not_follow_an_answer(build: Build, autojump_clock: MockClock) -> None:
    """An application may answer before it has read the body; what is wrong with that is then nobody's business."""
    async with connected(build) as client:
        await client.send_all(POST.replace(b"/echo", b"/early") + b"Content-Length: 1000\r\n\r\nx")
        received = await read_until_close(client)
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.endswith(b"</early >")


async def test_silent_connection_is_closed(build: Build, autojump_clock: MockClock) -> None:
    async with connected(build) as client:
        await client.send_all(PAGE)
        await answer_to(client, b"</page >")
        began = trio.current_time()
        assert await read_until_close(client) == b""
        assert trio.current_time() - began == pytest.approx(75, abs=1)


async def test_waiting_for_permission_gets_it(build: Build, autojump_clock: MockClock) -> None:
    async with connected(build) as client:
        await client.send_all(POST + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        received = await client.receive_some()
        assert received.startswith(b"HTTP/1.1 100 ")
        await client.send_all(b"body")
        assert (await answer_to(client, b"</echo body>")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("protocol", [b"foo", b"TLS/1.0"])
async def test_other_upgrades_are_no_way_around(build: Build, autojump_clock: MockClock, protocol: bytes) -> None:
    async with connected(build) as client:
        upgrade = b"Host: x\r\nConnection: upgrade\r\nUpgrade: " + protocol
        await client.send_all(PAGE.replace(b"Host: x", upgrade))
        await answer_to(client, b"</page >")
        await client.send_all(POST + b"Content-Length: 10001\r\n\r\n")
        assert code_in(await read_until_close(client)) == "body_too_large"


async def test_refusals_are_recorded(build: Build, autojump_clock: MockClock) -> None:
    handler = build([])
    network = SimulatedNetwork(Random(1))
    listener = Listener(handler, HypercornControl(application, handler, LIMITS), handler.metrics, LIMITS)
    acceptors = await network.listen("127.0.0.1", 8080)
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.serve, acceptors, nursery)
        client = await network.connect(Address("127.0.0.1", 8080), "10.9.0.1")
        await client.send_all(POST + b"Content-Length: 10001\r\n\r\n")
        await read_until_close(client)
        nursery.cancel_scope.cancel()
    [record] = records(handler)
    assert (record.client, record.status, record.error) == ("10.9.0.1", 413, "body_too_large")


async def test_goes_on_after_it_had_to_hold_a_client_back(build: Build, autojump_clock: MockClock) -> None:
    """A client that sends its next request ahead, longer than what is read ahead."""
    body = b"x" * (2 * READ_AHEAD)
    following = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with connected(build, Server(keep_alive=75)) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + following)
        with trio.fail_after(60):
            received = b""
            while not received.endswith(b"x>"):
                data = await client.receive_some()
                assert data, f"closed after {received[-200:]!r}"
                received += data
        assert received.count(b"HTTP/1.1 200") == 2


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# No settings; and the request `GET /slow`, with the index of HPACK's static table and plain text.
H2_SLOW = b"\x82\x86\x04\x05/slow\x01\x01x"
H2 = PREFACE + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
UPGRADE = PAGE.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")


@pytest.mark.parametrize("sent", [PREFACE, H2, UPGRADE], ids=["preface", "settings", "no websocket"])
async def test_silence_after_another_protocol_ends(build: Build, autojump_clock: MockClock, sent: bytes) -> None:
    async with connected(build, Server(keep_alive=7)) as client:
        await client.send_all(sent)
        with trio.fail_after(10):
            while await client.receive_some():
                pass


async def test_silence_while_something_is_answered_does_not(build: Build, autojump_clock: MockClock) -> None:
    async with connected(build, Server(keep_alive=7)) as client:
        await client.send_all(H2 + bytes((0, 0, len(H2_SLOW), 1, 5, 0, 0, 0, 1)) + H2_SLOW)
        received, began = b"", trio.current_time()
        while b"</slow >" not in received:
            data = await client.receive_some()
            assert data, received
            received += data
        answered = trio.current_time()
        while await client.receive_some():
            pass
        assert answered - began >= 30
        assert 6 <= trio.current_time() - answered <= 10
