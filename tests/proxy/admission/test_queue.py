"""The order of the queue, on plain numbers: priorities, aging, fair shares, forecasts, and what is remembered."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quiver.proxy.admission.band import REMEMBERED, SLACK, Band
from quiver.proxy.admission.queue import FairQueue
from quiver.proxy.admission.ticket import PRIORITIES, Ticket
from quiver.schemas.config import Priority

AGING = 15.0


def grant_next(queue: FairQueue, now: float) -> Ticket:
    """What admission does when one place is free and no model is busy."""
    ticket = queue.turns(now)[0].ticket
    queue.grant(ticket, now)
    return ticket


def drain(queue: FairQueue, now: float) -> list[Ticket]:
    order = []
    while queue.waiting:
        order.append(grant_next(queue, now))
    return order


def filled(*tickets: Ticket, now: float = 0.0) -> FairQueue:
    queue = FairQueue(AGING)
    for ticket in tickets:
        queue.put(ticket, now)
    return queue


def test_urgent_ones_go_first() -> None:
    tickets = [Ticket(f"client-{priority}", "m", priority) for priority in reversed(PRIORITIES)]
    assert drain(filled(*tickets), 0.0) == tickets[::-1]


def test_one_client_is_fifo() -> None:
    tickets = [Ticket("a", "m", cost=cost) for cost in (500, 1, 300, 0, 20)]
    assert drain(filled(*tickets), 0.0) == tickets


def test_two_clients_alternate() -> None:
    flood = [Ticket("a", "m", cost=10) for _ in range(3)]
    late = [Ticket("b", "m", cost=10) for _ in range(3)]
    order = drain(filled(*flood, *late), 0.0)
    assert [ticket.client for ticket in order] == ["a", "b", "a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("waited", "first"),
    [(0.0, "high"), (14.9, "high"), (15.0, "normal"), (40.0, "normal")],
)
def test_waiting_lifts_one_priority(waited: float, first: str) -> None:
    queue = filled(Ticket("normal", "m", "normal"))
    queue.put(Ticket("high", "m", "high"), waited)
    assert grant_next(queue, waited).client == first


@pytest.mark.parametrize(
    ("waited", "ahead"),
    [
        (0.0, {"critical", "high", "normal"}),
        (15.0, {"critical", "high"}),
        (30.0, {"critical"}),
        (44.9, {"critical"}),
        (45.0, set()),
        (900.0, set()),
    ],
)
def test_low_rises_to_critical(waited: float, ahead: set[str]) -> None:
    low = Ticket("low", "m", "low")
    queue = filled(low)
    others: tuple[Priority, ...] = ("critical", "high", "normal")
    for priority in others:
        queue.put(Ticket(priority, "m", priority), waited)
    order = drain(queue, waited)
    assert {ticket.client for ticket in order[: order.index(low)]} == ahead


def test_flood_does_not_age() -> None:
    """Requests behind others of the same client wait for that client: they gain no priority over one who comes later."""
    queue = filled(*(Ticket("flood", "m", cost=100) for _ in range(50)))
    assert grant_next(queue, 40.0).client == "flood"
    queue.put(Ticket("late", "m", cost=100), 40.0)
    assert [grant_next(queue, 40.0).client for _ in range(3)] == ["late", "flood", "flood"]


def test_no_starvation_under_flood() -> None:
    """One place a second, two new high requests a second: a low one is still served after two agings and a little."""
    queue = filled(Ticket("low", "m", "low"))
    for second in range(60):
        for client in ("a", "b"):
            queue.put(Ticket(client, "m", "high", cost=10), float(second))
        ticket = grant_next(queue, float(second))
        queue.served(ticket, 10)
        if ticket.client == "low":
            assert second == 2 * AGING
            return
    pytest.fail("the low request was never served")


def shares_after(grants: int, estimate: float) -> tuple[float, float]:
    """Four places and two clients that always have requests waiting; a's replies are ten times as long as b's.

    Returns the tokens each of the two was served.
    """
    random, queue, now = Random(7), FairQueue(AGING), 0.0
    mean = {"a": 2000, "b": 200}
    served = dict.fromkeys(mean, 0.0)
    inside: list[Ticket] = []
    for _ in range(8):
        for client in mean:
            queue.put(Ticket(client, "m", cost=estimate), now)
    for _ in range(grants):
        now += 0.05
        if len(inside) == 4:
            done = inside.pop(random.randrange(4))
            tokens = random.uniform(0.5, 1.5) * mean[done.client]
            queue.served(done, tokens)
            served[done.client] += tokens
            queue.put(Ticket(done.client, "m", cost=estimate), now)
        inside.append(grant_next(queue, now))
    return served["a"], served["b"]


@pytest.mark.parametrize("estimate", [0, 1, 500, 5000])
def test_tokens_are_shared_evenly(estimate: float) -> None:
    a, b = shares_after(6000, estimate)
    assert a / b == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("grants", [600, 6000, 24_000])
def test_wild_estimates_cost_little(grants: int) -> None:
    """Estimates 250 times too high: the gap stays below what four places reserve, however long it goes on."""
    a, b = shares_after(grants, 50_000)
    assert abs(a - b) < 4 * 50_000


def test_newcomer_starts_at_present() -> None:
    """A newcomer owes nothing, and is owed nothing for the time before it came."""
    queue = filled(*(Ticket("old", "m", cost=100) for _ in range(60)))
    for _ in range(50):
        queue.served(grant_next(queue, 0.0), 100)
    for _ in range(10):
        queue.put(Ticket("new", "m", cost=100), 0.0)
    assert [ticket.client for ticket in drain(queue, 0.0)][:10].count("new") in (5, 6)


def test_idleness_earns_no_credit() -> None:
    """A client that has one long request inside and asks for nothing more is owed nothing when it asks again."""
    queue = filled(Ticket("b", "m", cost=100), *(Ticket("a", "m", cost=100) for _ in range(50)))
    assert grant_next(queue, 0.0).client == "b"
    for _ in range(20):
        queue.served(grant_next(queue, 0.0), 100)
    for _ in range(10):
        queue.put(Ticket("b", "m", cost=100), 0.0)
    assert [grant_next(queue, 0.0).client for _ in range(10)].count("b") in (4, 5)


def test_settling_moves_those_who_wait() -> None:
    queue = filled(*(Ticket(client, "m", cost=10) for client in "aabbb"))
    first, second = grant_next(queue, 0.0), grant_next(queue, 0.0)
    assert (first.client, second.client) == ("a", "b")
    queue.served(first, 1000)
    assert [ticket.client for ticket in drain(queue, 0.0)] == ["b", "b", "a"]


def test_longer_first_wins_between_bands() -> None:
    """What counts on the same rung is how long a request has been first in its line, not when it came."""
    queue = filled(Ticket("a", "m", "high"), Ticket("a", "m", "high"), Ticket("b", "m", "normal"))
    assert grant_next(queue, 14.0).client == "a"
    assert grant_next(queue, 16.0).client == "b"


def test_wrong_estimates_harm_no_newcomer() -> None:
    """A client alone reserves far more than it takes: who comes then does not stand behind for the difference."""
    queue = filled(*(Ticket("old", "m", cost=10_000) for _ in range(40)))
    inside = [grant_next(queue, 0.0) for _ in range(8)]
    for _ in inside:
        queue.put(Ticket("old", "m", cost=10_000), 0.0)
    queue.put(Ticket("new", "m", cost=10_000), 0.0)
    for ticket in inside:
        queue.served(ticket, 10)
    assert "new" in [grant_next(queue, 0.0).client for _ in range(2)]


def test_served_meanwhile_is_charged() -> None:
    """A request that never waited counts against its client if others wait when it is done."""
    queue = filled(Ticket("b", "m", cost=10), Ticket("b", "m", cost=10))
    queue.served(Ticket("a", "m"), 15)
    queue.put(Ticket("a", "m", cost=10), 0.0)
    assert [ticket.client for ticket in drain(queue, 0.0)] == ["b", "b", "a"]


def test_turns_name_each_model() -> None:
    x, y, late = Ticket("a", "x"), Ticket("b", "y", "high"), Ticket("c", "x")
    queue = filled(x, y, late)
    assert [turn.ticket for turn in sorted(queue.turns(0.0))] == [y, x]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_removed_leaves_no_gap(index: int) -> None:
    tickets = [Ticket("a", "m", cost=cost) for cost in (1, 2, 3)]
    queue = filled(*tickets)
    queue.remove(tickets.pop(index), 1.0)
    assert drain(queue, 1.0) == tickets


def test_remove_wants_a_waiting_one() -> None:
    ticket = Ticket("a", "m")
    queue = filled(ticket, Ticket("b", "m"))
    queue.remove(ticket, 0.0)
    with pytest.raises(KeyError):
        queue.remove(ticket, 0.0)
    assert ticket not in queue.positions("m", 0.0)


def test_positions_count_own_model() -> None:
    first, other, third, second = tickets = [
        Ticket(client, model, cost=5) for client, model in ("ax", "by", "ax", "cx")
    ]
    queue = filled(*tickets)
    assert queue.positions("x", 0.0) == {first: 1, second: 2, third: 3}
    assert queue.positions("y", 0.0) == {other: 1}
    assert queue.positions("z", 0.0) == {}


COMERS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("xy"), st.sampled_from(PRIORITIES), st.integers(0, 100)),
    max_size=30,
)


@given(COMERS, st.floats(0, 60))
def test_forecast_comes_true(comers: list[tuple[str, str, Priority, int]], now: float) -> None:
    queue = FairQueue(AGING)
    for client, model, priority, cost in comers:
        queue.put(Ticket(client, model, priority, cost), 0.0)
    forecast = list(queue.in_order(now))
    assert forecast == drain(queue, now)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "grant", "grant", "served", "remove", "wait"]),
        st.integers(0, 10_000),
        st.sampled_from(PRIORITIES),
    ),
    max_size=120,
)


@given(STEPS)
@settings(deadline=None)
def test_every_ticket_leaves_once(steps: list[tuple[str, int, Priority]]) -> None:
    """Over any interleaving: the figures are right, each client's line is in order, and in the end nothing is remembered."""
    queue, now = FairQueue(AGING), 0.0
    waiting: list[Ticket] = []
    inside: list[Ticket] = []
    for action, number, priority in steps:
        if action == "put":
            ticket = Ticket("abc"[number % 3], "xy"[number % 2], priority, number)
            queue.put(ticket, now)
            waiting.append(ticket)
        elif action == "grant" and waiting:
            ticket = grant_next(queue, now)
            key = (ticket.client, ticket.model, ticket.priority)
            assert ticket is next(other for other in waiting if (other.client, other.model, other.priority) == key)
            waiting.remove(ticket)
            inside.append(ticket)
        elif action == "served" and inside:
            queue.served(inside.pop(number % len(inside)), number)
        elif action == "remove" and waiting:
            queue.remove(waiting.pop(number % len(waiting)), now)
        elif action == "wait":
            now += number / 200
        assert queue.statistics().waiting == len(waiting) == sum(queue.statistics().by_priority.values())
        assert sum(queue.backlog.values()) == len(waiting)
    for ticket in inside:
        queue.served(ticket, 1)
    assert len(drain(queue, now)) == len(waiting)
    for ticket in waiting:
        queue.served(ticket, 1)
    assert queue.quiet
    assert queue.statistics().clients == 0


def test_statistics_count_each_priority() -> None:
    queue = filled(Ticket("a", "x", "low"), Ticket("b", "x", "low"), Ticket("a", "y", "critical"))
    statistics = queue.statistics()
    assert statistics.by_priority == {"critical": 1, "high": 0, "normal": 0, "low": 2}
    assert statistics.by_model == {"x": 2, "y": 1}
    assert repr(queue) == "FairQueue(waiting=3, models=2)"


def test_paid_up_clients_are_forgotten() -> None:
    """Somebody always waits; clients that came once are forgotten when the others have been served as much."""
    band = Band(0, AGING)
    for number in range(200):
        regular, once = (
            Ticket("regular", "m", cost=10, arrival=2 * number + 1),
            Ticket(f"client-{number}", "m", cost=10, arrival=2 * number + 2),
        )
        for ticket in (regular, once):
            band.put(ticket, 0.0)
        for ticket in (regular, once):
            band.grant(ticket, 0.0)
            band.settle(ticket, 10)
        assert band.clients <= 4


def test_memory_of_debts_is_bounded() -> None:
    """The clock stands still as long as only newcomers are served; even then not every one is remembered."""
    band = Band(0, AGING)
    for number in range(REMEMBERED + 500):
        ticket = Ticket(f"client-{number}", "m", cost=10, arrival=number + 1)
        band.put(ticket, 0.0)
        band.grant(ticket, 0.0)
        band.settle(ticket, 10)
    assert band.clients == REMEMBERED


def test_given_up_tickets_leave_no_entries() -> None:
    """Nobody is ever granted, thousands come and give up: what they leave in the heap is cleaned."""
    band = Band(0, AGING)
    band.put(Ticket("patient", "m", arrival=1), 0.0)
    for number in range(2, 5000):
        ticket = Ticket("hasty", "m", cost=1, arrival=number)
        band.put(ticket, 0.0)
        band.remove(ticket, 0.0)
    assert band.clients == 1
    assert len(band._rungs[0]) <= 2 * 2 + SLACK + 1
    assert repr(band) == "Band(level=0, waiting=1, out=0, clients=1)"
