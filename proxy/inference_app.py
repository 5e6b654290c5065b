"""The inference paths for connections that Hypercorn serves: an ASGI adapter onto the same exchange handler.

A browser keeps one connection for pages and for chat; this is what answers the chat on it.
"""

import contextlib
from typing import Any

import trio
from hypercorn.typing import ASGIFramework
from quiver.schemas.config import Server
from quiver.schemas.errors import BODY_TOO_LARGE, REQUEST_TIMEOUT, ApiError

from .access.forwarding import Proxies
from .exchange import INFERENCE_PREFIX, ExchangeHandler
from .reply import DownstreamGone, Headers
from .request import Request

# What a body gets to arrive in that nobody has asked for.
LINGER = 1.0
# One of them says that a body follows (RFC 9112, 6.3).
BODY_HEADERS = (b"content-length", b"transfer-encoding")


class InferenceApp:
    """ASGI application: `/v1/*` here, everything else to `app`. `closing`: every reply is its connection's last. `running`:
    requests that `app` is answering.
    """

    def __init__(self, app: ASGIFramework, handler: ExchangeHandler, config: Server) -> None:
        self._app, self._handler = app, handler
        self._max_body, self._body_timeout = config.max_body, config.body_timeout
        self.closing = False
        self.running = 0
        self._idle = trio.Event()

    async def wait_idle(self) -> None:
        """Return once `app` is answering nothing."""
        while self.running:
            self._idle = trio.Event()
            await self._idle.wait()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._handler.proxies is not None and scope["type"] in ("http", "websocket"):
            scope = _from_client(scope, self._handler.proxies)
        send = _with_checkpoint(send, close=self.closing and scope.get("http_version") in ("1.0", "1.1"))
        if scope["type"] == "http" and scope["path"].startswith(INFERENCE_PREFIX):
            await self._infer(scope, receive, send)
        elif scope["type"] == "http":
            exchange = _Unread(scope, receive, send)
            self.running += 1
            try:
                await self._app(scope, exchange.receive, exchange.send)
            finally:
                self.running -= 1
                self._idle.set()
        else:
            await self._app(scope, receive, send)

    async def _infer(self, scope: Any, receive: Any, send: Any) -> None:
        downstream, peer = _AsgiDownstream(receive, send), (scope.get("client") or ("", 0))[0]
        try:
            body = None
            with trio.move_on_after(self._body_timeout):
                body = await self._body(receive)
            if body is None:
                raise ApiError(REQUEST_TIMEOUT, "The request's body did not arrive in time")
            headers = [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]]
            lookup = dict(reversed(headers)).get
            request = Request(scope["method"], scope["path"], headers, body, lookup, peer)
            await self._handler.handle(request, downstream)
        except ApiError as error:
            with contextlib.suppress(DownstreamGone):
                said = dict(scope["headers"]).get
                await self._handler.refuse(error, downstream, peer, said(b"origin"), said(b"x-request-id"))
        except DownstreamGone:
            return

    async def _body(self, receive: Any) -> bytes:
        pieces, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise DownstreamGone
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self._max_body:
                raise ApiError(BODY_TOO_LARGE, f"The body is over the limit of {self._max_body} bytes")
            if not message.get("more_body"):
                return b"".join(pieces)


def _from_client(scope: Any, proxies: Proxies) -> Any:
    """`scope` with the address and the scheme of the client, not of the proxy that passed its request on."""
    peer, port = scope.get("client") or ("", 0)
    address, scheme = proxies.client(peer, scope["headers"]), proxies.scheme(peer, scope["headers"])
    scope = {**scope, "client": (address, port if address == peer else 0)}
    if scheme is not None and scope["type"] == "http":
        scope["scheme"] = scheme
    return scope


def _with_checkpoint(send: Any, *, close: bool) -> Any:
    """Hypercorn's own `send` returns without a checkpoint once a stream is closed: a loop over it would stop the world. With
    `close` the reply is its connection's last.
    """

    async def checked(message: Any) -> None:
        if close and message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        # Once a reply has ended, its application is told that its client is gone, and may cancel itself for that: inside
        # Hypercorn's last steps, after which the connection would serve no other request, nor ever be closed. What is
        # written inside has a deadline of its own.
        with trio.CancelScope(shield=message["type"] == "http.response.body" and not message.get("more_body")):
            await send(message)
        await trio.lowlevel.checkpoint()

    return checked


class _Unread:
    """An exchange whose application may answer before the request's body is there, and so refuse it unread.

    Hypercorn closes a connection whose request has not ended by the end of the reply; with that it may cut off the reply, too,
    since most clients send head and body one after the other. So the reply's end waits a little for the body's.
    """

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self._receive, self._send = receive, send
        self._read = trio.Event()
        if not any(name in BODY_HEADERS for name, _ in scope["headers"]):
            self._read.set()

    async def receive(self) -> Any:
        message = await self._receive()
        if not message.get("more_body"):
            self._read.set()
        return message

    async def send(self, message: Any) -> None:
        if message["type"] != "http.response.body" or message.get("more_body"):
            await self._send(message)
            return
        if not self._read.is_set():
            await self._send({**message, "more_body": True})
            message = {**message, "body": b""}
            with trio.move_on_after(LINGER):
                await self._read.wait()
        await self._send(message)


class _AsgiDownstream:
    """One ASGI reply."""

    def __init__(self, receive: Any, send: Any) -> None:
        self._receive, self._send = receive, send

    async def wait_departure(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            await trio.lowlevel.checkpoint()

    async def send_response(self, status: int, headers: Headers, body: bytes | None) -> None:
        length = [] if body is None else [(b"content-length", b"%d" % len(body))]
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
        if body is not None:
            await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def send_data(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def send_end(self, last: bytes) -> None:
        await self._send({"type": "http.response.body", "body": last, "more_body": False})
