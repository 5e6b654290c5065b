"""Connections to one remote server: one request over one of them, and its reply as it arrives.

HTTP/1.1 with keep-alive and TLS. The server's bytes are as untrusted as a client's: they pass the same strict codec. A
reused connection that fails before the reply's first byte is replaced by a fresh one at once, without counting as a failure.
"""

import contextlib
import os
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import urlsplit

import msgspec
import trio
from quiver.schemas import errors
from quiver.schemas.config import Limits
from quiver.schemas.errors import ApiError

from ..native import HttpError, ResponseHead, ResponseParser
from ..network import CHUNK, UnknownHost, Unreachable, Wire
from ..watch import Watch

# Keeps memory bounded when many clients come and go; a model server rarely takes more at a time.
MAX_IDLE_CONNECTIONS = 256
# Most servers close a silent connection after 5 to 75 s; one that was idle for longer is not worth a failed attempt.
IDLE_TIME = 60.0
# A connection that was idle for longer is looked at before it is used again.
TRUSTED = 0.5

# Underscores are not for hosts, but Docker's compose names its own with them.
HOST_FORM = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
# What a request's target may hold as it is (RFC 3986, 3.3), and the pipe and brackets that some let through.
PATH_FORM = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/|\[\]-]*")
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)
OpenWire = Callable[[str, int], Awaitable[Wire]]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a server listens. `base` is the path before `/chat/completions`, always ending in `/v1`."""

    scheme: str
    host: str
    port: int
    base: str

    @classmethod
    def parse(cls, url: str) -> "Origin":
        """`url` with or without `/v1`. Spellings of one address give the same. Raises `ValueError` on a bad host, port or
        path.
        """
        parts = urlsplit(url)
        if not parts.hostname:
            raise ValueError(f"no host in `{url}`")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        path = parts.path.rstrip("/")
        if not PATH_FORM.fullmatch(path):
            raise ValueError("the path holds characters that have to be percent-encoded")
        return cls(parts.scheme, _host(parts.hostname), port, path if path.endswith("/v1") else path + "/v1")

    @property
    def authority(self) -> str:
        """For the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.base}"


def _host(written: str) -> str:
    """A host in the form of the wire. Raises `ValueError` when none can have this name."""
    if ":" in written:
        return IPv6Address(written).compressed
    try:
        host = written.encode("idna").decode().lower()
    except UnicodeError:
        host = ""
    if not HOST_FORM.fullmatch(host):
        raise ValueError("the host is none that there can be")
    return host


class Connection:
    """One connection: the stream to speak on, and the wire below it, which is closed."""

    __slots__ = ("idle_since", "stream", "wire")

    def __init__(self, stream: trio.abc.Stream, wire: Wire) -> None:
        self.stream, self.wire = stream, wire
        self.idle_since = 0.0

    def close(self) -> None:
        self.wire.close()


class Response:
    """A reply being received. `finish` it, whatever happens: the connection is kept after a clean end only."""

    __slots__ = ("_connection", "_idle", "_parser", "_upstream", "_watch", "head")

    def __init__(
        self,
        upstream: "Upstream",
        connection: Connection,
        parser: ResponseParser,
        head: ResponseHead,
        idle: float,
        watch: Watch,
    ) -> None:
        self._upstream, self._connection, self._parser = upstream, connection, parser
        self._idle, self._watch = idle, watch
        self.head = head

    async def receive(self) -> bytes:
        """The next piece of the body; b"" at its end. Raises `ApiError` when the server stalls, breaks off or errs."""
        parser = self._parser
        try:
            data = parser.body()
            while not data and not parser.complete:
                self._watch.expect(self._idle, _silent)
                parser.receive(bytes(await self._connection.stream.receive_some(CHUNK)))
                data = parser.body()
            self._watch.came()
            return data
        except (HttpError, *BROKEN) as error:
            raise self._watch.take_reason() or _translated(error) from error

    async def read(self, limit: int) -> bytes:
        """The rest of the body. Raises `ApiError` over `limit` bytes."""
        pieces: list[bytes] = []
        size = 0
        while not self._parser.complete or not pieces:
            data = await self.receive()
            size += len(data)
            if size > limit:
                raise ApiError(errors.UPSTREAM_MALFORMED, f"The server's reply is over {limit} bytes")
            pieces.append(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def delimited(self) -> bool:
        """Whether its end is marked, so that it cannot be mistaken for a connection that broke."""
        return self.head.chunked or self.head.content_length is not None

    async def wait_end(self, seconds: float) -> None:
        """Wait a little for the end of a reply whose rest nobody needs, so that its connection can be kept."""
        parser = self._parser
        with trio.move_on_after(seconds), contextlib.suppress(HttpError, *BROKEN):
            while not parser.complete:
                parser.receive(bytes(await self._connection.stream.receive_some(CHUNK)))
                parser.body()

    @property
    def ended(self) -> bool:
        """Whether the whole reply is here."""
        return self._parser.complete

    def finish(self) -> None:
        """Give the connection back, or close it."""
        self._upstream.release(self._connection, reusable=self._parser.reusable)


class UpstreamStatistics(msgspec.Struct, frozen=True):
    """Connections to one server: carrying a request, and kept for the next; and how many were made since the start."""

    busy: int
    idle: int
    opened: int


class Upstream:
    """Connections to one origin. `open_wire` connects to it, or refuses. Close with `close`."""

    def __init__(self, origin: Origin, limits: Limits, open_wire: OpenWire) -> None:
        self.origin = origin
        self._limits, self._open_wire = limits, open_wire
        self._idle: deque[Connection] = deque()
        self._tls = ssl.create_default_context() if origin.scheme == "https" else None
        self._busy = self._opened = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<Upstream {self.origin}: {self._busy} busy, {len(self._idle)} idle>"

    def configure(self, limits: Limits) -> None:
        """What the next steps may take."""
        self._limits = limits

    def statistics(self) -> UpstreamStatistics:
        return UpstreamStatistics(self._busy, len(self._idle), self._opened)

    async def request(self, request: bytes, method: str, watch: Watch) -> Response:
        """Send `request`; the reply, once its head is in. The time that each step may take is set on `watch`.

        Raises `ApiError`.
        """
        self._busy += 1
        try:
            while self._idle:
                connection = self._idle.pop()
                idle_for = trio.current_time() - connection.idle_since
                if idle_for > TRUSTED and not connection.wire.quiet():
                    connection.close()  # the server has closed it, or is about to: its last word is no reply to us
                    continue
                response = await self._send(connection, request, method, watch, fresh=False)
                if response is not None:
                    return response
            response = await self._send(await self._connect(watch), request, method, watch, fresh=True)
            assert response is not None, "only a reused connection can be stale"
            return response
        except BaseException:
            self._busy -= 1
            raise

    def release(self, connection: Connection, *, reusable: bool) -> None:
        """A reply has ended, cleanly or not."""
        self._busy -= 1
        idle = self._idle
        if not reusable or self._closed or connection.wire.closed or len(idle) >= MAX_IDLE_CONNECTIONS:
            connection.close()
            return
        connection.idle_since = now = trio.current_time()
        idle.append(connection)
        if idle[0].idle_since < now - IDLE_TIME:
            idle.popleft().close()

    def close(self) -> None:
        """Close the idle connections now, the busy ones after their replies."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    async def _send(
        self, connection: Connection, request: bytes, method: str, watch: Watch, *, fresh: bool
    ) -> Response | None:
        """The reply; None when a kept connection had been closed before the server saw the request."""
        parser, stream, received = ResponseParser(method=method), connection.stream, False
        try:
            watch.waits_for(connection.close)
            watch.expect(self._limits.first_byte, _no_answer)
            await stream.send_all(request)
            while True:
                data = bytes(await stream.receive_some(CHUNK))
                if not data and not received and not fresh:
                    connection.close()
                    return None
                received = True
                parser.receive(data)
                head = parser.head()
                if head is not None:
                    watch.came()
                    return Response(self, connection, parser, head, self._limits.idle, watch)
        except BROKEN as error:
            connection.close()
            reason = watch.take_reason()
            if not received and not fresh and reason is None:
                return None
            raise reason or _translated(error) from error
        except HttpError as error:
            connection.close()
            raise _translated(error) from error
        except BaseException:
            connection.close()
            raise

    async def _connect(self, watch: Watch) -> Connection:
        origin = self.origin
        watch.expect(self._limits.connect, _no_connection)
        try:
            with watch:
                wire = await self._open_wire(origin.host, origin.port)
                self._opened += 1
                if self._tls is None:
                    return Connection(wire, wire)
                secure = trio.SSLStream(wire, self._tls, server_hostname=origin.host, https_compatible=True)
                try:
                    await secure.do_handshake()
                except BaseException:
                    wire.close()
                    raise
                return Connection(secure, wire)
        except (OSError, ssl.SSLError, *BROKEN) as error:
            reason = _reason(error)
        raise ApiError(errors.UPSTREAM_UNREACHABLE, f"The model's server cannot be reached: {reason}")


def _no_connection(seconds: float) -> ApiError:
    message = f"The model's server cannot be reached: no connection within {seconds:g} s"
    return ApiError(errors.UPSTREAM_UNREACHABLE, message)


def _no_answer(seconds: float) -> ApiError:
    return ApiError(errors.UPSTREAM_TIMEOUT, f"After {seconds:g} s, the server did not begin to answer")


def _silent(seconds: float) -> ApiError:
    return ApiError(errors.UPSTREAM_TIMEOUT, f"After {seconds:g} s, the server went silent inside its reply")


def _reason(error: BaseException) -> str:
    """The cause in the system's words, without addresses: clients see this."""
    if isinstance(error, BaseExceptionGroup):
        return _reason(error.exceptions[0])
    if isinstance(error, UnknownHost):
        return "its name is not known"
    if isinstance(error, Unreachable):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno).lower()
    return _reason(error.__cause__) if error.__cause__ else type(error).__name__.lower()


def _translated(error: Exception) -> ApiError:
    """Codec and connection errors of a server as the catalogue knows them."""
    if isinstance(error, HttpError):
        kind = errors.UPSTREAM_TRUNCATED if error.code == "upstream_truncated" else errors.UPSTREAM_MALFORMED
        return ApiError(kind, f"Bad reply from the server: {error.message}")
    return ApiError(errors.UPSTREAM_TRUNCATED, "The server broke off the connection")


def forwardable(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The client's headers a server may see: not its credentials, cookies or address, nor what is meant for the gateway.
    Hop-by-hop ones fall in the codec.
    """
    return [header for header in headers if header[0] not in PRIVATE and not header[0].startswith(PRIVATE_PREFIXES)]


PRIVATE = frozenset(
    (
        b"authorization",
        b"x-api-key",
        b"cookie",
        b"host",
        b"content-length",
        b"x-request-id",
        b"expect",
        b"accept-encoding",
    )
)
PRIVATE_PREFIXES = (b"x-forwarded-", b"forwarded", b"x-real-ip", b"proxy-", b"x-quiver-")
