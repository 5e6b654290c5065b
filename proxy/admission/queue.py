"""The fair queue: the order in which waiting requests go ahead. Pure: it waits for nothing, and is told the time.

A model and a priority have a band of their own, in which clients share by tokens (`band`). Between bands the rung counts,
and on the same rung who has been first in line for longer. So a more urgent request goes first, but each `aging` seconds lift
a waiting one by one priority, and no priority is ever starved.
"""

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush

import msgspec

from ...schemas.config import Priority
from .band import Band, Line, Turn
from .ticket import LEVELS, PRIORITIES, Ticket


class QueueStatistics(msgspec.Struct, frozen=True):
    """How many wait: in all, by priority as asked for, and by model; and how many clients are remembered."""

    waiting: int
    by_priority: dict[Priority, int]
    by_model: dict[str, int]
    clients: int


class FairQueue:
    """`waiting` is how many wait, `backlog` how many of them for each model (only models for which somebody does)."""

    __slots__ = ("_aging", "_arrivals", "_bands", "backlog", "waiting")

    def __init__(self, aging: float) -> None:
        self._aging = aging
        self._arrivals = 0
        self._bands: dict[str, dict[int, Band]] = {}
        self.backlog: dict[str, int] = {}
        self.waiting = 0

    @property
    def quiet(self) -> bool:
        """Whether nobody waits and nobody who waited is being served: there is nothing to settle."""
        return not self._bands

    def put(self, ticket: Ticket, now: float) -> None:
        """`ticket` waits from `now` on. It must not be waiting already."""
        self._arrivals += 1
        ticket.arrival = self._arrivals
        bands = self._bands.setdefault(ticket.model, {})
        level = LEVELS[ticket.priority]
        if level not in bands:
            bands[level] = Band(level, self._aging)
        bands[level].put(ticket, now)
        self.waiting += 1
        self.backlog[ticket.model] = self.backlog.get(ticket.model, 0) + 1

    def remove(self, ticket: Ticket, now: float) -> None:
        """`ticket` gives up. Raises KeyError if it does not wait."""
        self._band(ticket).remove(ticket, now)
        self._one_fewer(ticket.model)
        ticket.arrival = 0
        self._close(ticket)

    def grant(self, ticket: Ticket, now: float) -> None:
        """`ticket`, first in its line, goes ahead; its client is charged its `cost` until `served` tells the truth."""
        self._band(ticket).grant(ticket, now)
        self._one_fewer(ticket.model)

    def served(self, ticket: Ticket, tokens: float) -> None:
        """`ticket` is done and took `tokens`. Also for one that never waited: it counts if others did meanwhile."""
        if ticket.arrival:
            self._band(ticket).settle(ticket, tokens)
            ticket.arrival = 0
            self._close(ticket)
            return
        band = self._bands.get(ticket.model, {}).get(LEVELS[ticket.priority])
        if band is not None:
            band.charge(ticket.client, tokens)

    def next_turn(self, model: str, now: float) -> Turn | None:
        """The one whose turn it is among those that wait for `model`; None if nobody does."""
        turns = [turn for band in self._bands.get(model, {}).values() if (turn := band.next_turn(now))]
        return min(turns, default=None)

    def turns(self, now: float) -> list[Turn]:
        """For each model the one whose turn it is, as a heap: the most urgent first."""
        turns = [turn for model in self.backlog if (turn := self.next_turn(model, now))]
        heapify(turns)
        return turns

    def in_order(self, now: float) -> Iterator[Ticket]:
        """All waiting tickets in the order in which they would go ahead, if nobody else came and all estimates were right."""
        return _forecast((band for bands in self._bands.values() for band in bands.values()), now)

    def position(self, ticket: Ticket, now: float) -> int:
        """From 1, among those that wait for the same model; 0 if `ticket` does not wait."""
        forecast = _forecast(self._bands.get(ticket.model, {}).values(), now)
        return next((position for position, other in enumerate(forecast, start=1) if other is ticket), 0)

    def statistics(self) -> QueueStatistics:
        by_priority = dict.fromkeys(PRIORITIES, 0)
        clients = 0
        for bands in self._bands.values():
            for level, band in bands.items():
                by_priority[PRIORITIES[level]] += band.waiting
                clients += band.clients
        return QueueStatistics(self.waiting, by_priority, dict(self.backlog), clients)

    def __repr__(self) -> str:
        return f"FairQueue(waiting={self.waiting}, models={len(self.backlog)})"

    def _band(self, ticket: Ticket) -> Band:
        return self._bands[ticket.model][LEVELS[ticket.priority]]

    def _one_fewer(self, model: str) -> None:
        self.waiting -= 1
        self.backlog[model] -= 1
        if not self.backlog[model]:
            del self.backlog[model]

    def _close(self, ticket: Ticket) -> None:
        """Drop the ticket's band, and the debts in it, once nobody waits in it and nobody it granted is being served."""
        bands = self._bands[ticket.model]
        level = LEVELS[ticket.priority]
        if not bands[level].waiting and not bands[level].out:
            del bands[level]
            if not bands:
                del self._bands[ticket.model]


class _Walk:
    """One line on its way through a forecast."""

    __slots__ = ("_coming", "_line", "turn", "virtual_time")

    def __init__(self, line: Line) -> None:
        self._line = line
        self._coming = iter(line.tickets)
        self.virtual_time = line.virtual_time
        self.turn = Turn(line.rung, line.since, next(self._coming))

    def step(self, level: int, now: float) -> bool:
        """Go on to the next ticket of the line; False if there is none."""
        ticket = next(self._coming, None)
        if ticket is None:
            return False
        self.virtual_time += self.turn.ticket.cost
        self.turn = Turn(level, now, ticket)
        return True

    def __lt__(self, other: "_Walk") -> bool:
        return (self.virtual_time, self.turn.arrival) < (other.virtual_time, other.turn.arrival)


def _forecast(bands: Iterable[Band], now: float) -> Iterator[Ticket]:
    # One heap for each rung of each band, as in the bands themselves, on which the future is played.
    shelves: list[tuple[int, list[list[_Walk]]]] = []
    for band in bands:
        rungs: list[list[_Walk]] = [[] for _ in range(band.level + 1)]
        for line in band.lines(now):
            heappush(rungs[line.rung], _Walk(line))
        shelves.append((band.level, rungs))
    while True:
        firsts = [(next(rung for rung in rungs if rung), level, rungs) for level, rungs in shelves if any(rungs)]
        if not firsts:
            return
        rung, level, rungs = min(firsts, key=lambda first: first[0][0].turn)
        walk = heappop(rung)
        yield walk.turn.ticket
        if walk.step(level, now):
            heappush(rungs[level], walk)
