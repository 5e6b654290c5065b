"""Keys, budgets, proxies and pages of other origins on the inference paths, from the request's bytes to the reply's."""

from collections.abc import Awaitable
from random import Random
from typing import Any, Protocol

import msgspec
import pytest
import trio
from quiver.proxy.access.client import Client
from quiver.proxy.access.cors import CrossOrigin
from quiver.proxy.access.forwarding import Proxies
from quiver.proxy.listener import Listener
from quiver.proxy.network import Wire
from quiver.proxy.registry import Call
from quiver.proxy.reply import Reply
from quiver.proxy.testing import ScriptedBackend, SimulatedNetwork
from quiver.schemas.config import Auth, Config, Cors, Server
from quiver.schemas.errors import UPSTREAM_TRUNCATED, ApiError
from quiver.schemas.openai import Usage
from quiver.schemas.saved import SavedKey
from trio.testing import MockClock

from .conftest import Build, Exchanges, records
from .wires import RecordingControl, post, read_until_close

KEY = "a-client-key-of-its-own"
BEARER = b"Authorization: Bearer " + KEY.encode()
ORIGIN = b"Origin: https://chat.lab"
LISTED = Cors(origins=("https://chat.lab",))
BODY = b'{"model": "m", "messages": [], "max_tokens": 50}'


SERVER = Server()


class Connect(Protocol):
    """A new client of a handler, from 10.9.0.1."""

    def __call__(self, handler: Exchanges, config: Server = SERVER) -> Awaitable[Wire]: ...


@pytest.fixture
def connect(nursery: trio.Nursery) -> Connect:
    network = SimulatedNetwork(Random(1))

    async def connect(handler: Exchanges, config: Server = SERVER) -> Wire:
        [acceptor] = await network.listen("127.0.0.1", 0)
        listener = Listener(handler, RecordingControl(), handler.metrics, config)
        await nursery.start(listener.serve, [acceptor], nursery)
        return await network.connect(acceptor.address, "10.9.0.1")

    return connect


def add_key(handler: Exchanges, **fields: Any) -> Client:
    key = SavedKey(
        id="key_1", name="alice", digest=handler.keys.digest_of(KEY), hint="", created=0, changed=0, **fields
    )
    return handler.keys.put(key, 0)


def using(tokens: int) -> ScriptedBackend:
    async def script(call: Call, reply: Reply) -> None:
        reply.usage = Usage(tokens - 1, 1, tokens)
        await reply.complete(200, b"{}")

    return ScriptedBackend("b", ["m"], script)


def fields_of(received: bytes) -> dict[bytes, bytes]:
    head = received.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return dict(line.split(b": ", 1) for line in head)


async def test_budget_is_told_and_kept(build: Build, connect: Connect) -> None:
    handler = build([using(30)])
    client = add_key(handler, budget_tokens=100, budget_period="day")
    for left in (b"38", b"8"):
        wire = await connect(handler)
        await wire.send_all(post(BODY, BEARER, b"Connection: close"))
        received = await read_until_close(wire)
        assert received.startswith(b"HTTP/1.1 200 ")
        told = fields_of(received)
        assert told[b"x-ratelimit-limit-budget"] == b"100"
        assert told[b"x-ratelimit-remaining-budget"] == left
        assert b"x-ratelimit-reset-budget" in told
    wire = await connect(handler)
    await wire.send_all(post(BODY, BEARER, b"Connection: close"))
    received = await read_until_close(wire)
    assert received.startswith(b"HTTP/1.1 429 ")
    assert b'"budget_exceeded"' in received
    assert int(fields_of(received)[b"retry-after"]) > 0
    assert client.budget is not None
    assert (client.budget.spent, client.budget.reserved) == (60, 0)
    assert [record.charged for record in records(handler)] == [30, 30, 0]


@pytest.mark.parametrize("end", ["error", "departure"])
async def test_budget_is_settled_however_a_request_ends(
    build: Build, connect: Connect, autojump_clock: MockClock, end: str
) -> None:
    async def script(call: Call, reply: Reply) -> None:
        if end == "error":
            raise ApiError(UPSTREAM_TRUNCATED, "planted")
        await trio.sleep_forever()

    handler = build([ScriptedBackend("b", ["m"], script)])
    client = add_key(handler, budget_tokens=100, budget_period="day")
    assert client.budget is not None
    wire = await connect(handler)
    await wire.send_all(post(BODY, BEARER, b"Connection: close"))
    if end == "error":
        await read_until_close(wire)
    else:
        await trio.sleep(1)
        assert client.budget.reserved > 0
        await wire.aclose()
        await trio.sleep(5)
    assert client.budget.reserved == 0
    assert client.budget.spent == (0 if end == "error" else len(BODY) // 4)
    assert [record.charged for record in records(handler)] == [client.budget.spent]


async def test_revoked_key_ends_no_request(build: Build, connect: Connect, autojump_clock: MockClock) -> None:
    async def slow(call: Call, reply: Reply) -> None:
        await trio.sleep(10)
        await reply.complete(200, b"{}")

    handler = build([ScriptedBackend("b", ["m"], slow)])
    add_key(handler)
    wire = await connect(handler)
    await wire.send_all(post(BODY, BEARER, b"Connection: close"))
    await trio.sleep(1)
    [issued] = handler.keys
    handler.keys.put(msgspec.structs.replace(issued.key, revoked=1.0), trio.current_time())
    assert (await read_until_close(wire)).startswith(b"HTTP/1.1 200 ")
    again = await connect(handler)
    await again.send_all(post(BODY, BEARER, b"Connection: close"))
    assert b'"revoked_api_key"' in await read_until_close(again)


async def test_proxys_client_is_counted_and_recorded(build: Build, connect: Connect) -> None:
    config = Config(auth=Auth(keys=("some-client-key",)))
    handler = build([using(1)], config=config)
    handler.proxies = Proxies(["10.9.0.0/16", "198.51.100.2"])
    wire = await connect(handler)
    await wire.send_all(post(BODY, b"X-Forwarded-For: 198.51.100.1, 198.51.100.2", b"Connection: close"))
    await read_until_close(wire)
    assert records(handler)[0].client == "198.51.100.1"
    handler.proxies = Proxies(["10.99.0.0/16"])
    wire = await connect(handler)
    await wire.send_all(post(BODY, b"X-Forwarded-For: 198.51.100.1", b"Connection: close"))
    await read_until_close(wire)
    assert records(handler)[1].client != "198.51.100.1"


PREFLIGHT = b"\r\n".join(
    [
        b"OPTIONS /v1/chat/completions HTTP/1.1",
        b"Host: x",
        ORIGIN,
        b"Access-Control-Request-Method: POST",
        b"Access-Control-Request-Headers: authorization,content-type",
        b"Connection: close",
        b"\r\n",
    ]
)


async def test_preflight_needs_no_key(build: Build, connect: Connect) -> None:
    handler = build([using(1)], keys=["some-client-key"])
    handler.cors = CrossOrigin(LISTED)
    wire = await connect(handler)
    await wire.send_all(PREFLIGHT)
    received = await read_until_close(wire)
    assert received.startswith(b"HTTP/1.1 200 ")
    told = fields_of(received)
    assert told[b"access-control-allow-origin"] == b"https://chat.lab"
    assert told[b"access-control-allow-headers"] == b"authorization,content-type"
    assert told[b"content-length"] == b"0"
    assert (records(handler)[0].endpoint, records(handler)[0].outcome) == ("preflight", "completed")


async def test_without_listed_origins_nothing_is_said(build: Build, connect: Connect) -> None:
    handler = build([using(1)])
    for sent, status in ((PREFLIGHT, b"405"), (post(BODY, ORIGIN, b"Connection: close"), b"200")):
        wire = await connect(handler)
        await wire.send_all(sent)
        received = await read_until_close(wire)
        assert received[9:12] == status
        assert b"access-control" not in received
        assert b"vary" not in received


async def streamed(call: Call, reply: Reply) -> None:
    await reply.send_events(b"data: one\n\n")
    await reply.end_stream()


STREAM = BODY.replace(b'"messages"', b'"stream": true, "messages"')
REPLIES: list[tuple[bytes, bytes]] = [
    (post(BODY, BEARER, ORIGIN, b"Connection: close"), b"200"),
    (post(STREAM, BEARER, ORIGIN, b"Connection: close"), b"200"),
    (post(BODY, ORIGIN, b"Connection: close"), b"401"),
    (post(b"{", BEARER, ORIGIN, b"Connection: close"), b"400"),
    (post(BODY, BEARER, ORIGIN, b"Connection: close").replace(b"/v1/chat", b"/v1/cat"), b"404"),
    (post(b"x" * 2000, BEARER, ORIGIN), b"413"),
]


@pytest.mark.parametrize(("sent", "status"), REPLIES)
async def test_every_reply_can_be_read_by_listed_pages(
    build: Build, connect: Connect, sent: bytes, status: bytes
) -> None:
    config = Config(server=Server(max_body=1024))
    handler = build([ScriptedBackend("b", ["m"], streamed)], config=config)
    add_key(handler)
    handler.cors = CrossOrigin(LISTED)
    wire = await connect(handler, config.server)
    await wire.send_all(sent)
    received = await read_until_close(wire)
    assert received[9:12] == status
    told = fields_of(received)
    assert told[b"access-control-allow-origin"] == b"https://chat.lab"
    assert told[b"vary"] == b"Origin"
    other = await connect(handler, config.server)
    await other.send_all(sent.replace(b"chat.lab", b"evil.lab"))
    told = fields_of(await read_until_close(other))
    assert b"access-control-allow-origin" not in told
    assert told[b"vary"] == b"Origin"
