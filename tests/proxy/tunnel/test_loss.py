"""The link of a joined server is lost at every moment: the client gets a whole answer or is told, and the server comes back."""

import signal
from random import Random

import pytest
import trio
from quiver.proxy.network import Address
from quiver.proxy.testing import SimulatedNetwork
from quiver.proxy.testing.network import LOOPBACK, Link
from quiver.proxy.testing.pipe import Direction, Fault, FaultKind

from ..gateways import GATEWAY, LAST, STREAM, WORD, Running, answering, running, streaming, unchunked
from ..servers import Farm
from .joining import QUICK, laptop, servers, wait_until

WORDS = 4
# The handshake is over after about 400 bytes, the first check after 900; the whole scenario takes about 3,000.
MOMENTS = (0, 1, 100, 250, 330, 420, 500, 600, 640, 700, 760, 820, 900, 980, 1060, 1140, 1220, 1300, 1400, 1600, 1800)


class Plan:
    """The first link that a joiner opens has the fault; everything else is well."""

    def __init__(self, direction: str, fault: Fault) -> None:
        self._direction, self._fault = direction, fault
        self.links = 0

    def __call__(self, address: Address, source: str) -> Link:
        if address != GATEWAY or source != LOOPBACK:
            return Link()
        self.links += 1
        if self.links > 1:
            return Link()
        faulty = Direction(fault=self._fault)
        return Link(there=faulty) if self._direction == "there" else Link(back=faulty)


async def answer(gateway: Running) -> bytes:
    """The body of a streamed reply, which must be well-formed."""
    with trio.fail_after(60):
        reply = await gateway.ask(STREAM, b"Connection: close")
    assert reply.startswith(b"HTTP/1.1 200"), reply
    return unchunked(reply)


@pytest.mark.parametrize("kind", ["reset", "eof", "stall"])
@pytest.mark.parametrize("direction", ["there", "back"])
async def test_any_moment(kind: FaultKind, direction: str, autojump_clock: object) -> None:
    outcomes = set()
    for after in MOMENTS:
        async with trio.open_nursery() as nursery:
            outcomes.add(await lose(nursery, Plan(direction, Fault(kind, after))))
            nursery.cancel_scope.cancel()
    assert {"whole", "told"} <= outcomes


async def lose(nursery: trio.Nursery, plan: Plan) -> str:
    """One run; whether the client got a whole answer, or was told."""
    farm = Farm(nursery)
    farm.network = SimulatedNetwork(Random(1), plan)
    other, _ = await farm.configure(answering(streaming(WORDS)))
    async with running(farm, [other], join=QUICK) as gateway:
        async with laptop(farm, answering(streaming(WORDS)), wait=False) as owned:
            await trio.sleep(2)
            bodies = [await answer(gateway) for _ in range(2)]
            for body in bodies:
                whole = body == WORD * WORDS + LAST
                assert whole or b'"code":"upstream_truncated"' in body, body
            # A fault that has not struck yet does so at the latest by heartbeats.
            await wait_until(lambda: plan.links > 1 and servers(gateway) == {"laptop": "healthy"}, 500)
            assert [await answer(gateway) for _ in range(2)] == [WORD * WORDS + LAST] * 2
            await trio.sleep(0.5)
            assert owned.server.asked
            assert owned.joiner.status().streams == gateway.gateway.joins.servers()[0].link.statistics().streams <= 2
        gateway.signal(signal.SIGINT)
    assert farm.network.open_ends("10.0.0.2") == [], "the server still has connections"
    return "whole" if b'"error"' not in b"".join(bodies) else "told"
