"""One seed, one run of a whole gateway: servers, clients and an operator on a simulated network in virtual time.

First comes a time of faults; then the faults stop, and everything must come to rest, answer, and drain.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any

import msgspec
import trio
import trio.testing
from hypercorn.typing import ASGIFramework
from quiver.schemas.saved import SavedServer

from ..gateway import Gateway
from ..remote.backend import RemoteServer
from ..seams import World, offload_runner
from ..server import run
from ..shutdown import CLOSE_TIMEOUT
from .clients import MANNERS, Client
from .evidence import Evidence
from .invariants import breaches
from .isolation import listening_to_log, repeatable_scheduling
from .knobs import FORBIDDEN_HOST, GATEWAY, MODELS, NICKNAME, PROBER_HOST, PROBER_KEY, ServerPlan, draw_link, draw_plan
from .machine import Machine
from .network import Answer, SimulatedNetwork
from .seen import Ask
from .upstream import ILL, WELL, ModelServer, Mood

LONGEST_REPLY = 12
# What writing the last records and closing the last sockets may take beyond the drain's own limits.
FAREWELL = 6.0
# Moods in which a server is left when the faults stop.
CALM_MOODS: tuple[Mood, ...] = ("ok", "ok", "lingering", "closing_idle", "close_delimited")
STARTED_AT = 1_700_000_000.0
# What a client waits beyond the longest that the gateway may take.
PATIENCE = 20.0
# When the last client is gone, the last sockets close; a health check may be under way whenever one looks.
SETTLING = 10.0
LOOKS = 8
BETWEEN_PROBES = 3.0
# How often the queue is looked at, and how long it may stand still: places are handed out in an instant.
BETWEEN_LOOKS = 0.1
LONGEST_IDLENESS = 0.25
# The share of clients that only want answers.
POLITE = 0.4
# How many requests a client makes.
VISITS = (1, 3, 6)
# What else a request may say, and how likely it does.
FIELDS = (
    (0.2, ("X-Quiver-Priority", "low")),
    (0.1, ("X-Quiver-Priority", "critical")),
    (0.1, ("X-Quiver-Share", "off")),
    (0.1, ("Cache-Control", "no-store")),
    (0.1, ("Cache-Control", "no-cache")),
    (0.2, ("X-Session-ID", "session")),
)


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
    network = SimulatedNetwork(_fork(random), lambda address, source: draw_link(weather, plan.storm, address))
    evidence = Evidence(plan, network)
    with repeatable_scheduling(seed), listening_to_log(evidence.noticed):
        trio.run(_Scenario(evidence, random).run, clock=trio.testing.MockClock(autojump_threshold=0))
    return Result(seed, evidence)


class _Scenario:
    """One run in progress."""

    def __init__(self, evidence: Evidence, random: Random) -> None:
        self._evidence, self._plan, self._network = evidence, evidence.plan, evidence.network
        self._random = random
        self._moods, self._offloads = _fork(random), _fork(random)
        self._healthy_moods: tuple[Mood, ...] | None = None
        self._clients = 0
        self._exit_code: int | None = None
        self._ended = trio.Event()

    async def run(self) -> None:
        offload_runner.set(self._offload)
        self._tell_names()
        signals, received = trio.open_memory_channel[int](2)
        async with trio.open_nursery() as nursery:
            machines = [Machine(plan, self._server(plan)) for plan in self._plan.servers]
            for machine in machines:
                await nursery.start(machine.run)
            gateway = await nursery.start(self._run_gateway, received)
            nursery.start_soon(self._look_at_queue, gateway)
            await self._endure_faults(gateway, machines)
            await self._come_to_rest(gateway)
            await self._answer_probes()
            await self._drain(signals)
            nursery.cancel_scope.cancel()
        self._evidence.virtual_seconds = trio.current_time()
        for record in self._evidence.records:
            self._network.note(
                "record", record.request_id, record.status, record.outcome, record.error, record.attempts
            )

    # The gateway and its surroundings.

    async def _run_gateway(
        self, signals: trio.MemoryReceiveChannel[int], task_status: trio.TaskStatus[Gateway]
    ) -> None:
        built: list[Gateway] = []

        def control(gateway: Gateway) -> ASGIFramework:
            built.append(gateway)
            return _control_plane

        random = _fork(self._random)
        world = World(lambda: STARTED_AT + trio.current_time(), random, self._network)
        self._exit_code = await run(
            self._plan.config,
            control=control,
            sink=self._evidence.records.extend,
            announce=lambda listening: task_status.started(built[0]),
            world=world,
            signals=signals,
        )
        self._ended.set()

    async def _offload(self, fn: Callable[..., object], *args: object) -> object:
        await trio.sleep(self._offloads.choice((0, 0.001, 0.1)))
        return fn(*args)

    def _server(self, plan: ServerPlan) -> ModelServer:
        return ModelServer(
            plan.name,
            plan.hosts,
            plan.models,
            self._network,
            _fork(self._random),
            self._evidence.servers,
            mood=partial(self._mood, plan.sickness),
            key=plan.key,
            most=plan.max_concurrency,
            reports=plan.reports,
        )

    def _mood(self, sickness: float) -> Mood:
        if self._healthy_moods is not None:
            return self._moods.choice(self._healthy_moods)
        return self._moods.choice(ILL if self._moods.random() < sickness else WELL)

    def _tell_names(self) -> None:
        """Servers move, and names lie for a while. When the faults are over, all is well again."""
        for plan in self._plan.servers:
            first, second = plan.hosts
            lies = ((), (FORBIDDEN_HOST,), (FORBIDDEN_HOST, second), ("10.0.9.9", first))
            turn = self._random.uniform(0, self._plan.span)
            self._network.name(
                plan.domain,
                Answer(0.0, (first,)),
                Answer(turn, self._random.choice((*lies, (first,), (first,), (second,)))),
                Answer(self._plan.span, (second,)),
            )

    # The time of faults.

    async def _endure_faults(self, gateway: Gateway, machines: Sequence[Machine]) -> None:
        """Clients of all manners come while everything fails that may. Returns when the last of them is gone."""
        async with trio.open_nursery() as visits:
            for _ in range(self._plan.clients):
                visits.start_soon(self._visit)
            async with trio.open_nursery() as operations:
                for _ in range(self._random.choice((0, 1, 3))):
                    operations.start_soon(self._operate, gateway, self._random.choice(machines))
                await trio.sleep(self._plan.span)
            self._network.note("operator", "calm")
            self._network.heal()
            self._healthy_moods = CALM_MOODS

    async def _visit(self) -> None:
        random = _fork(self._random)
        # Half of the clients come together: only crowds queue and share.
        await trio.sleep(self._plan.span * random.choice((random.random(), 0.2)))
        manner = Client.polite if random.random() < POLITE else random.choice(MANNERS)
        keys = [key.key for key in self._plan.config.keys if key.key != PROBER_KEY]
        key = None
        if keys:
            key = random.choice(keys) if random.random() < 0.95 else "a-wrong-key"
        client = self._client(f"10.9.0.{random.randint(1, 3)}", key, random)
        sameness = self._plan.sameness
        asks = [_ask(client, number, key, sameness, random) for number in range(random.choice(VISITS))]
        if random.random() < 0.2:  # only in the last: who says so and sends more has himself to blame
            asks[-1] = msgspec.structs.replace(asks[-1], fields=(*asks[-1].fields, ("Connection", "close")))
        await client.visit(manner, asks)

    async def _operate(self, gateway: Gateway, machine: Machine) -> None:
        """An operator does something to one server, and undoes it before the faults are over."""
        random, span = _fork(self._random), self._plan.span
        await trio.sleep(random.uniform(0, span / 2))
        pause = random.uniform(0, span / 2)
        action = random.choice(("crash", "deregister", "replace"))
        self._network.note("operator", action, machine.plan.name)
        if action == "crash":
            await machine.crash(pause)
            return
        name, backend = machine.plan.name, machine.plan.registration()
        if action == "deregister":
            await gateway.store.remove_server(name)
            gateway.deregister(name)
            machine.forgive_crowds()
            await trio.sleep(pause)
        now = gateway.world.wall_clock()
        await gateway.store.save_server(SavedServer(id=name, backend=backend, created=now, changed=now))
        gateway.register(backend)

    async def _look_at_queue(self, gateway: Gateway) -> None:
        """Nobody waits while nobody is served, unless servers have asked for a pause."""
        idle_since: float | None = None
        while True:
            await trio.sleep(BETWEEN_LOOKS)
            now, admission = trio.current_time(), gateway.admission.statistics()
            paused = any(backend.paused_until(model) > now for backend in gateway.registry for model in MODELS)
            if not admission.queue.waiting or admission.in_flight or paused:
                idle_since = None
            elif idle_since is None:
                idle_since = now
            elif now - idle_since > LONGEST_IDLENESS:
                self._evidence.noticed.append(f"at {now:.3f}, {admission.queue.waiting} wait and nobody is served")
                return

    # What must come after it.

    async def _come_to_rest(self, gateway: Gateway) -> None:
        """With nothing left to do, nothing is left over. A check of a server's health may be under way: look again."""
        health = self._plan.config.health
        await trio.sleep(health.max_ejection + health.timeout + SETTLING)
        for _ in range(LOOKS):
            left_over = list(self._left_over(gateway))
            if not left_over:
                return
            await trio.sleep(1.3)
        self._evidence.noticed.extend(f"at rest, {what}" for what in left_over)

    def _left_over(self, gateway: Gateway) -> Iterator[str]:
        if gateway.exchanges.in_flight:
            yield f"{gateway.exchanges.in_flight} exchanges are in flight"
        admission = gateway.admission.statistics()
        if admission.in_flight or admission.queue.waiting:
            yield f"{admission.in_flight} places are taken, {admission.queue.waiting} requests wait"
        if shared := gateway.reuse.statistics().in_flight:
            yield f"{shared} shared answers are being made"
        connections = 0
        for backend in gateway.registry:
            if backend.load.in_flight:
                yield f"{backend} has {backend.load.in_flight} in flight"
            if isinstance(backend, RemoteServer):
                connections += backend.statistics().idle
                if backend.statistics().busy:
                    yield f"{backend} has {backend.statistics().busy} busy connections"
        ends = self._network.open_ends(GATEWAY.host)
        if len(ends) != connections:
            yield f"{connections} connections are kept, and these are open: {ends}"
        yield from (f"{start} still runs" for start in self._evidence.servers.starts if start.ended is None)

    async def _answer_probes(self) -> None:
        """Every model can be used."""
        log = self._evidence.clients
        for number, (model, stream) in enumerate(zip(MODELS, (True, False), strict=True)):
            client = self._prober()
            fields = _authorization(PROBER_KEY if self._plan.config.keys else None)
            ask = Ask(f"probe-{number}", f"{client.name}-0", model, stream, fields=fields)
            before = len(log.seen)
            await client.visit(Client.polite, [ask])
            if not any(seen.status == 200 and seen.done for seen in log.seen[before:]):
                self._evidence.noticed.append(f"after the faults, {model} was not answered: {log.seen[before:]}")
            await trio.sleep(BETWEEN_PROBES)

    async def _drain(self, signals: trio.MemorySendChannel[int]) -> None:
        """Told to stop while requests run, the gateway ends in time, and leaves no socket open."""
        drain, evidence, random = self._plan.config.drain, self._evidence, _fork(self._random)
        first = random.choice((signal.SIGTERM, signal.SIGTERM, signal.SIGINT))
        patience = drain.interrupt_timeout if first is signal.SIGINT else drain.delay + drain.timeout
        self._healthy_moods = ("ok", "ok", "slow", "delayed", "stall")
        async with trio.open_nursery() as visits:
            for _ in range(2):
                visits.start_soon(self._ask_while_draining, 0.0)
            await trio.sleep(random.choice((0, 0.3, 1)))
            evidence.stopped_at = trio.current_time()
            signals.send_nowait(first)
            visits.start_soon(self._ask_while_draining, 0.3)
            if random.random() < 0.25:
                with trio.move_on_after(random.choice((0.01, 0.5, 2))):
                    await self._ended.wait()
                if self._exit_code is None:
                    signals.send_nowait(signal.SIGTERM)
                    patience = 0.0
            with trio.move_on_after(patience + CLOSE_TIMEOUT + FAREWELL):
                await self._ended.wait()
            if self._exit_code is None:
                seconds = trio.current_time() - evidence.stopped_at
                evidence.noticed.append(f"the gateway still ran {seconds:.1f} s after it was told to stop")
                visits.cancel_scope.cancel()
        if self._exit_code not in (None, 128 + first):
            evidence.noticed.append(f"the exit code was {self._exit_code}, not {128 + first}")
        if self._exit_code is not None and (ends := self._network.open_ends(GATEWAY.host)):
            evidence.noticed.append(f"after the end, these sockets were open: {ends}")

    async def _ask_while_draining(self, delay: float) -> None:
        await trio.sleep(delay)
        random, client = _fork(self._random), self._prober()
        fields = _authorization(PROBER_KEY if self._plan.config.keys else None)
        ask = Ask(
            client.name, f"{client.name}-0", random.choice(MODELS), random.random() < 0.7, LONGEST_REPLY, fields=fields
        )
        await client.visit(Client.polite, [ask])

    def _prober(self) -> Client:
        return self._client(PROBER_HOST, PROBER_KEY if self._plan.config.keys else None, _fork(self._random))

    def _client(self, source: str, key: str | None, random: Random) -> Client:
        self._clients += 1
        patience = self._plan.config.limits.request + PATIENCE
        log = self._evidence.clients
        return Client(f"client{self._clients}", source, key, GATEWAY, self._network, random, log, patience)


def _ask(client: Client, number: int, key: str | None, sameness: float, random: Random) -> Ask:
    """A random question. A shared one is put in the very same words by others."""
    fields = [*_authorization(key), *(field for chance, field in FIELDS if random.random() < chance)]
    request_id = f"{client.name}-{number}"
    if random.random() < sameness:
        shared = random.randint(0, 1)
        marker, model, stream = f"shared-{shared}", MODELS[shared % 2], shared > 0
        return Ask(marker, request_id, model, stream, 6, shared=True, fields=tuple(fields))
    model = random.choice(MODELS) if random.random() < 0.9 else random.choice((NICKNAME, "unheard-of"))
    return Ask(
        request_id,
        request_id,
        model,
        random.random() < 0.7,
        random.randint(1, LONGEST_REPLY),
        fields=tuple(fields),
        chunked=random.random() < 0.2,
    )


def _authorization(key: str | None) -> tuple[tuple[str, str], ...]:
    return () if key is None else (("Authorization", f"Bearer {key}"),)


async def _control_plane(scope: Any, receive: Any, send: Any) -> None:
    """A page that says that all is well, for every path."""
    if scope["type"] == "http":
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok", "more_body": False})


def _fork(random: Random) -> Random:
    """A generator of its own, so that what draws more or less in one place changes nothing in another."""
    return Random(random.getrandbits(64))  # noqa: S311 - repeatability is the point
