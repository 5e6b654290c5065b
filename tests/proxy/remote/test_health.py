"""Checks on virtual time: all servers at once, dead ones found, revived ones taken back, nobody asked too often."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import msgspec
import pytest
import trio
from quiver.proxy.registry import OUT_OF_SERVICE
from quiver.proxy.remote.circuit import Circuit, State
from quiver.proxy.remote.health import Bell, check, next_check, watch
from quiver.proxy.seams import World
from quiver.schemas import errors
from quiver.schemas.config import Health
from quiver.schemas.errors import ApiError
from trio.testing import MockClock, wait_all_tasks_blocked

CONFIG = Health(interval=60, timeout=10, failures=3, ejection=5, max_ejection=300)
Answer = Callable[[], Awaitable[None]]


class ScriptedServer:
    """A watched server whose probe does what `answer` does, and that remembers when it was asked."""

    def __init__(self, id: str, answer: Answer, config: Health = CONFIG) -> None:
        self.id, self.answer, self.address = id, answer, f"http://{id}"
        self.circuit = Circuit(config, Random(id))
        self.bell = Bell()
        self.asked: list[float] = []

    async def probe(self) -> None:
        self.asked.append(trio.current_time())
        await self.answer()

    def state(self) -> State:
        return self.circuit.state

    def pauses(self) -> list[float]:
        """Seconds between one check and the next."""
        return [later - earlier for earlier, later in zip(self.asked, self.asked[1:], strict=False)]


async def answers() -> None:
    await trio.sleep(0.1)


async def refuses() -> None:
    raise ApiError(errors.UPSTREAM_UNREACHABLE, "connection refused")


async def asks_for_pause() -> None:
    raise ApiError(errors.UPSTREAM_BUSY, "slow down", retry_after=30)


def raising(error: Exception) -> Answer:
    async def answer() -> None:
        raise error

    return answer


@asynccontextmanager
async def watching(*servers: ScriptedServer, config: Health = CONFIG) -> AsyncIterator[None]:
    world = World(random=Random(1))
    async with trio.open_nursery() as nursery:
        for server in servers:
            nursery.start_soon(watch, server, config, world)
        yield
        nursery.cancel_scope.cancel()


RESULTS: list[tuple[Answer, State, str | None]] = [
    (answers, "healthy", None),
    (trio.sleep_forever, "suspect", "no answer to `/v1/models` within 10 s"),
    (refuses, "suspect", "connection refused"),
    (raising(ApiError(errors.UPSTREAM_REFUSED, "`/v1/models` answered 404")), "suspect", "`/v1/models` answered 404"),
    (raising(ApiError(errors.UPSTREAM_UNAUTHORIZED, "answered 401")), "disabled", "answered 401"),
    (raising(OSError(111, "Connection refused")), "suspect", "`/v1/models`: [Errno 111] Connection refused"),
    (raising(trio.BrokenResourceError()), "suspect", "`/v1/models`: BrokenResourceError"),
    (raising(msgspec.DecodeError("no list")), "suspect", "`/v1/models`: no list"),
    (asks_for_pause, "unknown", None),
]


@pytest.mark.parametrize(("answer", "state", "reason"), RESULTS)
async def test_check_tells_circuit(answer: Answer, state: State, reason: str | None, autojump_clock: MockClock) -> None:
    server = ScriptedServer("s", answer)
    assert await check(server, CONFIG) == (state == "healthy")
    assert (server.state(), server.circuit.reason) == (state, reason)
    assert [(result.ok, result.source) for result in server.circuit.history] == [
        (state == "healthy", "check") for _ in range(state != "unknown")
    ]


async def test_own_mistakes_propagate(autojump_clock: MockClock) -> None:
    server = ScriptedServer("s", raising(KeyError("a bug")))
    with pytest.raises(KeyError):
        await check(server, CONFIG)
    assert server.state() == "unknown"


async def test_check_notes_time_taken(autojump_clock: MockClock) -> None:
    server = ScriptedServer("s", trio.sleep_forever)
    await check(server, Health(timeout=2.5))
    server.answer = answers
    await check(server, CONFIG)
    assert [result.seconds for result in server.circuit.history] == pytest.approx([2.5, 0.1])


async def test_fifty_servers_in_parallel(autojump_clock: MockClock) -> None:
    servers = [ScriptedServer(f"s{n}", trio.sleep_forever if n % 2 else answers) for n in range(50)]
    async with watching(*servers):
        await trio.sleep(CONFIG.timeout + 0.01)
        assert [server.circuit.health for server in servers] == ["healthy", "unhealthy"] * 25
        await trio.sleep(CONFIG.interval - CONFIG.timeout)
    assert [server.state() for server in servers] == ["healthy", "ejected"] * 25


async def test_healthy_interval_is_jittered(autojump_clock: MockClock) -> None:
    server = ScriptedServer("s", answers)
    async with watching(server):
        await trio.sleep(3600)
    pauses = [pause - 0.1 for pause in server.pauses()]
    assert len(pauses) >= 54
    assert all(54 <= pause <= 66.001 for pause in pauses)
    assert max(pauses) - min(pauses) > 6, "not in step with other servers"


async def test_dead_server_is_detected(autojump_clock: MockClock) -> None:
    server = ScriptedServer("s", answers)
    async with watching(server):
        await trio.sleep(100)
        assert server.state() == "healthy"
        server.answer = refuses
        await trio.sleep(CONFIG.interval * 1.1 + 0.1)
        assert server.circuit.health == "unhealthy"
        await trio.sleep(2 * CONFIG.ejection * 1.1)
        assert server.state() == "ejected"


async def test_dead_server_backs_off(autojump_clock: MockClock) -> None:
    server = ScriptedServer("s", refuses)
    async with watching(server):
        await trio.sleep(2000)
    confirming, ejected = server.pauses()[:2], server.pauses()[2:]
    assert all(4.5 <= pause <= 5.5 for pause in confirming)
    for pause, expected in zip(ejected, [5, 10, 20, 40, 80, 160, 300, 300, 300], strict=False):
        assert expected * 0.8 <= pause <= min(expected * 1.2, 300)
    assert len(ejected) >= 8


async def test_revived_server_rejoins(autojump_clock: MockClock) -> None:
    server = ScriptedServer("s", refuses)
    async with watching(server):
        await trio.sleep(60)
        assert server.state() == "ejected"
        server.answer, over = answers, server.circuit.until
        await trio.sleep_until(over + 0.05)
        assert server.state() == "half_open", "the check is the trial"
        await trio.sleep(0.1)
        assert (server.state(), server.circuit.failures) == ("healthy", 0)
        asked = len(server.asked)
        await trio.sleep(53)
        assert len(server.asked) == asked, "back to the usual interval"


async def test_mended_credential_rejoins(autojump_clock: MockClock) -> None:
    server = ScriptedServer("s", raising(ApiError(errors.UPSTREAM_UNAUTHORIZED, "answered 401")))
    async with watching(server):
        await trio.sleep(60)
        assert server.state() == "disabled"
        server.answer = answers
        await trio.sleep(CONFIG.max_ejection)
        assert server.state() == "healthy"


async def test_bell_forces_check(autojump_clock: MockClock) -> None:
    server = ScriptedServer("s", answers)
    async with watching(server):
        await trio.sleep(20)
        server.bell.ring()
        await wait_all_tasks_blocked()
        assert server.asked == [0.0, 20.0]


async def test_bell_is_no_flood(autojump_clock: MockClock) -> None:
    server = ScriptedServer("s", answers)
    async with watching(server):
        for _ in range(1000):
            server.bell.ring()
            await trio.sleep(0.01)
    assert 10 <= len(server.asked) <= 11
    assert all(pause >= 1 for pause in server.pauses())


async def test_traffic_ejection_is_served(autojump_clock: MockClock) -> None:
    """A server that lists its models but fails at requests stays out for its time; then the watcher tries it."""
    server = ScriptedServer("s", answers)
    server.circuit.on_change = server.bell.ring
    async with watching(server):
        await trio.sleep(10)
        for _ in range(CONFIG.failures):
            server.circuit.failed("answered 500", trio.current_time())
        over = server.circuit.until
        await trio.sleep_until(over - 0.01)
        assert (server.state(), len(server.asked)) == ("ejected", 1)
        await trio.sleep(0.2)
        assert server.state() == "healthy"
        assert server.asked[1:] == [pytest.approx(over)]


async def test_traffic_failure_is_confirmed(autojump_clock: MockClock) -> None:
    server = ScriptedServer("s", answers)
    server.circuit.on_change = server.bell.ring
    async with watching(server):
        await trio.sleep(10)
        server.answer = refuses
        server.circuit.failed("cut", trio.current_time())
        await trio.sleep(11)
    assert server.state() == "ejected", "one failed request and two checks, long before the interval"


async def test_paused_checks_keep_distance(autojump_clock: MockClock) -> None:
    server = ScriptedServer("s", refuses)
    async with watching(server):
        await trio.sleep(30)
        assert server.state() == "ejected"
        server.answer, asked = asks_for_pause, len(server.asked)
        await trio.sleep_until(server.circuit.until + 60)
    assert server.state() == "ejected", "no verdict"
    assert 10 <= len(server.asked) - asked <= 14


async def test_cancelled_check_frees_trial(autojump_clock: MockClock) -> None:
    server = ScriptedServer("s", refuses)
    async with watching(server):
        await trio.sleep(11)
    assert server.state() == "ejected"
    await trio.sleep_until(server.circuit.until)
    server.answer = trio.sleep_forever
    with trio.move_on_after(1):
        await check(server, CONFIG)
    assert (server.state(), server.circuit.tier(trio.current_time()) < OUT_OF_SERVICE) == ("ejected", True)


async def test_checks_end_with_watch(autojump_clock: MockClock) -> None:
    server = ScriptedServer("s", trio.sleep_forever)
    async with watching(server):
        await trio.sleep(1)
    await trio.sleep(1000)
    assert (len(server.asked), server.state()) == (1, "unknown")


async def test_same_seed_same_schedule(autojump_clock: MockClock) -> None:
    asked = []
    for _ in range(2):
        servers = [ScriptedServer("a", answers), ScriptedServer("b", refuses), ScriptedServer("c", trio.sleep_forever)]
        start = trio.current_time()
        async with watching(*servers):
            await trio.sleep(500)
        asked.append([[round(at - start, 6) for at in server.asked] for server in servers])
    assert asked[0] == asked[1]


@pytest.mark.parametrize(
    ("state", "config", "soonest", "latest"),
    [
        ("healthy", Health(interval=10), 9.0, 11.0),
        ("suspect", Health(interval=60, ejection=5), 4.5, 5.5),
        ("suspect", Health(interval=2, ejection=5), 1.8, 2.2),
        ("unknown", Health(interval=60, ejection=5), 4.5, 5.5),
        ("ejected", Health(interval=60, ejection=5, failures=1), 4.0, 6.0),
    ],
)
def test_next_check_by_state(state: State, config: Health, soonest: float, latest: float) -> None:
    for seed in range(50):
        circuit = Circuit(config, Random(seed))
        if state == "healthy":
            circuit.passed(100.0)
        elif state != "unknown":
            circuit.failed("down", 100.0)
        assert circuit.state == state
        assert 100 + soonest <= next_check(circuit, config, 100.0, Random(seed)) <= 100 + latest
