"""The codec and its peers behind one shape, so that tests can compare what they read. No assertion lives here."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import h11
import httptools
from quiver.proxy.native import HttpError, RequestHead, RequestParser, ResponseParser

Fields = list[tuple[bytes, bytes]]
# Far above every message of these tests.
H11_LIMIT = 1_000_000


@dataclass
class Read:
    """What a parser made of some bytes: whole messages in order, then the error's code if one came."""

    messages: list[tuple[bytes, bytes, Fields, bytes]] = field(default_factory=list)
    error: str | None = None
    rest: bytes = b""


def _requests(parser: RequestParser, pieces: Iterable[bytes], read: Read) -> None:
    head: RequestHead | None = None
    for piece in pieces:
        parser.receive(piece)
        while head := head or parser.head():
            body = parser.body()
            if body is None:
                break
            read.messages.append((head.method.encode(), head.target.encode(), head.headers, body))
            head = None


def read_requests(pieces: Iterable[bytes]) -> Read:
    """All requests in the pieces."""
    read, parser = Read(), RequestParser(max_body=1000)
    try:
        _requests(parser, pieces, read)
    except HttpError as error:
        read.error = error.code
    return read


def read_first(data: bytes) -> Read:
    """The first request of the data, and what is left behind it."""
    read, parser = Read(), RequestParser(max_body=1000)
    parser.receive(data)
    try:
        head = parser.head()
        body = parser.body() if head else None
    except HttpError as error:
        return Read(error=error.code)
    if head and body is not None:
        read.messages.append((head.method.encode(), head.target.encode(), head.headers, body))
        read.rest = parser.unread()
    return read


def read_response(pieces: Iterable[bytes], method: str = "GET") -> Read:
    """The response in the pieces, after which the connection ends."""
    read, parser, body = Read(), ResponseParser(method=method), b""
    head = None
    try:
        for piece in [*pieces, b"", b""]:
            parser.receive(piece)
            head = head or parser.head()
            body += parser.body() if head else b""
    except HttpError as error:
        return Read(error=error.code)
    if head and parser.complete:
        read.messages.append((str(head.status).encode(), head.reason, head.headers, body))
    return read


def h11_first(data: bytes, role: type[h11.CLIENT] | type[h11.SERVER], method: bytes = b"GET") -> Read:
    """The same from h11, which plays `role`; as a client it has asked with `method`, and the connection ends after the data."""
    connection = h11.Connection(role, max_incomplete_event_size=H11_LIMIT)
    if role is h11.CLIENT:
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    if role is h11.CLIENT:
        connection.receive_data(b"")
    try:
        return _h11_message(connection)
    except h11.RemoteProtocolError as error:
        return Read(error=str(error))


def _h11_message(connection: h11.Connection) -> Read:
    first, second, headers, body = b"", b"", Fields(), b""
    while True:
        match connection.next_event():
            case h11.Request(method=method, target=target, headers=fields):
                first, second, headers = method, target, list(fields)
            case h11.Response(status_code=status, reason=reason, headers=fields):
                first, second, headers = str(status).encode(), reason, list(fields)
            case h11.Data(data=data):
                body += bytes(data)
            case h11.EndOfMessage():
                return Read([(first, second, headers, body)], rest=connection.trailing_data[0])
            case h11.InformationalResponse():
                continue
            case _:
                return Read()


class HttptoolsRequest:
    """Collects one request from httptools, without its trailer fields."""

    def __init__(self) -> None:
        self.target, self.headers, self.body, self.complete = b"", Fields(), b"", 0
        self.in_head = True

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.in_head = False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


def httptools_request(data: bytes) -> Read:
    """The request that ends with the last byte of the data, and not before."""
    collected = HttptoolsRequest()
    parser = httptools.HttpRequestParser(collected)
    try:
        parser.feed_data(data[:-1])
        early = collected.complete
        parser.feed_data(data[-1:])
    except httptools.HttpParserError as error:
        return Read(error=f"{type(error).__name__}: {error}")
    if early or collected.complete != 1:
        return Read(error=f"{early} messages before the last byte, {collected.complete} after it")
    return Read([(parser.get_method(), collected.target, collected.headers, collected.body)])
