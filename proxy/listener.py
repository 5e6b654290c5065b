"""Accepting connections: one task per client, a bound on how many, and the end of accepting."""

import socket
from collections.abc import Sequence

import trio
from quiver.schemas.config import Server

from .exchange import ExchangeHandler
from .metrics import Metrics
from .session import ControlPlane, Session


class Listener:
    """Owns the sessions. Run with `serve`, inside a nursery that outlives it."""

    def __init__(self, handler: ExchangeHandler, control: ControlPlane, metrics: Metrics, config: Server) -> None:
        self._handler, self._control, self._metrics, self._config = handler, control, metrics, config
        self._accepting = trio.CancelScope()
        self._sessions: set[Session] = set()
        self._slots = trio.CapacityLimiter(config.max_connections)

    def __repr__(self) -> str:
        return f"<Listener: {len(self._sessions)} sessions>"

    async def serve(
        self,
        listeners: Sequence[trio.SocketListener],
        nursery: trio.Nursery,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept until `wind_down`; sessions live on in `nursery`."""
        with self._accepting:
            task_status.started()
            await trio.serve_listeners(self._session, list(listeners), handler_nursery=nursery)

    def wind_down(self) -> None:
        """Stop accepting, and let every session end after its current exchange."""
        self._accepting.cancel()
        for session in self._sessions:
            session.wind_down()

    async def _session(self, stream: trio.SocketStream) -> None:
        if self._slots.available_tokens < 1:
            await trio.aclose_forcefully(stream)
            return
        async with self._slots:
            # Small writes are whole messages here; waiting to merge them only adds latency.
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = Session(stream, self._handler, self._control, self._config)
            self._sessions.add(session)
            self._metrics.connections.inc()
            try:
                await session.run()
            finally:
                self._metrics.connections.dec()
                self._sessions.discard(session)
