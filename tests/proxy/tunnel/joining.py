"""A gateway with joiners, in memory: laptops that dial out to it, each with a server of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import trio
from quiver.proxy.seams import World
from quiver.proxy.testing import SimulatedNetwork
from quiver.proxy.tunnel.joiner import Joiner, JoinRefused
from quiver.schemas.config import Join
from quiver.schemas.join import PROTOCOL, Offer

from ..gateways import GATEWAY, Running
from ..servers import Farm, Server

URL = f"http://{GATEWAY}"
QUICK = Join(heartbeat=1.0, grace=20.0)


class Laptop:
    """A joiner that runs, and its server."""

    def __init__(self, joiner: Joiner, server: Server) -> None:
        self.joiner, self.server = joiner, server
        self.refused: JoinRefused | None = None
        self.scope = trio.CancelScope()
        self.over = trio.Event()

    async def run(self) -> None:
        try:
            with self.scope:
                await self.joiner.run()
        except JoinRefused as refused:
            self.refused = refused
        finally:
            self.over.set()


def offer(url: str, name: str = "laptop", *, resume: str = "r" * 32, models: tuple[str, ...] = ("m",)) -> Offer:
    return Offer(protocol=PROTOCOL, software="quiver test", name=name, resume=resume, url=url, models=models)


def world(network: SimulatedNetwork, seed: int = 7) -> World:
    return World(lambda: 1_700_000_000.0 + trio.current_time(), Random(seed), network)


@asynccontextmanager
async def laptop(
    farm: Farm, answer: object, name: str = "laptop", *, key: str | None = None, wait: bool = True, **fields: object
) -> AsyncIterator[Laptop]:
    """One that joins; it leaves, if it has not yet, at the end of the block."""
    config, server = await farm.configure(answer)  # type: ignore[arg-type]
    joiner = Joiner(URL, offer(config.url, name, **fields), world(farm.network), key=key)  # type: ignore[arg-type]
    found = Laptop(joiner, server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        if wait:
            await wait_until(lambda: joiner.state == "joined")
        yield found
        found.scope.cancel()


async def wait_until(true: object, seconds: float = 100.0) -> None:
    with trio.fail_after(seconds):
        while not true():  # type: ignore[operator] # noqa: ASYNC110 - looking is what the test does
            await trio.sleep(0.05)


def servers(gateway: Running) -> dict[str, str]:
    """Every joined server, and how its circuit stands."""
    return {server.id: server.circuit.state for server in gateway.gateway.joins.servers()}
