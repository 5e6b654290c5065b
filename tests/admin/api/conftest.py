"""A gateway that runs, on a real socket, and can be asked."""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from quiver.admin.api.app import create_app
from quiver.proxy import server
from quiver.proxy.gateway import Gateway
from quiver.proxy.server import Listening
from quiver.schemas.config import Config, Engine, Server


class Asked:
    """A gateway that can be asked. Bodies go out and come back as JSON."""

    def __init__(self, gateway: Gateway, url: str) -> None:
        self.gateway = gateway
        self.netloc = urlsplit(url).netloc

    async def __call__(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        return await trio.to_thread.run_sync(self._ask, method, path, body, headers)

    def _ask(self, method: str, path: str, body: object, headers: dict[str, str]) -> tuple[int, Any]:
        connection = HTTPConnection(self.netloc, timeout=10)
        try:
            told = {name.replace("_", "-"): value for name, value in headers.items()}
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json", **told})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    async def ids(self) -> list[str]:
        _, listed = await self("GET", "/admin/servers")
        return [server["id"] for server in listed["servers"]]


class NoSignals:
    """Nobody ends the gateway but the test's end."""

    def __aiter__(self) -> "NoSignals":
        return self

    async def __anext__(self) -> int:
        await trio.sleep_forever()
        raise StopAsyncIteration


Run = Callable[..., Awaitable[Asked]]


@pytest.fixture
async def run_gateway(nursery: trio.Nursery) -> Run:
    """Run a gateway on a free port until the test is over."""

    async def run(**sections: Any) -> Asked:
        told, listening = trio.open_memory_channel[Listening](1)
        gateways: list[Gateway] = []

        def control(gateway: Gateway) -> Any:
            gateways.append(gateway)
            return create_app(gateway)

        config = Config(server=Server(port=0), engine=Engine(bolt=False), **sections)
        nursery.start_soon(
            partial(
                server.run,
                config,
                control=control,
                sink=lambda records: None,
                announce=told.send_nowait,
                signals=NoSignals(),
            )
        )
        url = (await listening.receive()).url
        return Asked(gateways[0], url)

    return run
