"""A remote model server: connections to it, one request over one of them, and its reply's way to the client.

HTTP/1.1 with keep-alive and TLS. The server's bytes are as untrusted as a client's: they pass the same strict codec. A
reused connection that fails before the reply's first byte is replaced by a fresh one at once, without counting as a failure.
"""

import os
import ssl
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import trio
from quiver.schemas import errors
from quiver.schemas.config import Limits
from quiver.schemas.errors import ApiError, ErrorKind

from ..native import HttpError, ResponseHead, ResponseParser

# Keeps memory bounded when many clients come and go; a model server rarely takes more at a time.
MAX_IDLE_CONNECTIONS = 64
CHUNK = 65_536

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)
Stream = trio.abc.Stream


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a server listens. `base` is the path before `/chat/completions`, always ending in `/v1`."""

    scheme: str
    host: str
    port: int
    base: str

    @classmethod
    def parse(cls, url: str) -> "Origin":
        """`url` with or without `/v1`. Raises `ValueError` on a bad host or port."""
        parts = urlsplit(url)
        if not parts.hostname:
            raise ValueError(f"no host in `{url}`")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        path = parts.path.rstrip("/")
        return cls(parts.scheme, parts.hostname, port, path if path.endswith("/v1") else path + "/v1")

    @property
    def authority(self) -> str:
        """For the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.base}"


class Response:
    """A reply being received. Lives inside `Upstream.request`."""

    def __init__(self, stream: Stream, parser: ResponseParser, head: ResponseHead, idle: float) -> None:
        self._stream, self._parser, self._idle = stream, parser, idle
        self.head = head

    async def receive(self) -> bytes:
        """The next piece of the body; b"" at its end. Raises `ApiError` when the server stalls, breaks off or errs."""
        with _translated():
            while True:
                data = self._parser.body()
                if data:
                    await trio.lowlevel.checkpoint()
                    return data
                if self._parser.complete:
                    return b""
                with _deadline(self._idle, "the server went silent inside its reply"):
                    received = bytes(await self._stream.receive_some(CHUNK))
                self._parser.receive(received)

    async def read(self, limit: int) -> bytes:
        """The rest of the body. Raises `ApiError` over `limit` bytes."""
        pieces, size = [], 0
        while piece := await self.receive():
            size += len(piece)
            if size > limit:
                raise ApiError(errors.UPSTREAM_MALFORMED, f"The server's reply is over {limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)


class Upstream:
    """Connections to one origin. Close with `aclose`."""

    def __init__(self, origin: Origin, limits: Limits) -> None:
        self.origin = origin
        self._limits = limits
        self._idle: deque[Stream] = deque()
        self._tls = ssl.create_default_context() if origin.scheme == "https" else None
        self._open = 0

    def __repr__(self) -> str:
        return f"<Upstream {self.origin}: {self._open} busy, {len(self._idle)} idle>"

    @asynccontextmanager
    async def request(self, request: bytes, method: str) -> AsyncIterator[Response]:
        """Send `request` and yield the reply once its head is in. The connection is reused after a clean end only."""
        self._open += 1
        try:
            stream, parser, head = await self._start(request, method)
            try:
                yield Response(stream, parser, head, self._limits.idle)
            finally:
                if parser.reusable and len(self._idle) < MAX_IDLE_CONNECTIONS:
                    self._idle.append(stream)
                else:
                    await trio.aclose_forcefully(stream)
        finally:
            self._open -= 1

    async def aclose(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await trio.aclose_forcefully(self._idle.pop())

    async def _start(self, request: bytes, method: str) -> tuple[Stream, ResponseParser, ResponseHead]:
        while self._idle:
            stream = self._idle.pop()
            try:
                return await self._send(stream, request, method, fresh=False)
            except _Stale:
                continue
        return await self._send(await self._connect(), request, method, fresh=True)

    async def _send(
        self, stream: Stream, request: bytes, method: str, *, fresh: bool
    ) -> tuple[Stream, ResponseParser, ResponseHead]:
        parser = ResponseParser(method=method)
        try:
            with _translated(), _deadline(self._limits.first_byte, "the server did not begin to answer"):
                head = await self._exchange_heads(stream, parser, request, fresh)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream, parser, head

    async def _exchange_heads(
        self, stream: Stream, parser: ResponseParser, request: bytes, fresh: bool
    ) -> ResponseHead:
        received = 0
        try:
            await stream.send_all(request)
            while (head := parser.head()) is None:
                data = bytes(await stream.receive_some(CHUNK))
                received += len(data)
                if not data and not received and not fresh:
                    raise _Stale
                parser.receive(data)
        except BROKEN as error:
            if not received and not fresh:
                raise _Stale from error
            raise
        return head

    async def _connect(self) -> Stream:
        origin = self.origin
        try:
            with trio.fail_after(self._limits.connect):
                stream = await trio.open_tcp_stream(origin.host, origin.port)
                if self._tls is None:
                    return stream
                secure = trio.SSLStream(stream, self._tls, server_hostname=origin.host, https_compatible=True)
                await secure.do_handshake()
                return secure
        except trio.TooSlowError:
            reason = f"no connection within {self._limits.connect:g} s"
        except (OSError, ssl.SSLError, *BROKEN) as error:
            reason = _reason(error)
        raise ApiError(errors.UPSTREAM_UNREACHABLE, f"The model's server cannot be reached: {reason}")


class _Stale(Exception):
    """A kept connection had been closed by the server before it saw the request."""


def _reason(error: BaseException) -> str:
    """The cause in the system's words, without addresses: clients see this."""
    if isinstance(error, BaseExceptionGroup):
        return _reason(error.exceptions[0])
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return _reason(error.__cause__) if error.__cause__ else type(error).__name__.lower()


class _translated:
    """Turns codec and connection errors of a server into `ApiError`s, in one place."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, HttpError):
            kinds: dict[str, ErrorKind] = {"upstream_truncated": errors.UPSTREAM_TRUNCATED}
            raise ApiError(
                kinds.get(error.code, errors.UPSTREAM_MALFORMED), f"Bad reply from the server: {error.message}"
            )
        if isinstance(error, BROKEN):
            raise ApiError(errors.UPSTREAM_TRUNCATED, "The server broke off the connection") from error


class _deadline:
    """`trio.fail_after`, whose expiry is the server's fault: 504."""

    def __init__(self, seconds: float, what: str) -> None:
        self._seconds, self._what = seconds, what
        self._scope = trio.move_on_after(seconds)

    def __enter__(self) -> None:
        self._scope.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool | None:
        swallowed = self._scope.__exit__(kind, error, trace)  # type: ignore[arg-type] # the trace is passed through
        if self._scope.cancelled_caught:
            raise ApiError(errors.UPSTREAM_TIMEOUT, f"After {self._seconds:g} s, {self._what}")
        return swallowed


def forwardable(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The client's headers a server may see: not its credentials, cookies or address. Hop-by-hop ones fall in the codec."""
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
PRIVATE_PREFIXES = (b"x-forwarded-", b"forwarded", b"x-real-ip", b"proxy-")
