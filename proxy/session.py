"""One downstream connection, from its first byte to its last.

Two tasks: one reads for as long as the connection lives, so that a client that leaves is noticed in every phase; the
other answers requests one after another. Inference paths are answered here; any other path hands the whole connection,
with the bytes read so far put back, to the control plane.
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import trio
from quiver.schemas import errors
from quiver.schemas.config import Server
from quiver.schemas.errors import ApiError

from .exchange import INFERENCE_PREFIX, ExchangeHandler
from .native import LAST_CHUNK, HttpError, RequestHead, RequestParser, encode_chunk, encode_response
from .reply import DownstreamGone, Headers
from .request import Request

CHUNK = 65_536
# How much of a next request is read while one is still being answered; then the reader rests.
READ_AHEAD = 262_144
# How long a refused client may go on sending before its connection is cut.
LINGER = 5.0
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Their bodies mean nothing (RFC 9110, 9.3), and proxies disagree on whether to skip them: a way to smuggle requests.
BODILESS = ("GET", "HEAD", "OPTIONS")

T = TypeVar("T")


class ControlPlane(Protocol):
    """Whoever serves the paths that are not inference."""

    async def serve(self, stream: trio.SocketStream, prefix: bytes) -> None:
        """Serve the rest of the connection, whose first bytes are `prefix`."""
        ...


class Session:
    """Serves one connection. Run with `run`, which closes the stream."""

    def __init__(
        self, stream: trio.SocketStream, handler: ExchangeHandler, control: ControlPlane, config: Server
    ) -> None:
        self._stream, self._handler, self._control, self._config = stream, handler, control, config
        self._parser = RequestParser(max_head=config.max_head, max_body=config.max_body)
        self._received = trio.Event()
        self._drained = trio.Event()
        self._exchange: trio.CancelScope | None = None
        self._ended = False
        self._refused = False
        self._handover: bytes | None = None
        self.closing = False

    def __repr__(self) -> str:
        return f"<Session: {'in an exchange' if self._exchange else 'idle'}{', closing' if self.closing else ''}>"

    async def run(self) -> None:
        """Serve requests until the client leaves, an error makes the connection unusable, or it is handed over."""
        async with self._stream:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                with contextlib.suppress(DownstreamGone):
                    await self._serve()
                nursery.cancel_scope.cancel()
            if self._handover is not None:
                await self._control.serve(self._stream, self._handover)

    def wind_down(self) -> None:
        """Close after the current exchange; at once when there is none."""
        self.closing = True
        self._received.set()

    async def _read(self) -> None:
        """Feed the parser until the client is gone; then cancel what runs for it."""
        try:
            while data := await self._stream.receive_some(CHUNK):
                self._received.set()
                if self._refused:
                    continue
                self._parser.receive(bytes(data))
                if self._exchange is not None and self._parser.buffered > READ_AHEAD:
                    self._drained = trio.Event()
                    await self._drained.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self._ended = True
        self._received.set()
        if self._exchange is not None:
            self._exchange.cancel()

    async def _serve(self) -> None:
        keep = True
        while keep and not self.closing:
            try:
                head = await self._wait_for_head()
                if head is None:
                    return
                if not _is_native(head):
                    self._handover = head.raw + self._parser.unread()
                    return
                if head.has_body and head.method in BODILESS:
                    raise ApiError(errors.MALFORMED_REQUEST, f"{head.method} takes no body here")
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
            keep = await self._answer(head, body)

    async def _wait_for_head(self) -> RequestHead | None:
        """The next head, or None when the client has left or stayed silent for too long between requests."""
        head = self._parser.head()
        if head is not None:
            return head
        if not self._parser.buffered:
            with trio.move_on_after(self._config.keep_alive):
                await self._wait_for_bytes()
            if not self._parser.buffered:
                return None
        try:
            with trio.fail_after(self._config.head_timeout):
                return await self._wait_for(self._parser.head)
        except trio.TooSlowError:
            raise ApiError(errors.REQUEST_TIMEOUT, "The request's head did not arrive in time") from None

    async def _wait_for_body(self, head: RequestHead) -> bytes:
        if head.expect_continue and not self._parser.buffered:
            await self._send(CONTINUE)
        try:
            with trio.fail_after(self._config.body_timeout):
                body = await self._wait_for(self._parser.body)
        except trio.TooSlowError:
            raise ApiError(errors.REQUEST_TIMEOUT, "The request's body did not arrive in time") from None
        if body is None:
            raise DownstreamGone
        return body

    async def _wait_for(self, parse: Callable[[], T | None]) -> T | None:
        """What `parse` finds, once enough bytes are there; None when the client left before."""
        while (found := parse()) is None:
            if self._ended:
                return None
            await self._wait_for_bytes()
        return found

    async def _wait_for_bytes(self) -> None:
        if not self._ended:
            self._received = trio.Event()
            await self._received.wait()

    async def _answer(self, head: RequestHead, body: bytes) -> bool:
        """Run one exchange; whether the connection can carry another."""
        downstream = _Downstream(
            self._send, http10=head.http10, keep_alive=head.keep_alive, head_only=head.method == "HEAD", session=self
        )
        request = Request(head.method, head.path, head.headers, body, head.header)
        with trio.CancelScope() as self._exchange:
            if self._ended:
                self._exchange.cancel()
            await self._handler.handle(request, downstream)
        self._exchange = None
        self._drained.set()
        return downstream.finished and not downstream.close

    async def _refuse(self, error: ApiError) -> None:
        """Answer a request that broke a rule; the connection cannot be used after it."""
        self._refused = True
        downstream = _Downstream(self._send, http10=False, keep_alive=False, head_only=False, session=self)
        await self._handler.refuse(error, downstream)
        await self._linger()

    async def _linger(self) -> None:
        """Let the refusal arrive: closing with unread bytes would reset the connection and lose it (RFC 9112, 9.6)."""
        with trio.move_on_after(LINGER), contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_eof()
            while not self._ended:
                await self._wait_for_bytes()

    async def _send(self, data: bytes) -> None:
        """Write with a deadline: a client that does not read must not hold the exchange. Raises `DownstreamGone`."""
        try:
            with trio.fail_after(self._config.write_timeout):
                await self._stream.send_all(data)
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise DownstreamGone from None


class _Downstream:
    """One exchange's way to the client: framing by HTTP version, and whether the connection closes after it."""

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[None]],
        *,
        http10: bool,
        keep_alive: bool,
        head_only: bool,
        session: Session,
    ) -> None:
        self._write, self._http10, self._head_only, self._session = send, http10, head_only, session
        self.close = not keep_alive
        self.finished = False

    async def send_response(self, status: int, headers: Headers, body: bytes | None) -> None:
        self.close = self.close or self._session.closing or (body is None and self._http10)
        head = encode_response(
            status, list(headers), body, close=self.close, http10=self._http10, head_only=self._head_only
        )
        await self._write(head)
        self.finished = body is not None

    async def send_data(self, data: bytes) -> None:
        await self._write(data if self._http10 else encode_chunk(data))

    async def send_end(self, last: bytes) -> None:
        await self._write(last if self._http10 else encode_chunk(last) + LAST_CHUNK)
        self.finished = True


def _is_native(head: RequestHead) -> bool:
    return head.path.startswith(INFERENCE_PREFIX) and not head.upgrade
