"""Requests: how they arrive makes no difference, and whatever we accept other parsers read the same way."""

import h11
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from quiver.proxy.native import HttpError, RequestParser, encode_request

from . import messages
from .messages import METHODS, Message, pieces
from .readers import h11_first, httptools_request, read_first, read_requests

EXAMPLES = settings(deadline=None, max_examples=120)


@EXAMPLES
@given(messages.damaged(messages.requests()), messages.cuts())
def test_splits_make_no_difference(data: bytes, cuts: list[int]) -> None:
    assert read_requests(pieces(data, cuts)) == read_requests([data])


@EXAMPLES
@given(st.binary(max_size=200), messages.cuts())
def test_noise_is_refused_in_one_way(data: bytes, cuts: list[int]) -> None:
    assert read_requests(pieces(data, cuts)) == read_requests([data])


@EXAMPLES
@given(st.lists(messages.requests(), max_size=4), messages.cuts())
def test_as_many_come_out_as_went_in(sent: list[Message], cuts: list[int]) -> None:
    read = read_requests(pieces(b"".join(map(bytes, sent)), cuts))
    assert read.error is None
    assert [(body, target) for _, target, _, body in read.messages] == [
        (message.body, message.line.split()[1]) for message in sent
    ]


@EXAMPLES
@given(messages.damaged(messages.requests()))
@example(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nrest")
def test_h11_reads_what_we_accept(data: bytes) -> None:
    ours = read_first(data)
    assume(ours.messages)
    assert h11_first(data.removeprefix(b"\r\n"), h11.SERVER) == ours


@EXAMPLES
@given(messages.damaged(messages.requests()))
def test_httptools_reads_what_we_accept(data: bytes) -> None:
    ours = read_first(data)
    # httptools knows a list of methods, and leaves a request that offers an upgrade to its caller.
    assume(ours.messages and ours.messages[0][0].decode() in METHODS)
    assume(b"upgrade" not in dict(ours.messages[0][2]))
    assert httptools_request(data[: len(data) - len(ours.rest)]).messages == ours.messages


@EXAMPLES
@given(st.sampled_from(METHODS), messages.paths(), messages.fields(), st.none() | st.binary(max_size=40))
def test_written_requests_are_read_by_all(
    method: str, target: str, fields: messages.Fields, body: bytes | None
) -> None:
    assume(all("%" not in part for part in target))
    data = encode_request(method, target, [(b"host", b"a"), *fields], body)
    length = [] if body is None else [(b"content-length", str(len(body)).encode())]
    headers = [(b"host", b"a"), *((name.lower(), value) for name, value in fields), *length]
    want = [(method.encode(), target.encode(), headers, body or b"")]
    assert read_first(data).messages == want
    assert h11_first(data, h11.SERVER).messages == want
    assert httptools_request(data).messages == want


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ((b"a\r\nb", b"c"), "name"),
        ((b"", b"c"), "name"),
        ((b"a b", b"c"), "name"),
        ((b"a", b"b\r\nc: d"), "control character"),
        ((b"a", b"\0"), "control character"),
        ((b"host", b"b"), "host"),
    ],
)
def test_fields_that_cannot_be_written(field: tuple[bytes, bytes], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        encode_request("GET", "/", [(b"host", b"a"), field], None)


def test_error_tells_status_and_code() -> None:
    parser = RequestParser(max_body=10)
    parser.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")
    for _ in range(2):
        with pytest.raises(HttpError, match="larger than 10 bytes") as caught:
            parser.head()
        assert (caught.value.status, caught.value.code) == (413, "body_too_large")
        assert caught.value.message == str(caught.value)


def test_head_tells_what_follows_from_it() -> None:
    raw = (
        b"POST /a%20b?c=d HTTP/1.1\r\nHost: a\r\nX-Y: 1\r\nx-y: 2\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    )
    parser = RequestParser()
    parser.receive(raw + b"hi" + b"GET")
    head = parser.head()
    assert head is not None
    assert (head.method, head.target, head.path, head.query) == ("POST", "/a%20b?c=d", "/a%20b", "c=d")
    assert (head.header(b"x-y"), head.header(b"x-z"), head.raw) == (b"1", None, raw)
    assert (head.expect_continue, head.keep_alive, head.has_body, head.content_length) == (True, True, True, 2)
    assert head.headers is head.headers
    assert repr(head) == "<RequestHead POST /a%20b?c=d>"
    assert (parser.body(), parser.buffered, parser.head(), parser.unread()) == (b"hi", 3, None, b"GET")


def test_preface_of_http2_stays_unread() -> None:
    parser = RequestParser()
    parser.receive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    with pytest.raises(HttpError) as caught:
        parser.head()
    assert (caught.value.code, parser.unread()) == ("http2_preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


def test_wrong_order_is_not_the_peers_fault() -> None:
    parser = RequestParser()
    with pytest.raises(RuntimeError):
        parser.body()


def test_work_is_linear() -> None:
    """A body that comes byte by byte is not looked at again. Were it, this would outlast the limit that all tests have."""
    parser, size = RequestParser(), 1_000_000
    parser.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
    assert parser.head() is not None
    for _ in range(size - 1):
        parser.receive(b"x")
        assert parser.body() is None
    parser.receive(b"x")
    assert parser.body() == b"x" * size
