"""What may end an exchange from outside: its client leaves, its time is up, the gateway stops; and the guard that notices.

Nearly every exchange is over before anything of that can matter, so a watch begins as a few plain attributes. The patrol
gives an exchange that has outlived one `TICK` a guard: a task that watches the client, minds the deadlines and keeps a
silent stream open. Until then no time limit is looked at, so none is shorter than a tick.
"""

from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import Protocol, Self

import structlog
import trio
from quiver.schemas.errors import DEADLINE_EXCEEDED, INTERNAL_ERROR, ApiError

from .reply import DownstreamGone, Reply

TICK = 0.02

Expiry = Callable[[float], ApiError]


class Departure(Protocol):
    """A client that can be watched."""

    async def wait_departure(self) -> None:
        """Return once the client has left. What it sends meanwhile is kept for later."""
        ...


class Watch:
    """The end of one exchange, or of its present step. `cause`: why the whole exchange was ended, if it was; `left_at`: when
    its client was seen to have left, on Trio's clock.
    """

    # Most exchanges never change these: they stand here once instead of being set for each.
    cause: ApiError | DownstreamGone | None = None
    left_at: float | None = None
    due = inf
    _close: Callable[[], None] | None = None
    _depth = 0
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
        """Begin a step. Leaving it raises `cause`, or the step's own expiry, when that is what cancelled it. A step within a
        step is a part of it.
        """
        self.check()
        if self._scope is not None:
            self._depth += 1
            return self
        self._scope = trio.CancelScope()
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self._depth:
            self._depth -= 1
            return None
        scope = self._scope
        assert scope is not None
        self._scope, self.due = None, inf
        swallowed = scope.__exit__(kind, error, trace)
        reason = self.take_reason()
        if scope.cancelled_caught and reason is not None:
            raise reason
        return swallowed

    def check(self) -> None:
        """Raises `cause`, if there is one."""
        if self.cause is not None:
            raise self.cause

    def waits_for(self, close: Callable[[], None] | None) -> None:
        """From now on the exchange waits for a connection that `close` closes, and for nothing else. Outside of a step that is
        what ends it; a cancel scope, which takes longer than all that is left to do, is not needed then. Whoever meets the
        closed connection raises `take_reason`.
        """
        self._close, self._late, self.due = close, None, inf

    def take_reason(self) -> ApiError | DownstreamGone | None:
        """Why the present step was ended; once, unless that ended the whole exchange."""
        late, self._late = self._late, None
        return self.cause or late

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
            if isinstance(cause, DownstreamGone):
                self.left_at = trio.current_time()
            self._interrupt()

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
        except Exception:  # a fault of ours costs its exchange, not the gateway
            structlog.get_logger(component="watch").exception("guard broke", request_id=reply.request_id)
            self.end(ApiError(INTERNAL_ERROR, f"Internal error; the log has it under `{reply.request_id}`"))
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
        self._late = expiry(seconds)
        self._interrupt()

    def _interrupt(self) -> None:
        if self._scope is not None:
            self._scope.cancel()
        elif self._close is not None:
            self._close()
