"""Connections that leave the native path: Hypercorn behind the guarded stream, and inference on such a connection."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio
from quiver.proxy.handover import HypercornControl
from quiver.proxy.listener import Listener
from quiver.proxy.network import KernelNetwork, Network, Wire
from quiver.proxy.registry import Call
from quiver.proxy.reply import Reply
from quiver.proxy.testing import ScriptedBackend, SimulatedNetwork
from quiver.schemas.config import Server
from trio.testing import MockClock

from .conftest import Build, Exchanges, records

BODY = b'{"model": "m", "messages": []}'
PAGE = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """One page, and one that never ends."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-page", scope["path"].encode())]})
    while scope["path"] == "/endless":
        await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
    await send({"type": "http.response.body", "body": b"the page", "more_body": False})


async def whole(call: Call, reply: Reply) -> None:
    await reply.complete(200, b'{"echo": "%b"}' % call.request_id.encode())


async def streamed(call: Call, reply: Reply) -> None:
    await reply.send_events(b"data: one\n\n")
    await reply.end_stream()


@asynccontextmanager
async def connected(
    handler: Exchanges, config: Server | None = None, network: Network | None = None
) -> AsyncIterator[Wire]:
    """A client of a gateway on the machine's own network, unless told otherwise."""
    config, network = config or Server(), network or KernelNetwork()
    listener = Listener(handler, HypercornControl(pages, handler, config), handler.metrics, config)
    acceptors = await network.listen("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.serve, acceptors, nursery)
        async with await network.connect(acceptors[0].address) as client:
            yield client
        nursery.cancel_scope.cancel()


async def receive_until(client: Wire, end: bytes) -> bytes:
    received = b""
    with trio.fail_after(10):
        while not received.endswith(end):
            data = await client.receive_some()
            assert data, f"closed after {received!r}"
            received += data
    return received


async def test_first_bytes_are_replayed(build: Build) -> None:
    async with connected(build([])) as client:
        await client.send_all(PAGE)
        received = await receive_until(client, b"the page\r\n0\r\n\r\n")
    assert b"x-page: /page" in received


@pytest.mark.parametrize(("script", "end"), [(whole, b'{"echo": "mine"}'), (streamed, b"data: one\n\n\r\n0\r\n\r\n")])
async def test_pages_and_chat_share_a_connection(build: Build, script: Any, end: bytes) -> None:
    handler = build([ScriptedBackend("b", ["m"], script)])
    chat = CHAT.replace(b"Host: x", b"Host: x\r\nX-Request-ID: mine")
    async with connected(handler) as client:
        for _ in range(2):
            await client.send_all(PAGE)
            await receive_until(client, b"the page\r\n0\r\n\r\n")
            await client.send_all(chat)
            received = await receive_until(client, end)
            assert b"x-gateway-server-id: b" in received
    assert len(records(handler)) == 2


async def test_departure_behind_hypercorn_cancels(build: Build) -> None:
    began, ended = trio.Event(), trio.Event()

    async def endless(call: Call, reply: Reply) -> None:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with connected(build([ScriptedBackend("b", ["m"], endless)])) as client:
        await client.send_all(PAGE)
        await receive_until(client, b"the page\r\n0\r\n\r\n")
        await client.send_all(CHAT)
        with trio.fail_after(10):
            await began.wait()
            await client.aclose()
            await ended.wait()


async def test_page_reader_that_stalls_is_dropped(build: Build, autojump_clock: MockClock) -> None:
    """Without the guard Hypercorn's shielded write would hold the connection, and shutdown with it, for ever."""
    handler, network = build([]), SimulatedNetwork(Random(1))
    async with connected(handler, Server(write_timeout=30), network) as client:
        await client.send_all(PAGE.replace(b"/page", b"/endless"))
        await trio.sleep(29)
        assert handler.metrics.connections == 1
        await trio.sleep(2)
        assert handler.metrics.connections == 0
