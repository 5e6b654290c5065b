"""The border to Hypercorn, which runs the control plane's ASGI application on connections the session hands over.

Hypercorn shields its writes without a deadline, so it never sees a bare socket: `GuardedStream` puts a deadline inside
every write, and lets it read what the `Gate` lets through, beginning with what was read before the handover.
"""

from collections.abc import Callable

import trio
from hypercorn.config import Config
from hypercorn.events import Event, Updated
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, ConnectionState, Scope, WWWScope
from hypercorn.utils import wrap_app
from quiver.schemas.config import Server

from .exchange import ExchangeHandler
from .gate import Gate
from .inference_app import InferenceApp
from .network import LOCAL, Wire

REFUSALS = (b"HTTP/1.1 4", b"HTTP/1.1 5")
ID_HEADER = b"x-request-id: "
# What an application gets to finish in once its client has left, or has sent all it will.
FAREWELL = 1.0


class GuardedStream:
    """What Hypercorn needs of a stream, whose writes have a deadline even under its shield: the wire's own. Plain TCP.

    What Hypercorn itself refuses, as it is no HTTP, is given a request's id by `new_id`, as every other reply has one. A peer
    that does not read in time ends `connection`, so that an application that goes on sending ends too.
    """

    def __init__(self, wire: Wire, gate: Gate, connection: trio.CancelScope, new_id: Callable[[], str] = str) -> None:
        self._wire, self._connection, self._new_id = wire, connection, new_id
        self.gate = gate
        self.socket = wire.socket

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What the gate lets through."""
        try:
            data = await self.gate.receive()
        except trio.BrokenResourceError:
            data = b""
        if not data:
            # Hypercorn would keep a connection that its client has left until its keep-alive time is over.
            self._connection.deadline = trio.current_time() + FAREWELL
        return data

    async def send_all(self, data: bytes) -> None:
        """Raises `trio.BrokenResourceError` when the peer does not read in time."""
        if data.startswith(REFUSALS) and ID_HEADER not in data:
            data = data.removesuffix(b"\r\n") + ID_HEADER + self._new_id().encode() + b"\r\n\r\n"
        try:
            await self.gate.send(data)
        except trio.BrokenResourceError:
            self._connection.cancel()
            raise

    async def send_eof(self) -> None:
        await self._wire.send_eof()

    async def aclose(self) -> None:
        await self._wire.aclose()


class _Server(TCPServer):
    """Hypercorn's, which tells the gate when a request has its answer."""

    stream: GuardedStream  # type: ignore[assignment] # it uses of a stream what this one has

    async def protocol_send(self, event: Event) -> None:
        await super().protocol_send(event)
        if isinstance(event, Updated) and event.idle:
            self.stream.gate.answered()


class HypercornControl:
    """Serves an ASGI application on handed-over connections; its inference paths go to the exchange handler."""

    def __init__(self, app: ASGIFramework, handler: ExchangeHandler, config: Server) -> None:
        self._handler, self._limits = handler, config
        self._config = Config()
        self._config.keep_alive_timeout = config.keep_alive
        self._config.include_server_header = False
        # The gate's limit comes first.
        self._config.h11_max_incomplete_size = config.max_head + 1024
        self._inference = InferenceApp(app, handler, config)
        self._local = _marked_local(self._inference)
        self._context = WorkerContext(None)
        self._new_id = handler.world.request_id

    async def serve(self, wire: Wire, prefix: bytes) -> None:
        """Serve the rest of one connection."""
        with trio.CancelScope() as connection:
            gate = Gate(wire, prefix, self._handler, self._limits)
            guarded = GuardedStream(wire, gate, connection, self._new_id)
            app = _minded(self._local if wire.peer is LOCAL else self._inference, gate)
            wrapped = wrap_app(app, self._limits.max_body, "asgi")
            await _Server(wrapped, self._config, self._context, ConnectionState({}), guarded)  # type: ignore[arg-type]

    def wind_down(self) -> None:
        """From now on every reply is its connection's last."""
        self._inference.closing = True

    async def wait_idle(self) -> None:
        """Return once the control plane is answering nothing."""
        await self._inference.wait_idle()

    async def stop(self) -> None:
        """Close idle connections at once, the others after their present reply."""
        await self._context.terminated.set()


def _minded(app: ASGIFramework, gate: Gate) -> ASGIFramework:
    async def minded(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        with gate.answering():
            await app(scope, receive, send)

    return minded


def came_locally(scope: WWWScope) -> bool:
    """Whether a request came over the Unix socket, which only the gateway's own user can open."""
    return _MARK in scope.get("extensions", {})


_MARK = "quiver.local"


def _marked_local(app: ASGIFramework) -> ASGIFramework:
    async def marked(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "lifespan":
            scope["client"] = (LOCAL.host, LOCAL.port)
            scope["extensions"] = {**scope.get("extensions", {}), _MARK: {}}
        await app(scope, receive, send)

    return marked
