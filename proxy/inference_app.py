"""The inference paths for connections that Hypercorn serves: an ASGI adapter onto the same exchange handler.

A browser keeps one connection for pages and for chat; this is what answers the chat on it.
"""

import contextlib
from typing import Any

import trio
from hypercorn.typing import ASGIFramework
from quiver.schemas.errors import BODY_TOO_LARGE, ApiError

from .access.forwarding import Proxies
from .exchange import INFERENCE_PREFIX, ExchangeHandler
from .reply import DownstreamGone, Headers
from .request import Request


class InferenceApp:
    """ASGI application: `/v1/*` here, everything else to `app`. `closing`: every reply is its connection's last."""

    def __init__(self, app: ASGIFramework, handler: ExchangeHandler, max_body: int) -> None:
        self._app, self._handler, self._max_body = app, handler, max_body
        self.closing = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._handler.proxies is not None and scope["type"] in ("http", "websocket"):
            scope = _from_client(scope, self._handler.proxies)
        send = _with_checkpoint(send, close=self.closing and scope.get("http_version") in ("1.0", "1.1"))
        if scope["type"] == "http" and scope["path"].startswith(INFERENCE_PREFIX):
            await self._infer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _infer(self, scope: Any, receive: Any, send: Any) -> None:
        downstream, peer = _AsgiDownstream(receive, send), (scope.get("client") or ("", 0))[0]
        try:
            body = await self._body(receive)
            headers = [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]]
            lookup = dict(reversed(headers)).get
            request = Request(scope["method"], scope["path"], headers, body, lookup, peer)
            await self._handler.handle(request, downstream)
        except ApiError as error:
            with contextlib.suppress(DownstreamGone):
                await self._handler.refuse(error, downstream, peer, dict(scope["headers"]).get(b"origin"))
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
        await send(message)
        await trio.lowlevel.checkpoint()

    return checked


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
