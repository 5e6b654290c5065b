"""The fair queue: the order in which waiting requests go ahead. Pure: it waits for nothing, and is told the time.

A model and a priority have a band of their own, in which clients share by tokens (`band`). Between bands the rung counts,
and on the same rung who has been first in line for longer. So a more urgent request goes first, but each `aging` seconds lift
a waiting one by one priority, and no priority is ever starved.
"""

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush

import msgspec

from ...schemas.config import Priority
from .band import Band, Turn
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

    def configure(self, aging: float) -> None:
        """How fast bands age that begin from now on."""
        self._aging = aging

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

    def positions(self, model: str, now: float) -> dict[Ticket, int]:
        """From 1, of those that wait for `model`. O(n log n) in their number."""
        forecast = _forecast(self._bands.get(model, {}).values(), now)
        return {ticket: position for position, ticket in enumerate(forecast, start=1)}

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
    """One line on its way through a forecast: what is still to come of it, and where it goes on."""

    __slots__ = ("base", "coming", "level")

    def __init__(self, coming: Iterator[Ticket], level: int, base: "_Shelf") -> None:
        self.coming = coming
        self.level = level
        self.base = base


# One rung of one band in a forecast, a heap: (virtual time, arrival, turn, walk).
_Shelf = list[tuple[float, int, Turn, _Walk]]


def _forecast(bands: Iterable[Band], now: float) -> Iterator[Ticket]:
    shelves: list[_Shelf] = []
    for band in bands:
        shelves.extend(_shelves(band, now))
    shelves = [shelf for shelf in shelves if shelf]
    while shelves:
        shelf = min(shelves, key=lambda shelf: shelf[0][2]) if len(shelves) > 1 else shelves[0]
        virtual_time, _, turn, walk = heappop(shelf)
        yield turn.ticket
        follower = next(walk.coming, None)
        if follower is not None:
            if not walk.base and walk.base is not shelf:
                shelves.append(walk.base)
            then = virtual_time + turn.ticket.cost
            heappush(walk.base, (then, follower.arrival, Turn(walk.level, now, follower), walk))
        if not shelf:
            shelves = [other for other in shelves if other is not shelf]


def _shelves(band: Band, now: float) -> list[_Shelf]:
    shelves: list[_Shelf] = [[] for _ in range(band.level + 1)]
    for line in band.lines(now):
        coming = iter(line.tickets)
        turn = Turn(line.rung, line.since, next(coming))
        walk = _Walk(coming, band.level, shelves[band.level])
        heappush(shelves[line.rung], (line.virtual_time, turn.arrival, turn, walk))
    return shelves
