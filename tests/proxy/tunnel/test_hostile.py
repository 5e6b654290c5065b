"""A joiner, and a gateway that means it ill."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import msgspec
import pytest
import trio
from quiver.proxy.network import Wire
from quiver.proxy.testing import SimulatedNetwork
from quiver.proxy.testing.network import Link
from quiver.proxy.tunnel.frames import Kind, encode
from quiver.proxy.tunnel.multiplexer import MAX_STREAMS
from quiver.proxy.tunnel.websocket import WebSocket
from quiver.schemas.join import PROTOCOL, Welcome

from ..gateways import GATEWAY, OK, answering
from ..servers import Farm
from .joining import laptop, wait_until

WELCOME = encode(
    Kind.WELCOME, 0, msgspec.json.encode(Welcome(protocol=PROTOCOL, software="quiver 0", heartbeat=1000.0))
)


class Hostile:
    """What a joiner takes for its gateway: it says `WELCOME`, and with it what a test wants to say."""

    def __init__(self, said: bytes) -> None:
        self.said = said
        self.visits = 0
        self.socket: WebSocket | None = None

    async def meet(self, wire: Wire) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await wire.receive_some()
        self.socket = await WebSocket.accept(wire, head)
        assert await self.socket.receive()
        self.visits += 1
        await self.socket.send(WELCOME + self.said)
        while await self.socket.receive():
            pass
        wire.close()


@asynccontextmanager
async def hostile(farm: Farm, said: bytes = b"") -> AsyncIterator[Hostile]:
    (acceptor,) = await farm.network.listen(GATEWAY.host, GATEWAY.port)
    found = Hostile(said)

    async def serve(nursery: trio.Nursery) -> None:
        while True:
            for wire in await acceptor.accept():
                nursery.start_soon(found.meet, wire)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, nursery)
        yield found
        nursery.cancel_scope.cancel()
    acceptor.close()


@pytest.mark.parametrize(
    "said",
    [WELCOME, encode(Kind.OFFER), encode(Kind.TALLY, 0, b"?"), encode(Kind.GOODBYE, 0, b"?"), encode(Kind.PAUSE)],
)
async def test_nonsense_with_the_welcome_ends_the_link_only(farm: Farm, autojump_clock: object, said: bytes) -> None:
    async with hostile(farm, said) as gateway, laptop(farm, answering(OK), wait=False) as owned:
        await wait_until(lambda: gateway.visits >= 3)
        assert not owned.over.is_set()
        assert "broke the protocol" in (owned.joiner.reason or "")


async def test_streams_that_are_opened_and_given_up_hold_nothing(farm: Farm, autojump_clock: object) -> None:
    """The server does not answer at all, so that every connection to it takes its time."""
    farm.network = SimulatedNetwork(
        Random(1), lambda address, source: Link() if address == GATEWAY else Link("black_hole")
    )
    async with hostile(farm) as gateway, laptop(farm, answering(OK)) as owned:
        assert gateway.socket is not None
        for first in range(1, 20 * MAX_STREAMS, MAX_STREAMS):
            numbers = range(first, first + MAX_STREAMS)
            await gateway.socket.send(b"".join(encode(Kind.OPEN, n) + encode(Kind.RESET, n) for n in numbers))
            await trio.sleep(0.1)
        assert owned.joiner._streams is not None
        assert len(owned.joiner._streams.child_tasks) < 10
