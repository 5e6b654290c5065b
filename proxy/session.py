"""One downstream connection, from its first byte to its last.

One task reads requests and answers them one after another. Inference paths are answered here; any other path hands the
whole connection, with the bytes read so far put back, to the control plane. While an exchange runs long, its guard reads
in this task's place, so that a client that leaves is noticed in every phase.
"""

import contextlib
from collections.abc import Awaitable
from math import inf
from typing import Protocol

import trio
from quiver.schemas import errors
from quiver.schemas.config import Server
from quiver.schemas.errors import ApiError

from .access.cors import origin_in
from .exchange import INFERENCE_PREFIX, ExchangeHandler
from .native import LAST_CHUNK, HttpError, RequestHead, RequestParser, encode_chunk, encode_response
from .network import Wire
from .reply import DownstreamGone, Headers
from .request import Request

# How much of a next request is read while one is still being answered; then its client has to wait.
READ_AHEAD = 262_144
# How long a refused client may go on sending before its connection is cut.
LINGER = 5.0
# How long an idle connection lives on once the gateway drains: a request may be on its way.
LAST_CALL = 1.0
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Their bodies mean nothing (RFC 9110, 9.3), and proxies disagree on whether to skip them: a way to smuggle requests.
BODILESS = ("GET", "HEAD", "OPTIONS")


class ControlPlane(Protocol):
    """Whoever serves the paths that are not inference."""

    async def serve(self, wire: Wire, prefix: bytes) -> None:
        """Serve the rest of the connection, whose first bytes are `prefix`."""
        ...


class Session:
    """Serves one connection. Run with `run`, which closes the wire. `due`: when the client will have been silent for too
    long, on Trio's clock; whoever owns the session then calls `expire`. `closing`: the next reply is the last.
    """

    def __init__(self, wire: Wire, handler: ExchangeHandler, control: ControlPlane, config: Server) -> None:
        wire.write_timeout = config.write_timeout
        self._wire, self._handler, self._control, self._config = wire, handler, control, config
        self._parser = RequestParser(max_head=config.max_head, max_body=config.max_body)
        self._scope = trio.CancelScope()
        self._late: ApiError | None = None
        self._waits_for: str | None = None
        # Of the request that is being read.
        self._head: RequestHead | None = None
        self._ended = False
        self._handover: bytes | None = None
        self.due = inf
        self.closing = False

    def __repr__(self) -> str:
        return f"<Session of {self._wire.peer}: {self._waits_for or 'busy'}{', closing' if self.closing else ''}>"

    async def run(self) -> None:
        """Serve requests until the client leaves, an error makes the connection unusable, or it is handed over."""
        try:
            with contextlib.suppress(DownstreamGone):
                with self._scope:
                    await self._serve()
                if self._late is not None:
                    await self._refuse(self._late)
            if self._handover is not None:
                await self._control.serve(self._wire, self._handover)
        finally:
            self._wire.close()

    def wind_down(self) -> None:
        """Close after the next reply; soon, when no request comes any more."""
        self.closing = True
        if self._waits_for == "request":
            self.due = min(self.due, trio.current_time() + LAST_CALL)

    def expire(self) -> None:
        """The client is overdue: end the connection, with a word when part of a request had come."""
        if self._waits_for in ("head", "body"):
            self._late = ApiError(errors.REQUEST_TIMEOUT, f"The request's {self._waits_for} did not arrive in time")
        self.due = inf
        self._scope.cancel()

    async def wait_departure(self) -> None:
        """Return once the client has left; keep what it sends until then, up to a bound. For an exchange's guard."""
        while self._parser.buffered <= READ_AHEAD:
            if not await self._read():
                return
        await trio.sleep_forever()

    async def _serve(self) -> None:
        while True:
            try:
                self._head = None
                self._head = head = await self._wait_for_head()
                if head is None:
                    return
                if not _is_native(head):
                    self._handover = head.raw + self._parser.unread()
                    return
                if head.has_body and head.method in BODILESS:
                    raise ApiError(errors.MALFORMED_REQUEST, f"{head.method} takes no body here")
                body = self._parser.body()
                if body is None:
                    body = await self._wait_for_body(head)
            except HttpError as error:
                if error.code == "http2_preface":
                    self._handover = self._parser.unread()
                    return
                kind = errors.BY_CODE.get(error.code) or errors.BY_STATUS.get(error.status, errors.MALFORMED_REQUEST)
                await self._refuse(ApiError(kind, error.message))
                return
            except ApiError as error:
                await self._refuse(error)
                return
            exchange = _Exchange(self, self._wire, head)
            request = Request(head.method, head.path, head.headers, body, head.header, self._wire.peer.host)
            await self._handler.handle(request, exchange)
            if exchange.close or not exchange.finished or self._ended:
                if exchange.finished:
                    await self._linger(LAST_CALL)
                return

    async def _wait_for_head(self) -> RequestHead | None:
        """The next head; None when the client leaves without one, or is not to send another."""
        parser = self._parser
        head = parser.head()
        if head is not None:
            return head
        if not parser.buffered:
            self._waits_for = "request"
            self.due = trio.current_time() + (LAST_CALL if self.closing else self._config.keep_alive)
            if not await self._read():
                return None
            head = parser.head()
        if head is None:
            self._waits_for = "head"
            self.due = trio.current_time() + self._config.head_timeout
            while head is None:
                if not await self._read():
                    return None
                head = parser.head()
        self._waits_for, self.due = None, inf
        return head

    async def _wait_for_body(self, head: RequestHead) -> bytes:
        if head.expect_continue and not self._parser.buffered:
            await self.send(CONTINUE)
        self._waits_for, self.due = "body", trio.current_time() + self._config.body_timeout
        while (body := self._parser.body()) is None:
            if not await self._read():
                raise DownstreamGone
        self._waits_for, self.due = None, inf
        return body

    async def _read(self) -> bool:
        """Feed the parser with what comes next; whether anything came."""
        if self._ended:
            return False
        try:
            data = await self._wire.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            self._ended = True
            return False
        self._parser.receive(data)
        return True

    async def _refuse(self, error: ApiError) -> None:
        """Answer a request that broke a rule; the connection cannot be used after it."""
        self._waits_for, self.due = None, inf
        exchange = _Exchange(self, self._wire, None)
        said = self._head.header if self._head is not None else _nothing
        origin = said(b"origin") if self._head is not None else origin_in(self._parser.unread())
        await self._handler.refuse(error, exchange, self._wire.peer.host, origin, said(b"x-request-id"))
        await self._linger(LINGER)

    async def _linger(self, seconds: float) -> None:
        """Let the last reply arrive: closing with unread bytes would reset the connection and lose it (RFC 9112, 9.6)."""
        with trio.move_on_after(seconds), contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._wire.send_eof()
            while not self._ended and await self._wire.receive_some():
                pass

    async def send(self, data: bytes) -> None:
        """Write, within the wire's time limit. Raises `DownstreamGone`.

        A write that is broken off leaves the wire closed: nothing may follow half a message.
        """
        try:
            await self._wire.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._wire.close()
            raise DownstreamGone from None
        except trio.Cancelled:
            self._wire.close()
            raise


class _Exchange:
    """One exchange's way to the client: framing by HTTP version, and whether the connection closes after it."""

    __slots__ = ("_head_only", "_http10", "_session", "_wire", "close", "finished")

    def __init__(self, session: Session, wire: Wire, head: RequestHead | None) -> None:
        self._session, self._wire = session, wire
        if head is None:
            self._http10, self._head_only, self.close = False, False, True
        else:
            self._http10, self._head_only, self.close = head.http10, head.method == "HEAD", not head.keep_alive
        self.finished = False

    async def wait_departure(self) -> None:
        await self._session.wait_departure()

    def send_response(self, status: int, headers: Headers, body: bytes | None) -> Awaitable[None]:
        self.close = close = self.close or self._session.closing or (body is None and self._http10)
        self.finished = body is not None
        return self._session.send(
            encode_response(
                status,
                headers,  # type: ignore[arg-type] # a list, or a constant tuple that is never mutated
                body,
                close=close,
                http10=self._http10,
                head_only=self._head_only,
            )
        )

    def send_data(self, data: bytes) -> Awaitable[None]:
        return self._session.send(data if self._http10 else encode_chunk(data))

    def send_end(self, last: bytes) -> Awaitable[None]:
        self.finished = True
        return self._session.send(last if self._http10 else encode_chunk(last) + LAST_CHUNK)


def _nothing(name: bytes) -> None:
    """The headers of a request whose head did not arrive."""


def _is_native(head: RequestHead) -> bool:
    return head.path.startswith(INFERENCE_PREFIX) and not head.upgrade
