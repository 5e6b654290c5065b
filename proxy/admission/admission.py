"""Admission: a request goes ahead at once while there is room, and otherwise waits for its turn.

A place is a resource that `choose` takes: usually a server with room for one more. Whoever frees one calls `leave`, and
whoever makes room otherwise (a server came, or recovered) `poke`; both hand out what is free before they return, in the order
of the fair queue. So when somebody new looks, nobody who waits could use what is free, and nobody is overtaken.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil
from typing import Generic, TypeVar

import msgspec
import trio

from ...schemas import config as configuration
from ...schemas import errors
from ...schemas.errors import ApiError
from .pace import Pace
from .queue import FairQueue, QueueStatistics
from .ticket import Ticket

R = TypeVar("R")

# Another process of the same service is usually up by then.
RESTART_SECONDS = 5
# Positions of a model are worked out at most once in so many seconds, however many clients are told theirs.
FRESH = 1.0
# Models whose figures are kept. Beyond it those are dropped for which nobody waits.
MODELS = 1024


class Place(msgspec.Struct, frozen=True):
    """Where a waiting request stands: from 1 among those that wait for its model, and for how many seconds more."""

    position: int
    estimated_wait: float


class Statistics(msgspec.Struct, frozen=True):
    """Present figures, and totals since the start: requests that had to wait, and what became of them."""

    in_flight: int
    queue: QueueStatistics
    queued: int
    granted: int
    full: int
    timed_out: int
    cancelled: int


class _Waiter(Generic[R]):
    """A ticket that waits. It ends with a resource or an error; `settled` is set then."""

    __slots__ = ("choose", "error", "resource", "settled")

    def __init__(self, choose: Callable[[], R | None]) -> None:
        self.choose = choose
        self.settled = trio.Event()
        self.resource: R | None = None
        self.error: ApiError | None = None


class _Standing:
    """The positions of those that wait for a model, as of `at`."""

    __slots__ = ("at", "positions")

    def __init__(self, at: float, positions: dict[Ticket, int]) -> None:
        self.at = at
        self.positions = positions


class Admission(Generic[R]):
    """Lets requests in, each with a resource of type `R`.

    Resource handling: what `try_enter` or `enter` returned is the caller's, who hands it back and then calls `leave`, once.
    `give_back` takes back a resource that was granted to a request cancelled in the same instant.
    """

    def __init__(self, config: configuration.Admission, give_back: Callable[[R], None]) -> None:
        self._config = config
        self._give_back = give_back
        self._room = config.max_in_flight
        self._in_flight = 0
        self._stopped = False
        self._queue = FairQueue(config.aging)
        self._waiters: dict[Ticket, _Waiter[R]] = {}
        self._paces: dict[str, Pace] = {}
        self._standings: dict[str, _Standing] = {}
        self._queued = 0
        self._granted = 0
        self._full = 0
        self._timed_out = 0
        self._cancelled = 0

    def configure(self, config: configuration.Admission) -> None:
        """From now on other sizes hold. Those that wait go on waiting, for as long as they were to."""
        self._config = config
        self._queue.configure(config.aging)
        if not self._stopped:
            self._room = config.max_in_flight
            self.poke()

    def has_room(self, model: str) -> bool:
        """Whether a request may go ahead at once. None overtakes one that waits for `model`."""
        return self._in_flight < self._room and model not in self._queue.backlog

    def entered(self) -> None:
        """A request goes ahead, with a resource that its owner has taken. Only where there is room."""
        self._in_flight += 1

    def try_enter(self, model: str, choose: Callable[[], R | None]) -> R | None:
        """What `choose` takes, or None if the request has to wait."""
        if not self.has_room(model):
            return None
        resource = choose()
        if resource is not None:
            self.entered()
        return resource

    async def enter(self, ticket: Ticket, choose: Callable[[], R | None]) -> R:
        """What `choose` takes, at once or when it is the ticket's turn.

        `choose` is called whenever there may be room. It returns what it has taken for this ticket, or None if the model is
        busy. An ApiError it raises ends the wait, and is raised here.

        Error handling: ApiError QUEUE_FULL at once, QUEUE_TIMEOUT after `max_wait` or at the ticket's deadline, SHUTTING_DOWN
        after `stop`.
        """
        resource = self.try_enter(ticket.model, choose)
        if resource is not None:
            return resource
        now = trio.current_time()
        if self._stopped:
            raise _shutting_down()
        if self._queue.waiting >= self._config.queue:
            self._full += 1
            raise self._queue_full(ticket.model, now)
        waiter = _Waiter(choose)
        self._put(ticket, waiter, now)
        try:
            with trio.move_on_at(min(ticket.deadline, now + self._config.max_wait)):
                await waiter.settled.wait()
        except BaseException:
            self._cancelled += 1
            self._withdraw(ticket, waiter)
            raise
        if waiter.resource is not None:
            return waiter.resource
        if waiter.error is not None:
            raise waiter.error
        self._timed_out += 1
        timeout = self._queue_timeout(ticket, now)
        self._withdraw(ticket, waiter)
        raise timeout

    def leave(self, ticket: Ticket, tokens: float) -> None:
        """A request that was let in is done, however it ended, and took `tokens` of prompt and reply: the next may enter."""
        self._in_flight -= 1
        if self._queue.quiet:
            return
        self._queue.served(ticket, tokens)
        if self._queue.waiting:
            now = trio.current_time()
            if ticket.model in self._queue.backlog:
                self._paces[ticket.model].departed(now)
            self._hand_out(now)

    def poke(self) -> None:
        """There may be room: a server came, or recovered, or takes more."""
        if self._queue.waiting:
            self._hand_out(trio.current_time())

    def stop(self) -> None:
        """Let nobody in any more, and send away all who wait. Those inside may finish, and still `leave`."""
        self._stopped = True
        self._room = 0
        now = trio.current_time()
        for ticket in list(self._waiters):
            self._refuse(ticket, _shutting_down(), now)

    def place(self, ticket: Ticket) -> Place:
        """Where a waiting ticket stands, as of a second ago at most; position 0 and no wait if it waits no longer."""
        if ticket not in self._waiters:
            return Place(0, 0.0)
        now = trio.current_time()
        position = self._position(ticket, now)
        return Place(position, self._estimated_wait(ticket.model, position, now))

    def statistics(self) -> Statistics:
        return Statistics(
            self._in_flight,
            self._queue.statistics(),
            self._queued,
            self._granted,
            self._full,
            self._timed_out,
            self._cancelled,
        )

    def __repr__(self) -> str:
        return f"Admission(in_flight={self._in_flight}, waiting={self._queue.waiting})"

    def _put(self, ticket: Ticket, waiter: _Waiter[R], now: float) -> None:
        backlog = self._queue.backlog
        if ticket.model not in backlog:
            if len(self._paces) >= MODELS:
                self._paces = {model: pace for model, pace in self._paces.items() if model in backlog}
                self._standings = {model: standing for model, standing in self._standings.items() if model in backlog}
            self._paces.setdefault(ticket.model, Pace()).begin(now)
            self._standings.pop(ticket.model, None)
        self._queue.put(ticket, now)
        self._waiters[ticket] = waiter
        self._queued += 1

    def _hand_out(self, now: float) -> None:
        turns = self._queue.turns(now)
        while turns and self._in_flight < self._room:
            ticket = heappop(turns).ticket
            # A model whose first in turn gets nothing is busy, and not asked again this time.
            if self._offer(ticket, now) and (turn := self._queue.next_turn(ticket.model, now)):
                heappush(turns, turn)

    def _offer(self, ticket: Ticket, now: float) -> bool:
        """Whether the ticket's wait has ended, with a resource or an error."""
        waiter = self._waiters[ticket]
        try:
            resource = waiter.choose()
        except ApiError as error:
            self._refuse(ticket, error, now)
            return True
        if resource is None:
            return False
        self._queue.grant(ticket, now)
        del self._waiters[ticket]
        self._in_flight += 1
        self._granted += 1
        waiter.resource = resource
        waiter.settled.set()
        return True

    def _refuse(self, ticket: Ticket, error: ApiError, now: float) -> None:
        self._queue.remove(ticket, now)
        waiter = self._waiters.pop(ticket)
        waiter.error = error
        waiter.settled.set()

    def _withdraw(self, ticket: Ticket, waiter: _Waiter[R]) -> None:
        """The ticket's owner waits no longer. Others may use what it was granted, or what it did not like."""
        if waiter.resource is not None:
            self._give_back(waiter.resource)
            self.leave(ticket, 0)
        elif self._waiters.pop(ticket, None) is not None:
            self._queue.remove(ticket, trio.current_time())
            self.poke()

    def _position(self, ticket: Ticket, now: float) -> int:
        standing = self._standings.get(ticket.model)
        if standing is None or now - standing.at >= FRESH or ticket not in standing.positions:
            standing = _Standing(now, self._queue.positions(ticket.model, now))
            self._standings[ticket.model] = standing
        return standing.positions[ticket]

    def _estimated_wait(self, model: str, position: int, now: float) -> float:
        """Seconds; never above `max_wait`, since by then everybody who waits now is gone."""
        pace = self._paces.get(model) or Pace()
        interval = pace.interval_by(now) if model in self._queue.backlog else pace.interval
        return min(position * interval, self._config.max_wait)

    def _queue_full(self, model: str, now: float) -> ApiError:
        waiting = self._queue.waiting
        wait = self._estimated_wait(model, self._queue.backlog.get(model, 0) + 1, now)
        return ApiError(
            errors.QUEUE_FULL,
            f"All servers that could answer are busy, and {waiting} requests wait already",
            retry_after=_whole(wait),
            extra=_headers(waiting, wait),
        )

    def _queue_timeout(self, ticket: Ticket, since: float) -> ApiError:
        place, waited = self.place(ticket), trio.current_time() - since
        message = (
            f"No server that could answer became free within {waited:.0f} s; {place.position - 1} requests were ahead"
        )
        return ApiError(
            errors.QUEUE_TIMEOUT,
            message,
            retry_after=_whole(place.estimated_wait),
            extra=[
                *_headers(self._queue.waiting, place.estimated_wait),
                (b"x-queue-position", b"%d" % place.position),
            ],
        )


def _shutting_down() -> ApiError:
    return ApiError(errors.SHUTTING_DOWN, "The gateway is shutting down", retry_after=RESTART_SECONDS)


def _headers(waiting: int, wait: float) -> list[tuple[bytes, bytes]]:
    return [(b"x-queue-length", b"%d" % waiting), (b"x-queue-estimated-wait", b"%d" % _whole(wait))]


def _whole(seconds: float) -> int:
    return max(1, ceil(seconds))
