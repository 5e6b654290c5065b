"""Joined servers in the admin API, over real sockets: what is told of them, and what may be done to them."""

import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from quiver.admin.api.app import create_app
from quiver.proxy.gateway import Gateway
from quiver.proxy.seams import World
from quiver.proxy.server import Listening, run
from quiver.proxy.tunnel.joiner import Joiner, JoinRefused
from quiver.schemas.config import Config, Engine, Server
from quiver.schemas.join import PROTOCOL, Offer
from quiver.schemas.saved import Metadata

REPLY = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 23\r\n\r\n{"data": [{"id": "m"}]}'
Ask = Callable[..., Awaitable[tuple[int, Any]]]


async def model_server(stream: trio.SocketStream) -> None:
    """Lists its models whatever it is asked."""
    async with stream:
        while await stream.receive_some(65_536):
            await stream.send_all(REPLY)


@asynccontextmanager
async def joined() -> AsyncIterator[tuple[Ask, Joiner, list[JoinRefused]]]:
    """A gateway, and a joiner that has joined it as `laptop`."""
    sender, signals = trio.open_memory_channel[int](1)
    listening: list[Listening] = []
    refused: list[JoinRefused] = []
    up = trio.Event()

    def announce(told: Listening) -> None:
        listening.append(told)
        up.set()

    async def serve() -> None:
        config = Config(engine=Engine(bolt=False), server=Server(port=0))
        await run(config, control=control, sink=lambda batch: None, announce=announce, signals=signals)

    def control(gateway: Gateway) -> Any:
        return create_app(gateway)

    async def stay(joiner: Joiner) -> None:
        try:
            await joiner.run()
        except JoinRefused as error:
            refused.append(error)

    async def ask(method: str, path: str, body: object = None) -> tuple[int, Any]:
        content = b"" if body is None else json.dumps(body).encode()
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nConnection: close\r\n"
        stream = await trio.open_tcp_stream("127.0.0.1", listening[0].port)
        async with stream:
            await stream.send_all(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            received = b"".join([bytes(data) async for data in stream])
        reply, _, found = received.partition(b"\r\n\r\n")
        return int(reply.split(b" ")[1]), json.loads(found)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await up.wait()
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, model_server, [listener])
            offer = Offer(
                protocol=PROTOCOL,
                software="quiver test",
                name="laptop",
                resume=secrets.token_hex(16),
                url=f"http://127.0.0.1:{listener.socket.getsockname()[1]}",
                metadata=Metadata(owner="ada", tags=("gpu",)),
            )
            joiner = Joiner(listening[0].url, offer, World())
            nursery.start_soon(stay, joiner)
            while (await ask("GET", "/admin/servers"))[1]["total"] == 0:  # noqa: ASYNC110 - over HTTP
                await trio.sleep(0.02)
            yield ask, joiner, refused
            joiner.leave()
            await trio.sleep(0.05)
            sender.send_nowait(2)
            await trio.sleep(0.1)
            nursery.cancel_scope.cancel()


async def test_link_is_told() -> None:
    async with joined() as (ask, joiner, _):
        joiner.pause()
        await trio.sleep(0.1)
        _, server = await ask("GET", "/admin/servers/laptop")
        assert (server["origin"], server["metadata"]) == ("joined", {"owner": "ada", "tags": ["gpu"]})
        link = server["joined"]
        assert (link["link"], link["paused"], link["software"]) == ("up", True, "quiver test")
        assert link["peer"].startswith("127.0.0.1:")
        assert link["bytes_received"] > 0
        _, found = await ask("GET", "/admin/servers?origin=joined&owner=ada")
        assert [each["id"] for each in found["servers"]] == ["laptop"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/admin/servers/laptop", {"weight": 3}),
        ("PUT", "/admin/register/laptop", {"endpoint_url": "http://127.0.0.1:9"}),
    ],
)
async def test_owner_alone_changes_it(method: str, path: str, body: object) -> None:
    async with joined() as (ask, _, _):
        status, reply = await ask(method, path, body)
        assert (status, reply["error"]["code"]) == (409, "joined_server")


async def test_its_name_and_address_are_its_own() -> None:
    async with joined() as (ask, joiner, _):
        status, reply = await ask("POST", "/admin/register", {"endpoint_url": joiner.offer.url, "name": "laptop"})
        assert (status, reply["error"]["param"]) == (400, "name")
        status, reply = await ask("POST", "/admin/register", {"endpoint_url": joiner.offer.url, "name": "other"})
        assert status == 201, "the same address on the gateway's own machine is another server"


async def test_operator_pauses_and_takes_out() -> None:
    async with joined() as (ask, _, refused):
        assert (await ask("POST", "/admin/servers/laptop/pause"))[1]["mode"] == "paused"
        assert (await ask("POST", "/admin/servers/laptop/resume"))[1]["mode"] == "serving"
        assert (await ask("DELETE", "/admin/register/laptop"))[0] == 200
        while not refused:  # noqa: ASYNC110 - it is told over its link
            await trio.sleep(0.02)
        assert refused[0].code == "dismissed"


async def test_door_is_for_websockets() -> None:
    async with joined() as (ask, _, _):
        status, reply = await ask("GET", "/admin/join")
        assert (status, reply["error"]["code"]) == (426, "upgrade_required")
