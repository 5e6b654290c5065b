"""One seed, one run of a whole gateway: servers, clients and an operator on a simulated network in virtual time.

First comes a time of faults; then the faults stop, and everything must come to rest, answer, and drain.
"""

import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random

import structlog
import trio
import trio.testing
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope
from trio._core import _run as trio_scheduler

from ..remote.backend import RemoteServer
from ..seams import World, offload_runner
from ..server import CLOSE_TIMEOUT, Gateway, run
from .clients import MANNERS, Client, Manner
from .evidence import Evidence
from .invariants import breaches
from .knobs import FORBIDDEN_HOST, GATEWAY, MODELS, PROBER, Plan, ServerPlan, draw_link, draw_plan
from .network import Answer, Link, SimulatedNetwork
from .seen import Ask
from .upstream import MOODS, ModelServer, Mood

LONGEST_REPLY = 12
# What writing the last records and closing the last sockets may take beyond the drain's own limits.
FAREWELL = 6.0
# Moods in which a server is left when the faults stop.
CALM_MOODS: tuple[Mood, ...] = ("ok", "ok", "lingering", "closing_idle", "close_delimited")
STARTED_AT = 1_700_000_000.0


class Result:
    """What came of one seed."""

    def __init__(self, seed: int, evidence: Evidence) -> None:
        self.seed, self.evidence = seed, evidence
        self.violations = breaches(evidence)
        self.fingerprint = evidence.fingerprint()

    def __repr__(self) -> str:
        return f"<Result seed={self.seed}: {len(self.violations)} violations, {self.fingerprint}>"


def simulate(seed: int) -> Result:
    """Run one seed. The same seed gives the same run, in any process."""
    random = Random(seed)  # noqa: S311 - repeatability is the point
    plan = draw_plan(_fork(random))
    weather = _fork(random)
    network = SimulatedNetwork(_fork(random), lambda address, source: draw_link(weather, plan.storm))
    evidence = Evidence(plan, network)
    with _repeatable_scheduling(seed), _listening_to_log(evidence.noticed):
        trio.run(_Scenario(evidence, random).run, clock=trio.testing.MockClock(autojump_threshold=0))
    return Result(seed, evidence)


class _Scenario:
    """One run in progress."""

    def __init__(self, evidence: Evidence, random: Random) -> None:
        self._evidence, self._plan, self._network = evidence, evidence.plan, evidence.network
        self._random = random
        self._moods, self._offloads = _fork(random), _fork(random)
        self._storm = True
        self._servers = {plan.name: self._server(plan) for plan in self._plan.servers}
        self._clients = 0
        self._gateway: Gateway | None = None

    async def run(self) -> None:
        offload_runner.set(self._offload)
        self._tell_names()
        signals, received = trio.open_memory_channel[int](2)
        async with trio.open_nursery() as nursery:
            for server in self._servers.values():
                await nursery.start(server.run)
            gateway = await nursery.start(self._run_gateway, received)
            await self._endure(gateway)
            self._network.heal()
            self._storm = False
            await trio.sleep(self._time_to_settle())
            self._check_rest(gateway)
            await self._check_service()
            await self._drain(gateway, signals)
            self._evidence.virtual_seconds = trio.current_time()
            nursery.cancel_scope.cancel()
        for record in self._evidence.records:
            self._network.note(
                "record", record.request_id, record.status, record.outcome, record.error, record.attempts
            )
