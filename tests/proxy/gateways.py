"""A whole gateway in memory and virtual time, with servers behind it and clients before it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import msgspec
import pytest
import trio
from hypercorn.typing import ASGIFramework
from quiver.proxy.gateway import Gateway
from quiver.proxy.local.loading import Loader
from quiver.proxy.network import Address, Wire
from quiver.proxy.seams import World, offload_runner
from quiver.proxy.server import Listening, run
from quiver.proxy.store.store import Store
from quiver.proxy.telemetry.record import Record
from quiver.proxy.telemetry.tracing import Tracer
from quiver.proxy.testing import SimulatedNetwork
from quiver.schemas.config import Config, Drain, Engine, RemoteBackend, Server
from quiver.schemas.config import Store as StoreConfig

from .conftest import at_once
from .servers import Answer, Asked, Farm, Said, events, response
from .servers import Server as AnsweringServer
from .wires import post, read_until_close

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

    def __init__(
        self,
        network: SimulatedNetwork,
        *,
        on_loopback: bool = True,
        loader: Loader | None = None,
        tracer: Tracer | None = None,
        store: Store | None = None,
    ) -> None:
        self.network, self._on_loopback, self._loader, self._tracer = network, on_loopback, loader, tracer
        self._store = store
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
            loader=self._loader,
            store=self._store,
            tracer=self._tracer,
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
            if scope["path"] == "/slow":
                await trio.sleep(10)
            status = 200 if gateway.state == "ready" else 503
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": gateway.state.encode(), "more_body": False})

        return app


@asynccontextmanager
async def running(
    farm: Farm,
    backends: Sequence[RemoteBackend],
    *,
    on_loopback: bool = True,
    loader: Loader | None = None,
    tracer: Tracer | None = None,
    store: Store | None = None,
    keeping: StoreConfig | None = None,
    **sections: Any,
) -> AsyncIterator[Running]:
    """The gateway must have ended by itself, leaving nothing open, some time after the block. `keeping`: `[store]`."""
    if keeping is not None:
        sections["store"] = keeping
    offload_runner.set(at_once)
    config = Config(engine=Engine(bolt=False), server=Server(port=GATEWAY.port), backends=tuple(backends), drain=DRAIN)
    gateway = Running(farm.network, on_loopback=on_loopback, loader=loader, tracer=tracer, store=store)
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


async def keep(received: list[tuple[float, bytes]], gateway: Running, body: bytes, *headers: bytes) -> None:
    """Ask, and note the reply and when it ended."""
    reply = await gateway.ask(body, *headers)
    received.append((trio.current_time(), reply))


def chats(server: AnsweringServer) -> int:
    """How many chats it was asked for."""
    return sum(asked.path == b"/v1/chat/completions" for asked in server.asked)
