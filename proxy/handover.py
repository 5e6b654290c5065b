"""The border to Hypercorn, which runs the control plane's ASGI application on connections the session hands over.

Hypercorn shields its writes without a deadline, so it never sees a bare socket: `GuardedStream` puts a deadline inside
every write, and replays the bytes that were read before the handover.
"""

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, ConnectionState, Scope, WWWScope
from hypercorn.utils import wrap_app
from quiver.schemas.config import Server

from .exchange import ExchangeHandler
from .inference_app import InferenceApp
from .network import LOCAL, Wire

# What an application gets to finish in once its client has left, or has sent all it will.
FAREWELL = 1.0


class GuardedStream:
    """What Hypercorn needs of a stream, whose writes have a deadline even under its shield: the wire's own. Plain TCP.

    A peer that does not read in time ends `connection`, so that an application that goes on sending ends too.
    """

    def __init__(self, wire: Wire, prefix: bytes, connection: trio.CancelScope) -> None:
        self._wire, self._prefix, self._connection = wire, prefix, connection
        self.socket = wire.socket

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The bytes read ahead first, then the socket's."""
        if self._prefix:
            data, self._prefix = self._prefix, b""
            await trio.lowlevel.checkpoint()
            return data
        try:
            data = await self._wire.receive_some(max_bytes)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            # Hypercorn would keep a connection that its client has left until its keep-alive time is over.
            self._connection.deadline = trio.current_time() + FAREWELL
        return data

    async def send_all(self, data: bytes) -> None:
        """Raises `trio.BrokenResourceError` when the peer does not read in time."""
        try:
            await self._wire.send_all(data)
        except trio.BrokenResourceError:
            self._connection.cancel()
            raise

    async def send_eof(self) -> None:
        await self._wire.send_eof()

    async def aclose(self) -> None:
        await self._wire.aclose()


class HypercornControl:
    """Serves an ASGI application on handed-over connections; its inference paths go to the exchange handler."""

    def __init__(self, app: ASGIFramework, handler: ExchangeHandler, config: Server) -> None:
        self._config = Config()
        self._config.keep_alive_timeout = config.keep_alive
        self._config.include_server_header = False
        self._inference = InferenceApp(app, handler, config.max_body)
        self._app = wrap_app(self._inference, config.max_body, "asgi")
        self._local_app = wrap_app(_marked_local(self._inference), config.max_body, "asgi")
        self._context = WorkerContext(None)

    async def serve(self, wire: Wire, prefix: bytes) -> None:
        """Serve the rest of one connection."""
        with trio.CancelScope() as connection:
            guarded = GuardedStream(wire, prefix, connection)
            # Its annotation names one stream type; what it uses is what `GuardedStream` has.
            app = self._local_app if wire.peer is LOCAL else self._app
            await TCPServer(app, self._config, self._context, ConnectionState({}), guarded)  # type: ignore[arg-type]

    def wind_down(self) -> None:
        """From now on every reply is its connection's last."""
        self._inference.closing = True

    async def stop(self) -> None:
        """Close idle connections at once, the others after their present reply."""
        await self._context.terminated.set()


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
