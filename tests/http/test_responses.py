"""Responses: how they arrive makes no difference, h11 reads them the same way, and what we write is read by all."""

import h11
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from quiver.proxy.native import LAST_CHUNK, HttpError, ResponseParser, encode_chunk, encode_response

from . import messages
from .messages import pieces
from .readers import h11_first, read_response

EXAMPLES = settings(deadline=None, max_examples=120)


@EXAMPLES
@given(messages.damaged(messages.responses()), messages.cuts(), st.sampled_from(["GET", "HEAD"]))
def test_splits_make_no_difference(data: bytes, cuts: list[int], method: str) -> None:
    assert read_response(pieces(data, cuts), method) == read_response([data] if data else [], method)


@EXAMPLES
@given(messages.damaged(messages.responses()), st.sampled_from(["GET", "HEAD"]))
def test_h11_reads_what_we_accept(data: bytes, method: str) -> None:
    ours = read_response([data] if data else [], method)
    assume(ours.messages)
    assert h11_first(data, h11.CLIENT, method.encode()).messages == ours.messages


@EXAMPLES
@given(st.sampled_from([200, 404, 503]), messages.fields(), st.binary(max_size=40), st.booleans())
def test_written_responses_are_read_by_all(status: int, fields: messages.Fields, body: bytes, close: bool) -> None:
    data = encode_response(status, fields, body, close=close)
    connection = [(b"connection", b"close")] if close else []
    headers = [*((name.lower(), value) for name, value in fields), (b"content-length", b"%d" % len(body)), *connection]
    for read in (read_response([data]), h11_first(data, h11.CLIENT)):
        assert [(message[0], *message[2:]) for message in read.messages] == [(b"%d" % status, headers, body)]


@EXAMPLES
@given(st.lists(st.binary(max_size=20), max_size=5))
def test_written_chunks_are_read_by_all(chunks: list[bytes]) -> None:
    data = encode_response(200, [], None, close=False) + b"".join(map(encode_chunk, chunks)) + LAST_CHUNK
    for read in (read_response([data]), h11_first(data, h11.CLIENT)):
        assert [message[3] for message in read.messages] == [b"".join(chunks)]


@pytest.mark.parametrize(
    ("status", "body", "options", "want"),
    [
        (204, None, {}, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (304, b"x", {}, b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        (200, b"x", {}, b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"),
        (200, b"x", {"head_only": True}, b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n"),
        (200, None, {"http10": True}, b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"),
        (200, b"x", {"http10": True}, b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\nx"),
    ],
)
def test_forms_of_responses(status: int, body: bytes | None, options: dict[str, bool], want: bytes) -> None:
    assert encode_response(status, [], body, close=False, **options) == want


def test_only_a_clean_end_lets_a_connection_be_reused() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    for data, complete, reusable in [(b"h", False, False), (b"hi", True, True), (b"hi!", True, False)]:
        parser = ResponseParser(method="GET")
        parser.receive(head + data)
        assert parser.head() is not None
        assert parser.body() == data[:2]
        assert (parser.complete, parser.reusable) == (complete, reusable)


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"HTTP/1.1 200 OK\r\nContent-Le", "upstream_truncated"), (b"HTTP/3 200 OK\r\n", "upstream_malformed")],
)
def test_upstream_errors_are_bad_gateways(data: bytes, code: str) -> None:
    parser = ResponseParser(method="GET")
    parser.receive(data)
    parser.receive(b"")
    for _ in range(2):
        with pytest.raises(HttpError) as caught:
            parser.head()
        assert (caught.value.status, caught.value.code) == (502, code)
