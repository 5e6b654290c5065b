"""Accepting connections: one task per client, a bound on how many, and the end of accepting."""

from collections.abc import Sequence

import structlog
import trio
from quiver.schemas.config import Server

from .exchange import ExchangeHandler
from .network import Acceptor
from .session import ControlPlane, Session
from .telemetry.metrics import Metrics

# How often sessions are asked whether their client is overdue. One walk over all of them is cheaper than a deadline
# moved twice in every request.
SWEEP = 0.5


class Listener:
    """Owns the sessions. Run with `serve`, inside a nursery that outlives it."""

    def __init__(self, handler: ExchangeHandler, control: ControlPlane, metrics: Metrics, config: Server) -> None:
        self._handler, self._control, self._metrics, self._config = handler, control, metrics, config
        self._accepting = trio.CancelScope()
        self._sessions: dict[Session, None] = {}
        self._closing = False
        self._empty = trio.Event()
        self._log = structlog.get_logger(component="listener")

    def __repr__(self) -> str:
        return f"<Listener: {len(self._sessions)} sessions>"

    async def serve(
        self,
        acceptors: Sequence[Acceptor],
        nursery: trio.Nursery,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept until `stop_accepting`; sessions live on in `nursery`."""
        nursery.start_soon(self._sweep)
        try:
            with self._accepting:
                async with trio.open_nursery() as accepting:
                    for acceptor in acceptors:
                        accepting.start_soon(self._accept, acceptor, nursery)
                    task_status.started()
        finally:
            for acceptor in acceptors:
                acceptor.close()

    def wind_down(self) -> None:
        """From now on every reply is its connection's last."""
        self._closing = True
        for session in self._sessions:
            session.closing = True

    def stop_accepting(self) -> None:
        """Take no new connections, and let those that are silent end soon."""
        self._accepting.cancel()
        for session in self._sessions:
            session.wind_down()

    async def wait_empty(self) -> None:
        """Return once there are no sessions."""
        while self._sessions:
            self._empty = trio.Event()
            await self._empty.wait()

    async def _accept(self, acceptor: Acceptor, nursery: trio.Nursery) -> None:
        while True:
            for wire in await acceptor.accept():
                self._metrics.connections_opened += 1
                if len(self._sessions) >= self._config.max_connections:
                    self._metrics.connections_refused += 1
                    wire.close()
                    continue
                session = Session(wire, self._handler, self._control, self._config)
                session.closing = self._closing
                self._sessions[session] = None
                self._metrics.connections += 1
                nursery.start_soon(self._run, session)

    async def _run(self, session: Session) -> None:
        try:
            await session.run()
        except Exception:  # a fault of ours costs its connection, not the gateway
            self._log.exception("session broke", session=repr(session))
        finally:
            self._metrics.connections -= 1
            del self._sessions[session]
            if not self._sessions:
                self._empty.set()

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(SWEEP)
            now = trio.current_time()
            for session in list(self._sessions):
                if now >= session.due:
                    session.expire()
