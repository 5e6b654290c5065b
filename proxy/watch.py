"""What may end an exchange from outside: its client leaves, its time is up, the gateway stops; and the guard that notices.

Nearly every exchange is over before anything of that can matter, so a watch begins as a few plain attributes. The patrol
gives an exchange that has outlived one `TICK` a guard: a task that watches the client, minds the deadlines and keeps a
silent stream open. Until then no time limit is looked at, so none is shorter than a tick.
"""

from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import Protocol, Self

import trio
from quiver.schemas.errors import DEADLINE_EXCEEDED, ApiError

from .reply import DownstreamGone, Reply

TICK = 0.02

Expiry = Callable[[float], ApiError]


class Departure(Protocol):
    """A client that can be watched."""

    async def wait_departure(self) -> None:
        """Return once the client has left. What it sends meanwhile is kept for later."""
        ...


class Watch:
    """The end of one exchange, or of its present step. `cause`: why the whole exchange was ended, if it was."""

    # Most exchanges never change these: they stand here once instead of being set for each.
    cause: ApiError | DownstreamGone | None = None
    due = inf
    _expiry: tuple[Expiry, float] | None = None
    _late: ApiError | None = None
    _scope: trio.CancelScope | None = None
    _guard: trio.CancelScope | None = None
    _guarded: trio.Event | None = None
    _nap: trio.CancelScope | None = None

    def __init__(self, began: float, time: float) -> None:
        """`time`: seconds the exchange may take in all."""
        self.began, self.deadline, self._time = began, began + time, time

    def __repr__(self) -> str:
        return f"<Watch: {'ended' if self.cause else 'guarded' if self._guard else 'unguarded'}>"

    def __enter__(self) -> Self:
        """Begin a step. Leaving it raises `cause`, or the step's own expiry, when that is what cancelled it."""
        if self.cause is not None:
            raise self.cause
        self._scope = trio.CancelScope()
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        scope, late = self._scope, self._late
        assert scope is not None
        self._scope, self._late, self.due = None, None, inf
        swallowed = scope.__exit__(kind, error, trace)
        if scope.cancelled_caught:
            reason = self.cause or late
            if reason is not None:
                raise reason
        return swallowed

    @property
    def guarded(self) -> bool:
        """Whether a guard has taken up, or is still to leave."""
        return self._guarded is not None

    def expect(self, seconds: float, expiry: Expiry) -> None:
        """The present step has to come further within `seconds`; otherwise it ends with `expiry(seconds)`."""
        self.due = due = trio.current_time() + seconds
        self._expiry = (expiry, seconds)
        if self._nap is not None and due < self._nap.deadline:
            self._nap.deadline = due

    def came(self) -> None:
        """What was expected has come."""
        self.due = inf

    def end(self, cause: ApiError | DownstreamGone) -> None:
        """End the exchange: its present step and all later ones."""
        if self.cause is None:
            self.cause = cause
            if self._scope is not None:
                self._scope.cancel()

    def nudge(self) -> None:
        """Something may be due earlier than it was: look again."""
        if self._nap is not None:
            self._nap.cancel()

    def begin_guard(self, nursery: trio.Nursery, client: Departure, reply: Reply) -> None:
        """Watch from a task of its own until `close`: end the exchange when the client leaves or time is up, break a long
        silence.
        """
        self._guard, self._guarded = trio.CancelScope(), trio.Event()
        nursery.start_soon(self._run_guard, self._guard, self._guarded, client, reply)

    async def close(self) -> None:
        """The exchange is over: let go of the client, so that its session can read from it again."""
        if self._guard is not None:
            assert self._guarded is not None
            self._guard.cancel()
            with trio.CancelScope(shield=True):  # the guard has nothing to do but to leave
                await self._guarded.wait()

    async def _run_guard(self, scope: trio.CancelScope, left: trio.Event, client: Departure, reply: Reply) -> None:
        try:
            with scope:
                await self._watch(client, reply)
        finally:
            left.set()

    async def _watch(self, client: Departure, reply: Reply) -> None:
        while self.cause is None:
            with trio.CancelScope(deadline=min(self.due, self.deadline, reply.beat_due)) as self._nap:
                await client.wait_departure()
                self.end(DownstreamGone())
            self._nap = None
            now = trio.current_time()
            if now >= self.deadline:
                self.end(ApiError(DEADLINE_EXCEEDED, f"The request took longer than {self._time:g} s"))
            elif now >= self.due:
                self._expire()
            if now >= reply.beat_due and self.cause is None:
                try:
                    await reply.beat()
                except DownstreamGone as gone:
                    self.end(gone)

    def _expire(self) -> None:
        assert self._expiry is not None
        self.due = inf
        expiry, seconds = self._expiry
        if self._scope is not None:
            self._late = expiry(seconds)
            self._scope.cancel()
