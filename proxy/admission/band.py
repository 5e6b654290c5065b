"""The band: the requests that wait for one model at one priority, shared fairly between clients. Pure: time is passed in.

Each client has a line, first come first served. Whose line is next is decided by start-time fair queueing on tokens
(Goyal, Vin and Cheng 1996; for language models Sheng et al. 2024, "Fairness in Serving Large Language Models"): a line's
virtual time is what the client was served, plus the estimates of what it is being served now, and the line with the least
goes first. Only what was really served moves the band's clock, at which newcomers start: estimates may be far off, and a
newcomer must not start behind by that error.

The first of a line climbs one rung after each `aging` seconds. Those behind it do not age: they wait for their own client,
and one that sends a thousand requests at once must not have nine hundred urgent ones a minute later.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from .ticket import Ticket

# Clients at rest whose debt is remembered. Beyond it the smallest debt is forgiven, so that memory stays bounded.
REMEMBERED = 4096
# A heap may hold this many outdated entries beside as many as there are lines; then it is cleaned.
SLACK = 16


class Line:
    """One client's requests in a band."""

    __slots__ = ("client", "noted", "out", "reserved", "rung", "served", "since", "stamp", "tickets")

    def __init__(self, client: str, served: float) -> None:
        self.client = client
        self.tickets: OrderedDict[Ticket, None] = OrderedDict()
        self.served = served
        self.reserved = 0.0
        self.out = 0
        self.rung = 0
        self.since = 0.0
        self.stamp = 0
        self.noted = False

    @property
    def first(self) -> Ticket:
        return next(iter(self.tickets))

    @property
    def virtual_time(self) -> float:
        return self.served + self.reserved

    @property
    def resting(self) -> bool:
        return not self.tickets and not self.out

    def __repr__(self) -> str:
        return f"Line({self.client}, waiting={len(self.tickets)}, served={self.served:g}, reserved={self.reserved:g})"


class Turn:
    """A ticket that is first in its line, and what it is compared by with those of other bands: rung, then who waits longer."""

    __slots__ = ("arrival", "rung", "since", "ticket")

    def __init__(self, rung: int, since: float, ticket: Ticket) -> None:
        self.rung = rung
        self.since = since
        self.arrival = ticket.arrival
        self.ticket = ticket

    def __lt__(self, other: "Turn") -> bool:
        return (self.rung, self.since, self.arrival) < (other.rung, other.since, other.arrival)


class Band:
    """Putting, taking and settling are O(log n) in the number of clients."""

    __slots__ = ("_aging", "_climbing", "_lines", "_rested", "_rungs", "_stamp", "clock", "level", "out", "waiting")

    def __init__(self, level: int, aging: float) -> None:
        self.level = level
        self.clock = 0.0
        self.waiting = 0
        self.out = 0
        self._aging = aging
        self._stamp = 0
        self._lines: dict[str, Line] = {}
        # A heap for each rung, 0 the most urgent: (virtual time, arrival, stamp, line); outdated if the line's stamp differs.
        self._rungs: list[list[tuple[float, int, int, Line]]] = [[] for _ in range(level + 1)]
        # Who climbs off each rung, and when. Firsts come in order of time, so each of these is in order too.
        self._climbing: list[deque[tuple[float, int, Line]]] = [deque() for _ in range(level + 1)]
        # A heap of lines at rest with a debt: (served, stamp, line).
        self._rested: list[tuple[float, int, Line]] = []

    def put(self, ticket: Ticket, now: float) -> None:
        line = self._line(ticket.client)
        self.waiting += 1
        if line.tickets:
            line.tickets[ticket] = None
            return
        line.served = max(line.served, self.clock)
        line.tickets[ticket] = None
        self._lead(line, now)

    def remove(self, ticket: Ticket, now: float) -> None:
        """Take out a waiting ticket that was not granted."""
        line = self._lines[ticket.client]
        self._take_out(line, ticket, now)
        if line.resting:
            self._rest(line)

    def grant(self, ticket: Ticket, now: float) -> None:
        """Take out the first ticket of a line, which goes ahead, and charge its estimate until `settle`."""
        line = self._lines[ticket.client]
        self.clock = max(self.clock, line.served)
        line.reserved += ticket.cost
        line.out += 1
        self.out += 1
        self._take_out(line, ticket, now)
        while self._rested and self._rested[0][0] <= self.clock:
            self._recall()

    def settle(self, ticket: Ticket, tokens: float) -> None:
        """Charge what a granted ticket was really served, in place of its estimate."""
        line = self._lines[ticket.client]
        line.out -= 1
        self.out -= 1
        line.reserved = line.reserved - ticket.cost if line.out else 0.0
        self._charge(line, tokens)

    def charge(self, client: str, tokens: float) -> None:
        """Charge a request that never waited, but was served while others did."""
        self._charge(self._line(client), tokens)

    def next_turn(self, now: float) -> Turn | None:
        """Whose turn it is, None if nobody waits."""
        self._climb(now)
        for rung, heap in enumerate(self._rungs):
            while heap and heap[0][3].stamp != heap[0][2]:
                heappop(heap)
            if heap:
                line = heap[0][3]
                return Turn(rung, line.since, line.first)
        return None

    def lines(self, now: float) -> Iterator[Line]:
        """The lines in which somebody waits, each on the rung it is on at `now`."""
        self._climb(now)
        return (line for line in self._lines.values() if line.tickets)

    @property
    def clients(self) -> int:
        """Clients remembered: those that wait or are served, and those at rest that were served more than their share."""
        return len(self._lines)

    def __repr__(self) -> str:
        return f"Band(level={self.level}, waiting={self.waiting}, out={self.out}, clients={self.clients})"

    def _line(self, client: str) -> Line:
        line = self._lines.get(client)
        if line is None:
            line = self._lines[client] = Line(client, self.clock)
        return line

    def _charge(self, line: Line, tokens: float) -> None:
        line.served += tokens
        if line.tickets:
            self._place(line)
        elif not line.out:
            self._rest(line)

    def _take_out(self, line: Line, ticket: Ticket, now: float) -> None:
        was_first = line.first is ticket
        del line.tickets[ticket]
        self.waiting -= 1
        if not line.tickets:
            line.stamp = 0
        elif was_first:
            self._lead(line, now)

    def _lead(self, line: Line, now: float) -> None:
        """Somebody has become first in `line`."""
        line.rung = self.level
        line.since = now
        self._await_climb(line, now + self._aging)
        self._place(line)

    def _await_climb(self, line: Line, due: float) -> None:
        if line.rung:
            self._climbing[line.rung].append((due, line.first.arrival, line))

    def _climb(self, now: float) -> None:
        for rung in range(self.level, 0, -1):
            climbing = self._climbing[rung]
            while climbing and climbing[0][0] <= now:
                due, arrival, line = climbing.popleft()
                if line.tickets and line.first.arrival == arrival:
                    line.rung = rung - 1
                    self._await_climb(line, due + self._aging)
                    self._place(line)

    def _place(self, line: Line) -> None:
        heap = self._rungs[line.rung]
        if len(heap) > 2 * len(self._lines) + SLACK:
            heap[:] = [entry for entry in heap if entry[3].stamp == entry[2]]
            heapify(heap)
        line.stamp = self._next_stamp()
        heappush(heap, (line.virtual_time, line.first.arrival, line.stamp, line))

    def _rest(self, line: Line) -> None:
        """Nobody waits in `line` and nobody is being served: it is forgotten unless it was served more than its share."""
        if line.served <= self.clock:
            self._forget(line)
        elif not line.noted:
            line.noted = True
            heappush(self._rested, (line.served, self._next_stamp(), line))
            if len(self._rested) > REMEMBERED:
                self._forgive()

    def _recall(self) -> None:
        line = heappop(self._rested)[2]
        line.noted = False
        if line.resting:
            self._rest(line)

    def _forgive(self) -> None:
        line = heappop(self._rested)[2]
        line.noted = False
        if line.resting:
            self._forget(line)

    def _forget(self, line: Line) -> None:
        # A line may be noted, work, rest and be forgotten, and its client have a new line by the time the note is read.
        if self._lines.get(line.client) is line:
            del self._lines[line.client]

    def _next_stamp(self) -> int:
        self._stamp += 1
        return self._stamp
