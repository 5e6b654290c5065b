"""Messages written to be misread: none is taken, however it arrives, and what is odd but clear all parsers read alike."""

from collections.abc import Iterator

import h11
import httptools
import pytest
from hypothesis import assume, given, settings
from quiver.proxy.native import HttpError, RequestHead, RequestParser, ResponseHead, ResponseParser, encode_request

from . import messages
from .framing import (
    BAD_REQUESTS,
    BAD_RESPONSES,
    MAX_BODY,
    MAX_HEAD,
    ODD_REQUESTS,
    ONE,
    PLAIN,
    BadRequest,
    BadResponse,
    OddRequest,
    Verdict,
    answer,
    chunked,
    chunked_answer,
    fields,
    line,
)
from .messages import METHODS, Fields
from .readers import HttptoolsRequest, Read, h11_first, httptools_request, read_first, read_requests

NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
SIZED = fields(b"A: b", ONE, body=b"a")
CHUNKS = b"1;a=b\r\na\r\n0\r\nA: b\r\n\r\n"
CHUNKED = chunked(CHUNKS)
ABSOLUTE = line(b"GET http://a/v1?b HTTP/1.1")
SIZED_ANSWER, CHUNKED_ANSWER = answer(ONE, body=b"a"), chunked_answer(CHUNKS)
HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"}
)
ReadMessage = tuple[bytes, bytes, Fields, bytes]
OUTCOMES: dict[str, Verdict] = {"upstream_malformed": "malformed", "upstream_truncated": "truncated"}


def arrivals(data: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, and cut in two at some places."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    for at in range(1, min(len(data), 200), 7):
        yield [data[:at], data[at:]]


def requests(pieces: list[bytes]) -> tuple[int, int | None]:
    """How many requests come out before an error, and its status. Checks that the error is the last word."""
    parser = RequestParser(max_head=MAX_HEAD, max_body=MAX_BODY)
    head: RequestHead | None = None
    whole = 0
    try:
        for piece in pieces:
            parser.receive(piece)
            while head := head or parser.head():
                if parser.body() is None:
                    break
                head, whole = None, whole + 1
    except HttpError as error:
        check_last_word(parser, error)
        return whole, error.status
    return whole, None


def check_last_word(parser: RequestParser | ResponseParser, error: HttpError) -> None:
    for data in (b"", b"\r\n\r\n", NEXT, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"):
        parser.receive(data)
        for read in (parser.head, parser.body):
            with pytest.raises(HttpError) as again:
                read()
            assert (again.value.code, again.value.message) == (error.code, error.message)
    if isinstance(parser, ResponseParser):
        assert (error.status, parser.complete, parser.reusable) == (502, False, False)


def response(pieces: list[bytes], method: str) -> tuple[Verdict | None, bytes]:
    """What becomes of the response in the pieces, None when it is whole and good, and what it said of its body."""
    parser, body = ResponseParser(method=method, max_head=MAX_HEAD), b""
    head: ResponseHead | None = None
    try:
        for piece in pieces:
            parser.receive(piece)
            head = head or parser.head()
            body += parser.body() if head else b""
    except HttpError as error:
        check_last_word(parser, error)
        return OUTCOMES[error.code], body
    return "not reusable" if parser.complete and not parser.reusable else None, body


@pytest.mark.parametrize("row", BAD_REQUESTS, ids=lambda row: row.name)
def test_ambiguous_request_is_refused(row: BadRequest) -> None:
    for pieces in (*arrivals(row.data), *arrivals(row.data + NEXT)):
        assert requests(pieces) == (row.before, row.status)


@pytest.mark.parametrize("row", ODD_REQUESTS, ids=lambda row: row.name)
def test_odd_request_is_read_alike(row: OddRequest) -> None:
    for pieces in arrivals(row.data):
        assert requests(pieces) == (1, None)
    for pieces in arrivals(row.data + NEXT):
        assert requests(pieces) == (2, None)
    ours = read_first(row.data + NEXT)
    assert ours.rest == NEXT
    ((_, target, fields, body),) = ours.messages
    assert (target, body) == (row.target, row.body)
    assert row.fields is None or fields == row.fields
    check_read_alike(row.data + NEXT, ours)


@pytest.mark.parametrize("base", [PLAIN, SIZED, CHUNKED, ABSOLUTE], ids=["plain", "sized", "chunked", "absolute"])
def test_one_wrong_byte_misleads_nobody(base: bytes) -> None:
    """Every byte put at or in front of every place: what we still accept, others read alike."""
    accepted = 0
    for data in damaged_once(base):
        ours = read_first(data)
        if ours.messages:
            accepted += 1
            check_read_alike(data, ours)
    assert accepted > 256


def damaged_once(base: bytes) -> Iterator[bytes]:
    for at in range(len(base) + 1):
        for byte in range(256):
            yield base[:at] + bytes([byte]) + base[at:]
            yield base[:at] + bytes([byte]) + base[at + 1 :]


def check_read_alike(data: bytes, ours: Read) -> None:
    # h11 does not know the empty line before a request.
    other = h11_first(data.removeprefix(b"\r\n"), h11.SERVER)
    assert (other.messages, other.rest) == (as_h11_writes(ours.messages), ours.rest)
    # httptools knows a list of methods, and leaves a request that offers an upgrade to its caller.
    ((method, _, fields, _),) = ours.messages
    if method.decode() in METHODS and b"upgrade" not in dict(fields):
        assert httptools_request(data[: len(data) - len(ours.rest)]).messages == ours.messages


def as_h11_writes(read: list[ReadMessage]) -> list[ReadMessage]:
    ((first, second, fields, body),) = read
    lower = [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in fields]
    return [(first, second, lower, body)]


@pytest.mark.parametrize("row", BAD_RESPONSES, ids=lambda row: row.name)
def test_response_is_not_trusted(row: BadResponse) -> None:
    end = [b"", b""] if row.verdict == "truncated" else []
    for pieces in (*arrivals(row.data), *([] if end else arrivals(row.data + NEXT))):
        verdict, body = response(pieces + end, row.method)
        assert verdict == row.verdict
        # An error may overtake the bytes that came together with it.
        assert body == row.body or (verdict == "malformed" and row.body.startswith(body))


@pytest.mark.parametrize("base", [SIZED_ANSWER, CHUNKED_ANSWER], ids=["sized", "chunked"])
def test_one_wrong_byte_spoils_no_connection(base: bytes) -> None:
    """After whatever response we reuse a connection, others find the same response and the same end."""
    reused = 0
    for data in damaged_once(base):
        parser = ResponseParser(method="GET")
        parser.receive(data)
        try:
            head = parser.head()
            body = parser.body() if head else b""
        except HttpError:
            continue
        if head and parser.reusable:
            reused += 1
            message = (b"%d" % head.status, head.reason, head.headers, body)
            assert httptools_response(data) == [message]
            assert h11_first(data, h11.CLIENT).messages == as_h11_writes([message])
    assert reused > 256


class HttptoolsResponse(HttptoolsRequest):
    """Collects one response from httptools, without its trailer fields."""

    reason = b""

    def on_status(self, reason: bytes) -> None:
        self.reason += reason


def httptools_response(data: bytes) -> list[ReadMessage]:
    """The response that ends with the last byte of the data, and not before."""
    collected = HttptoolsResponse()
    parser = httptools.HttpResponseParser(collected)
    ends = []
    for piece in (data[:-1], data[-1:]):
        parser.feed_data(piece)
        ends.append(collected.complete)
    assert ends == [0, 1]
    return [(b"%d" % parser.get_status_code(), collected.reason, collected.headers, collected.body)]


@settings(deadline=None, max_examples=200)
@given(messages.damaged(messages.requests()))
def test_accepted_request_goes_on_as_one(data: bytes) -> None:
    """Whatever was accepted, what is written upstream is one message to every parser, and says the same."""
    read = read_first(data)
    assume(read.messages and read.messages[0][0].decode() in METHODS and read.messages[0][1] != b"*")
    check_goes_on_as_one(data)


@pytest.mark.parametrize("row", [row for row in ODD_REQUESTS if row.target != b"*"], ids=lambda row: row.name)
def test_odd_request_goes_on_as_one(row: OddRequest) -> None:
    check_goes_on_as_one(row.data)


def check_goes_on_as_one(data: bytes) -> None:
    parser = RequestParser()
    parser.receive(data)
    head = parser.head()
    assert head is not None
    body = parser.body() or None
    target = head.path + (f"?{head.query}" if head.query else "")
    kept = [field for field in head.headers if field[0] != b"host"]
    written = encode_request(head.method, target, [(b"host", b"b"), *kept], body)
    read = read_requests([written])
    ((method, new_target, fields, new_body),) = read.messages
    assert (read.error, method.decode(), new_target.decode(), new_body) == (None, head.method, target, body or b"")
    names = [name for name, _ in fields]
    assert names[0] == b"host"
    assert names.count(b"host") == 1
    assert names.count(b"content-length") == (body is not None)
    assert HOP_BY_HOP.isdisjoint(names)
    assert h11_first(written, h11.SERVER).messages == read.messages
    assert httptools_request(written).messages == read.messages
