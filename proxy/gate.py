"""What stands between a client and Hypercorn: requests get through one at a time, read by the rules of the inference paths.

Hypercorn has no time limit for a head or a body that drips in, other limits on their sizes, and answers what breaks a rule
with an empty page. So a request is parsed here first, with the strict parser and the clocks that a `Session` has, and is let
through head first, then the whole body, written anew. A connection that speaks another protocol by agreement - WebSocket,
HTTP/2 - is let through as it is.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from math import inf
from typing import TypeVar

import trio
from quiver.schemas import errors
from quiver.schemas.config import Server
from quiver.schemas.errors import ApiError

from .access.cors import origin_in
from .exchange import ExchangeHandler
from .native import LAST_CHUNK, HttpError, RequestHead, RequestParser, encode_chunk, encode_response
from .network import Wire
from .reply import DownstreamGone, Headers
from .session import BODILESS, LINGER, READ_AHEAD

T = TypeVar("T")
# Protocols that an `Upgrade` is followed to.
FOLLOWED = (b"websocket", b"h2c")


class Gate:
    """Lets the requests on `wire` through, the first of which is in `prefix`. `busy`: one that got through is not answered
    yet; whoever knows that says so with `answered`.
    """

    def __init__(self, wire: Wire, prefix: bytes, handler: ExchangeHandler, config: Server) -> None:
        self._wire, self._handler, self._config = wire, handler, config
        self._parser = RequestParser(max_head=config.max_head, max_body=config.max_body)
        self._parser.receive(prefix)
        self._head: RequestHead | None = None
        self._ended = self._open = self._refused = False
        self._reading: trio.CancelScope | None = None
        self._spoken = False
        self.busy = False
        # Of a connection that was let through as it is, and may have many requests at a time.
        self._answering, self._quiet_since = 0, 0.0

    def __repr__(self) -> str:
        state = "open" if self._open else "body" if self._head is not None else "busy" if self.busy else "head"
        return f"<Gate of {self._wire.peer}: {state}>"

    def answered(self) -> None:
        """The request that got through last has its answer: the next one may follow."""
        self.busy = False
        if self._reading is not None and self._parser.buffered:
            self._reading.cancel()

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Around the answer to one request."""
        self._answering += 1
        try:
            yield
        finally:
            self._answering -= 1
            self._quiet_since = trio.current_time()

    async def receive(self) -> bytes:
        """What Hypercorn may read next; b"" at the end. Always lets other tasks run."""
        await trio.lowlevel.checkpoint()
        if self._open:
            return self._parser.unread() or await self._listen()
        try:
            return await self._next()
        except HttpError as error:
            if error.code == "http2_preface":
                return self._let_all_through(b"")
            kind = errors.BY_CODE.get(error.code) or errors.BY_STATUS.get(error.status, errors.MALFORMED_REQUEST)
            await self._refuse(ApiError(kind, error.message))
        except ApiError as error:
            await self._refuse(error)
        return b""

    async def send(self, data: bytes) -> None:
        """Pass on what Hypercorn answers. Raises `trio.BrokenResourceError` once the client was told otherwise."""
        if self._refused:
            raise trio.BrokenResourceError
        self._spoken = self._spoken or not data.startswith(b"HTTP/1.1 100 ")
        await self._wire.send_all(data)

    async def _next(self) -> bytes:
        """The next request's head, or the body of the one whose head is through."""
        if self._head is None:
            head = await self._wait_for_head()
            if head is None:
                return b""
            if head.upgrade and (head.header(b"upgrade") or b"").lower() in FOLLOWED:
                return self._let_all_through(head.raw)
            if head.has_body and head.method in BODILESS:
                raise ApiError(errors.MALFORMED_REQUEST, f"{head.method} takes no body here")
            self._head, self.busy, self._spoken = head, True, False
            if not head.has_body:
                self._parser.body()
                self._head = None
            return head.raw
        body = await self._wait_for(self._parser.body, trio.current_time() + self._config.body_timeout, "body")
        if body is None:
            return b""
        chunked, self._head = self._head.chunked, None
        return (encode_chunk(body) if body else b"") + LAST_CHUNK if chunked else body

    async def _listen(self) -> bytes:
        """What comes on a connection that was let through; b"" when it is silent for too long with nothing to answer, which
        Hypercorn minds only after the first request.
        """
        self._quiet_since = trio.current_time()
        while True:
            with trio.CancelScope(deadline=self._quiet_since + self._config.keep_alive):
                return await self._wire.receive_some()
            if self._answering:
                self._quiet_since = trio.current_time()
            elif trio.current_time() >= self._quiet_since + self._config.keep_alive:
                return b""

    async def _wait_for_head(self) -> RequestHead | None:
        """None when the client leaves. How long it may be silent ahead of a request is Hypercorn's business."""
        while self.busy or not self._parser.buffered:
            if self._parser.buffered > READ_AHEAD:
                with trio.CancelScope() as self._reading:
                    await trio.sleep_forever()  # until `answered`
                self._reading = None
            elif not await self._read(inf):
                return None
        return await self._wait_for(self._parser.head, trio.current_time() + self._config.head_timeout, "head")

    async def _wait_for(self, take: Callable[[], T | None], deadline: float, what: str) -> T | None:
        while (found := take()) is None:
            if not await self._read(deadline):
                if self._ended:
                    return None
                raise ApiError(errors.REQUEST_TIMEOUT, f"The request's {what} did not arrive in time")
        return found

    async def _read(self, deadline: float) -> bool:
        """Feed the parser; False at the end of the connection, or at the deadline. An answer that ends may end the wait."""
        with trio.CancelScope(deadline=deadline) as self._reading:
            try:
                data = await self._wire.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            self._parser.receive(data)
            self._ended = not data
        late = self._reading.cancelled_caught and trio.current_time() >= deadline
        self._reading = None
        return not (self._ended or late)

    def _let_all_through(self, head: bytes) -> bytes:
        self._open = True
        return head + self._parser.unread()

    async def _refuse(self, error: ApiError) -> None:
        """Answer in Hypercorn's place, unless it has begun to; the connection cannot be used after it."""
        if self._spoken and self.busy:
            return
        self._refused = True
        origin, request_id = origin_in(self._parser.unread()), None
        if self._head is not None:
            origin, request_id = self._head.header(b"origin"), self._head.header(b"x-request-id")
        with contextlib.suppress(DownstreamGone):
            await self._handler.refuse(error, _Refusal(self._wire), self._wire.peer.host, origin, request_id)
            with trio.move_on_after(LINGER), contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._wire.send_eof()
                while await self._wire.receive_some():
                    pass


class _Refusal:
    """The way to a client that is told that its request broke a rule, and nothing more."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def send_response(self, status: int, headers: Headers, body: bytes | None) -> Awaitable[None]:
        return self.send_data(encode_response(status, list(headers), body, close=True, http10=False, head_only=False))

    async def send_data(self, data: bytes) -> None:
        try:
            await self._wire.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise DownstreamGone from None

    def send_end(self, last: bytes) -> Awaitable[None]:
        return self.send_data(last)
