"""How the gateway gives way: readiness turns 503 while work is still accepted, accepting stops, queued requests are turned
away, exchanges run to the drain timeout, open streams end with an error event; then the scopes close.

A second signal skips the waiting. However it goes, `drain.total` bounds the whole: clients are told in time before it is
over, and what then still runs is cancelled.
"""

import signal
from collections.abc import AsyncIterator, Callable

import structlog
import trio
from quiver.schemas.config import Drain

from .admission.admission import Admission
from .exchange import ExchangeHandler
from .handover import HypercornControl
from .listener import SWEEP, Listener
from .registry import Backend
from .session import LAST_CALL
from .tunnel.joins import Joins

# What cancelled work may take to close its sockets once everything was told to stop.
CLOSE_TIMEOUT = 2.0
# What everything may take that comes after the connections, when there is no more time than that.
HURRY = 3.0
# What idle connections get, once all work is done: a last request may be on its way.
FAREWELL = LAST_CALL + 2 * SWEEP


class Shutdown:
    """One gateway's end. `scope` holds the whole gateway; `began` is when the first signal came, on Trio's clock, None
    before. `stopping` is told then how many seconds it may take, and again when somebody is in a hurry.
    """

    def __init__(self, config: Drain, stopping: Callable[[float], None]) -> None:
        self._config, self._stopping = config, stopping
        self.scope, self._waiting = trio.CancelScope(), trio.CancelScope()
        self.began: float | None = None
        self._asked = trio.Event()
        self._signal = signal.SIGTERM
        self._failed = False
        self._log = structlog.get_logger(component="server")

    def __repr__(self) -> str:
        return f"<Shutdown{'' if self.began is None else f' by {self._signal.name}'}>"

    def configure(self, config: Drain) -> None:
        """Other times, unless it has begun."""
        if self.began is None:
            self._config = config

    async def listen(self, signals: AsyncIterator[int]) -> None:
        """Mind `signals`: the first one begins the shutdown, a second one skips all waiting and leaves little time."""
        self._signal, self.began = signal.Signals(await anext(signals)), trio.current_time()
        self.scope.deadline = self.began + self._config.total
        self._waiting.deadline = self.scope.deadline - CLOSE_TIMEOUT - HURRY
        self._stopping(self._config.total)
        self._asked.set()
        received = signal.Signals(await anext(signals))
        self._log.warning("forced", signal=received.name)
        self._waiting.cancel()
        left = min(self.scope.deadline - trio.current_time(), CLOSE_TIMEOUT + HURRY)
        self.scope.deadline = trio.current_time() + left
        self._stopping(left)

    async def wait_asked(self) -> None:
        """Return once the shutdown has begun."""
        await self._asked.wait()

    async def drain(
        self,
        exchanges: ExchangeHandler,
        admission: Admission[Backend],
        listener: Listener,
        hypercorn: HypercornControl,
        joins: Joins,
    ) -> None:
        """Let work in flight end by itself, for as long as the configuration gives it; then end it."""
        with self._waiting:
            await self._give_way(exchanges, admission, listener, hypercorn, joins)
        await self._turn_away(exchanges, admission, listener, hypercorn)
        if exchanges.in_flight:
            for request_id in exchanges.request_ids():
                self._log.warning("request stopped: the drain timed out", request_id=request_id)
            exchanges.stop_all()
            with trio.move_on_after(CLOSE_TIMEOUT):
                await exchanges.wait_idle()
        joins.close()

    def failed(self) -> None:
        """A part of the gateway could not be stopped. To be called while its error is handled."""
        self._failed = True
        self._log.exception("a part of the gateway failed to stop")

    def exit_code(self) -> int:
        """What the process ends with: the signal's code, or 1 when something went wrong on the way."""
        assert self.began is not None
        seconds = round(trio.current_time() - self.began, 3)
        if self.scope.cancelled_caught:
            self._failed = True
            self._log.error("stopped by force: the time for the shutdown was over", seconds=seconds)
        else:
            self._log.info("stopped", reason=self._signal.name, seconds=seconds)
        return 1 if self._failed else 128 + self._signal

    async def _give_way(
        self,
        exchanges: ExchangeHandler,
        admission: Admission[Backend],
        listener: Listener,
        hypercorn: HypercornControl,
        joins: Joins,
    ) -> None:
        interrupted = self._signal is signal.SIGINT
        timeout = self._config.interrupt_timeout if interrupted else self._config.timeout
        self._log.info("draining", signal=self._signal.name, in_flight=exchanges.in_flight, timeout=timeout)
        listener.wind_down()
        hypercorn.wind_down()
        if not interrupted:
            await trio.sleep(self._config.delay)
        await self._turn_away(exchanges, admission, listener, hypercorn)
        with trio.move_on_after(timeout):
            await exchanges.wait_idle()
            await hypercorn.wait_idle()  # an operator's change may wait for a server
            joins.close()
            with trio.move_on_after(FAREWELL):
                await listener.wait_empty()

    async def _turn_away(
        self,
        exchanges: ExchangeHandler,
        admission: Admission[Backend],
        listener: Listener,
        hypercorn: HypercornControl,
    ) -> None:
        """No new connections, no new requests, no more waiting for a free server."""
        exchanges.draining = True
        listener.stop_accepting()
        admission.stop()
        await hypercorn.stop()
