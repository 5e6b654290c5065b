"""Admission on virtual time: who gets in, who waits, who is refused, and that no place is ever lost."""

from collections.abc import Callable
from random import Random

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from quiver.proxy.admission.admission import MODELS, Admission, Place
from quiver.proxy.admission.ticket import PRIORITIES, Ticket
from quiver.schemas import config, errors
from quiver.schemas.errors import ApiError


class Servers:
    """Places on servers, by model, and the admission that hands them out."""

    def __init__(self, free: dict[str, int], limits: config.Admission | None = None) -> None:
        self.free = free
        self.asked = 0
        self.admission: Admission[str] = Admission(limits or config.Admission(), self.give_back)

    def chooser(self, model: str) -> Callable[[], str | None]:
        def choose() -> str | None:
            self.asked += 1
            if not self.free[model]:
                return None
            self.free[model] -= 1
            return model

        return choose

    def give_back(self, model: str) -> None:
        self.free[model] += 1

    async def enter(self, ticket: Ticket) -> str:
        return await self.admission.enter(ticket, self.chooser(ticket.model))

    def try_enter(self, model: str = "m") -> str | None:
        return self.admission.try_enter(model, self.chooser(model))

    def leave(self, ticket: Ticket, tokens: float = 10) -> None:
        self.give_back(ticket.model)
        self.admission.leave(ticket, tokens)

    async def serve(self, ticket: Ticket, seconds: float, done: list[Ticket]) -> None:
        await self.enter(ticket)
        try:
            await trio.sleep(seconds)
            done.append(ticket)
        finally:
            self.leave(ticket)


def headers_of(error: ApiError) -> dict[bytes, bytes]:
    return dict(error.headers())


async def test_room_means_no_wait(autojump_clock: trio.testing.MockClock) -> None:
    servers = Servers({"m": 1})
    assert servers.try_enter() == "m"
    assert servers.try_enter() is None
    servers.leave(Ticket("a", "m"))
    assert await servers.enter(Ticket("a", "m")) == "m"
    assert trio.current_time() == 0


async def test_waiting_one_is_not_overtaken(autojump_clock: trio.testing.MockClock) -> None:
    servers, done = Servers({"m": 0, "other": 1}), list[Ticket]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(servers.serve, waiting := Ticket("a", "m"), 1.0, done)
        await trio.testing.wait_all_tasks_blocked()
        servers.free["m"] = 1
        assert servers.try_enter("m") is None
        assert servers.try_enter("other") == "other"
        servers.admission.poke()
    assert done == [waiting]
    assert servers.free["m"] == 1


async def test_places_go_in_order(autojump_clock: trio.testing.MockClock) -> None:
    servers, done = Servers({"m": 1}), list[Ticket]()
    low, normal, high = Ticket("a", "m", "low"), Ticket("b", "m", "normal"), Ticket("c", "m", "high")
    holder = Ticket("d", "m")
    assert servers.try_enter()
    async with trio.open_nursery() as nursery:
        for ticket in (low, normal, high):
            nursery.start_soon(servers.serve, ticket, 1.0, done)
            await trio.testing.wait_all_tasks_blocked()
        servers.leave(holder)
    assert done == [high, normal, low]
    assert trio.current_time() == 3


async def test_busy_model_blocks_no_other(autojump_clock: trio.testing.MockClock) -> None:
    servers, done = Servers({"busy": 0, "m": 0}), list[Ticket]()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(servers.serve, Ticket(f"client-{number}", "busy", "critical"), 1.0, done)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(servers.serve, wanted := Ticket("z", "m", "low"), 1.0, done)
        await trio.testing.wait_all_tasks_blocked()
        servers.free["m"], servers.asked = 1, 0
        servers.admission.poke()
        assert servers.asked == 2
        await trio.sleep(2)
        assert done == [wanted]
        nursery.cancel_scope.cancel()


async def test_poke_fills_every_place(autojump_clock: trio.testing.MockClock) -> None:
    servers, done = Servers({"m": 0}), list[Ticket]()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(servers.serve, Ticket("a", "m"), 1.0, done)
        await trio.testing.wait_all_tasks_blocked()
        servers.free["m"] = 5
        servers.admission.poke()
    assert trio.current_time() == 1
    assert len(done) == servers.free["m"] == 5


async def test_in_flight_has_a_limit(autojump_clock: trio.testing.MockClock) -> None:
    servers, done = Servers({"m": 10}, config.Admission(max_in_flight=2)), list[Ticket]()
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(servers.serve, Ticket("a", "m"), 1.0, done)
        await trio.testing.wait_all_tasks_blocked()
        assert repr(servers.admission) == "Admission(in_flight=2, waiting=4)"
    assert trio.current_time() == 3
    assert servers.free["m"] == 10


async def test_full_queue_refuses(autojump_clock: trio.testing.MockClock) -> None:
    servers = Servers({"m": 0, "n": 0}, config.Admission(queue=2))
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(servers.enter, Ticket("a", "m"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ApiError, match="2 requests wait") as raised:
            await servers.enter(Ticket("b", "m"))
        assert raised.value.kind is errors.QUEUE_FULL
        assert headers_of(raised.value) == {
            b"x-queue-length": b"2",
            b"x-queue-estimated-wait": b"3",
            b"retry-after": b"3",
        }
        with pytest.raises(ApiError) as raised:
            await servers.enter(Ticket("b", "n"))
        assert raised.value.retry_after == 1
        assert servers.admission.statistics().full == 2
        nursery.cancel_scope.cancel()


async def test_queue_of_none_refuses(autojump_clock: trio.testing.MockClock) -> None:
    servers = Servers({"m": 0}, config.Admission(queue=0))
    with pytest.raises(ApiError) as raised:
        await servers.enter(Ticket("a", "m"))
    assert raised.value.kind is errors.QUEUE_FULL


@pytest.mark.parametrize(
    ("max_wait", "deadline", "waited"), [(20.0, float("inf"), 20.0), (20.0, 5.0, 5.0), (20.0, -1.0, 0)]
)
async def test_wait_has_an_end(
    max_wait: float, deadline: float, waited: float, autojump_clock: trio.testing.MockClock
) -> None:
    servers = Servers({"m": 0}, config.Admission(max_wait=max_wait))
    with pytest.raises(ApiError) as raised:
        await servers.enter(Ticket("a", "m", deadline=deadline))
    assert trio.current_time() == waited
    assert raised.value.kind is errors.QUEUE_TIMEOUT
    wait = b"%d" % max(1, waited)
    assert headers_of(raised.value) == {
        b"x-queue-length": b"1",
        b"x-queue-estimated-wait": wait,
        b"x-queue-position": b"1",
        b"retry-after": wait,
    }
    assert repr(servers.admission) == "Admission(in_flight=0, waiting=0)"
    servers.free["m"] = 1
    assert servers.try_enter() == "m"


async def test_stop_sends_all_away(autojump_clock: trio.testing.MockClock) -> None:
    servers, refused = Servers({"m": 1}), list[ApiError]()

    async def wait() -> None:
        with pytest.raises(ApiError) as raised:
            await servers.enter(Ticket("a", "m"))
        refused.append(raised.value)

    inside = Ticket("b", "m")
    assert servers.try_enter()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        servers.admission.stop()
    servers.leave(inside)
    assert servers.try_enter() is None
    await wait()
    assert [(error.kind, error.retry_after) for error in refused] == [(errors.SHUTTING_DOWN, 5)] * 4
    assert repr(servers.admission) == "Admission(in_flight=0, waiting=0)"


async def test_error_of_choosing_ends_wait(autojump_clock: trio.testing.MockClock) -> None:
    servers = Servers({"m": 0})
    gone = [False]

    def choose() -> str | None:
        if gone[0]:
            raise ApiError(errors.MODEL_NOT_FOUND, "no server offers `m` any more")
        return None

    async def wait() -> None:
        with pytest.raises(ApiError, match="any more"):
            await servers.admission.enter(Ticket("a", "m"), choose)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        gone[0] = True
        servers.admission.poke()
    assert repr(servers.admission) == "Admission(in_flight=0, waiting=0)"


async def test_cancelled_grant_goes_to_next(autojump_clock: trio.testing.MockClock) -> None:
    """The first in turn is cancelled and granted before it runs again: its place goes on to the second."""
    servers, done = Servers({"m": 1}), list[Ticket]()
    holder, scope = Ticket("h", "m"), trio.CancelScope()
    assert servers.try_enter()

    async def cancelled() -> None:
        with scope:
            await servers.serve(Ticket("a", "m", "high"), 1.0, done)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancelled)
        nursery.start_soon(servers.serve, second := Ticket("b", "m"), 1.0, done)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        servers.leave(holder)
    assert done == [second]
    assert servers.free["m"] == 1
    statistics = servers.admission.statistics()
    assert (statistics.in_flight, statistics.granted, statistics.cancelled) == (0, 2, 1)


async def test_granted_at_deadline_enters(autojump_clock: trio.testing.MockClock) -> None:
    """A place that comes free at the very instant of the timeout is used or handed on, never lost."""
    for seed in range(20):
        servers, ended = Servers({"m": 1}, config.Admission(max_wait=5.0)), list[str]()
        holder = Ticket("h", "m")
        assert servers.try_enter()

        async def wait(servers: Servers = servers, ended: list[str] = ended) -> None:
            ticket = Ticket("a", "m")
            try:
                await servers.enter(ticket)
            except ApiError:
                ended.append("timeout")
            else:
                ended.append("entered")
                servers.leave(ticket)

        async def free(servers: Servers = servers, holder: Ticket = holder) -> None:
            await trio.sleep(5.0)
            servers.leave(holder)

        async with trio.open_nursery() as nursery:
            for task in (wait, free) if seed % 2 else (free, wait):
                nursery.start_soon(task)
        assert len(ended) == 1
        assert servers.free["m"] == 1
        assert repr(servers.admission) == "Admission(in_flight=0, waiting=0)"


async def test_withdrawn_head_unblocks_others(autojump_clock: trio.testing.MockClock) -> None:
    """The first in turn wants what is not there; when it gives up, the next of the same model is asked."""
    servers, done = Servers({"m": 0}), list[Ticket]()
    scope = trio.CancelScope()

    async def picky() -> None:
        with scope:
            await servers.admission.enter(Ticket("a", "m", "high"), lambda: None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(picky)
        nursery.start_soon(servers.serve, easy := Ticket("b", "m"), 1.0, done)
        await trio.testing.wait_all_tasks_blocked()
        servers.free["m"] = 1
        servers.admission.poke()
        await trio.sleep(3)
        assert done == []
        scope.cancel()
    assert done == [easy]


async def test_place_is_told(autojump_clock: trio.testing.MockClock) -> None:
    servers, done = Servers({"m": 1}), list[Ticket]()
    tickets = [Ticket("a", "m", cost=10) for _ in range(6)]
    async with trio.open_nursery() as nursery:
        for ticket in tickets:
            nursery.start_soon(servers.serve, ticket, 2.0, done)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(2.5)
        assert servers.admission.place(tickets[1]) == Place(0, 0.0)
        assert servers.admission.place(tickets[2]) == Place(1, 2.0)
        assert servers.admission.place(tickets[5]) == Place(4, 8.0)
    assert done == tickets
    assert servers.admission.place(tickets[0]) == Place(0, 0.0)


async def test_position_may_be_old(autojump_clock: trio.testing.MockClock) -> None:
    """A position is up to a second old, for all who wait may ask at once; one who joined since has a new one worked out."""
    servers = Servers({"m": 0})
    first, second = Ticket("a", "m"), Ticket("b", "m", "high")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(servers.enter, first)
        await trio.testing.wait_all_tasks_blocked()
        assert servers.admission.place(first).position == 1
        nursery.start_soon(servers.enter, second)
        await trio.testing.wait_all_tasks_blocked()
        assert servers.admission.place(first).position == 1
        assert servers.admission.place(second).position == 1
        assert servers.admission.place(first).position == 2
        nursery.cancel_scope.cancel()


async def test_models_are_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    servers = Servers({f"model-{number}": 0 for number in range(MODELS + 50)}, config.Admission(max_wait=0.01))
    for model in servers.free:
        with pytest.raises(ApiError):
            await servers.enter(Ticket("a", model))
    assert len(servers.admission._paces) <= MODELS
    assert len(servers.admission._standings) <= MODELS


async def test_estimate_stays_below_max_wait(autojump_clock: trio.testing.MockClock) -> None:
    servers = Servers({"m": 0}, config.Admission(max_wait=30.0))
    async with trio.open_nursery() as nursery:
        tickets = [Ticket("a", "m") for _ in range(50)]
        for ticket in tickets:
            nursery.start_soon(servers.enter, ticket)
            await trio.testing.wait_all_tasks_blocked()
        assert servers.admission.place(tickets[-1]) == Place(50, 30.0)
        nursery.cancel_scope.cancel()


async def test_light_client_is_not_drowned(autojump_clock: trio.testing.MockClock) -> None:
    """One client sends two hundred at once; another's single request, later, waits for the next free place only."""
    servers, done = Servers({"m": 2}), list[Ticket]()
    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(servers.serve, Ticket("flood", "m", cost=10), 1.0, done)
        await trio.sleep(40.5)
        with trio.fail_after(2):
            await servers.enter(single := Ticket("single", "m", cost=10))
        servers.leave(single)
    assert len(done) == 200


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_storms_leave_nothing_taken(seed: int) -> None:
    """Requests come, are cancelled, time out and finish at random instants that often coincide; in the end all is free."""
    random = Random(seed)
    servers = Servers({"x": 2, "y": 1}, config.Admission(queue=12, max_wait=4.0, max_in_flight=3))
    ended: list[str] = []

    async def request() -> None:
        await trio.sleep(random.randrange(6))
        ticket = Ticket(random.choice("abc"), random.choice("xy"), random.choice(PRIORITIES), random.randrange(50))
        with trio.move_on_after(random.choice([0, 1, 2, 3, 9])) as scope:
            try:
                await servers.enter(ticket)
            except ApiError as error:
                ended.append(error.kind.code)
                return
            try:
                await trio.sleep(random.randrange(3))
            finally:
                servers.leave(ticket, random.randrange(100))
        ended.append("cancelled" if scope.cancelled_caught else "done")

    async def storm() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(request)

    trio.run(storm, clock=trio.testing.MockClock(autojump_threshold=0))
    statistics = servers.admission.statistics()
    assert servers.free == {"x": 2, "y": 1}
    assert len(ended) == 40
    assert (statistics.in_flight, statistics.queue.waiting, statistics.queue.clients) == (0, 0, 0)
    assert ended.count("queue_full") == statistics.full


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_free_place_never_idles(seed: int) -> None:
    """No lost wake-up: whenever all tasks are blocked and somebody waits for a model, its servers are busy."""
    random = Random(seed)
    servers, done = Servers({"x": 2, "y": 1}, config.Admission(max_wait=1000.0)), list[Ticket]()

    async def request() -> None:
        await trio.sleep(random.randrange(20))
        with trio.move_on_after(random.randrange(1, 30)):
            await servers.serve(Ticket(random.choice("abc"), random.choice("xy")), random.randrange(1, 4), done)

    async def watch() -> None:
        for _ in range(60):
            await trio.sleep(0.5)
            await trio.testing.wait_all_tasks_blocked()
            for model in servers.admission.statistics().queue.by_model:
                assert servers.free[model] == 0

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(request)
            nursery.start_soon(watch)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    assert servers.free == {"x": 2, "y": 1}
