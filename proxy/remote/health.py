"""Active checks: every remote server is asked for its models, all in parallel, at a jittered interval.

A check lists models and never loads one. It finds new models, and brings a server that was down back into the rotation.
"""

from collections.abc import Sequence

import structlog
import trio

from ..seams import World
from .backend import RemoteServer

INTERVAL = 60.0
# A server that was found ill is asked more often, so that it is back soon after its owner has restarted it.
RECHECK = 5.0
TIMEOUT = 10.0


async def watch(servers: Sequence[RemoteServer], world: World) -> None:
    """Check every server once, report, then go on checking for ever."""
    async with trio.open_nursery() as nursery:
        for server in servers:
            nursery.start_soon(_watch_one, server, world)


async def _watch_one(server: RemoteServer, world: World) -> None:
    log = structlog.get_logger(component="health", server=server.id)
    while True:
        before = server.health
        await check(server)
        if server.health != before:
            log.info("server is " + server.health, reason=server.standing.reason, models=len(server.models))
        pause = INTERVAL if server.health == "healthy" else RECHECK
        await trio.sleep(pause * world.random.uniform(0.9, 1.1))


async def check(server: RemoteServer) -> None:
    """One check within its time limit."""
    with trio.move_on_after(TIMEOUT) as scope:
        await server.probe()
    if scope.cancelled_caught:
        server.standing.failed(f"no answer to `/v1/models` within {TIMEOUT:g} s")
