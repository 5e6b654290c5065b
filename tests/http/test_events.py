"""Event streams: how they arrive makes no difference, and nothing is added, lost or released too early."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from quiver.proxy.native import HttpError, SseScanner

from .messages import cuts, pieces

LINE_END = re.compile(rb"\r\n|\n|\r")
PARTS = (
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"\xef\xbb", b": hello", b"event: error", b"data"),
    *(b"data: ", b"data:", b"data: [DONE]", b"data:[DONE]\n\n", b"[DONE]", b'{"usage": null}', b'{"usage":{"a":1}}'),
    *(b'data: {"usage" : {}}\n\n', b"id: 1", b"\0", "é\U0001f600".encode(), b"data: x\r\n\r\n", b"data: y\r\r"),
)


def streams() -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(PARTS) | st.binary(max_size=3), max_size=25).map(b"".join)


def scan(fed: list[bytes]) -> tuple[bytes, bytes, int, bool, bytes | None]:
    scanner = SseScanner()
    passed = b"".join([scanner.feed(piece) for piece in fed])
    return passed, scanner.rest(), scanner.events, scanner.done, scanner.usage


def events(stream: bytes) -> list[list[bytes]]:
    """The values of the data lines of each whole event that has any: the standard's algorithm on a whole stream."""
    lines = LINE_END.split(stream.removeprefix(b"\xef\xbb\xbf"))
    found: list[list[bytes]] = [[]]
    for line in lines[:-1]:
        name, _, value = line.partition(b":")
        if not line:
            found.append([])
        elif name == b"data":
            found[-1].append(value.removeprefix(b" "))
    return [data for data in found[:-1] if data]


@settings(deadline=None, max_examples=200)
@given(streams(), cuts())
@example(b"data: x\r\n\r\ndata: y\r\n\r\n", [10])
def test_splits_make_no_difference(stream: bytes, at: list[int]) -> None:
    assert scan(pieces(stream, at)) == scan([stream])


@settings(deadline=None, max_examples=200)
@given(streams())
def test_scanner_agrees_with_the_standard(stream: bytes) -> None:
    passed, rest, count, done, usage = scan([stream])
    found = events(stream)
    payloads = [b"\n".join(data) for data in found]
    with_usage = [data for data in payloads if re.search(rb'"usage"\s*:\s*\{', data)]
    assert passed + rest == stream.removeprefix(b"\xef\xbb\xbf")
    assert not passed or LINE_END.split(passed)[-2:] == [b"", b""]
    assert count == len(found)
    assert done == any(data.strip(b" \t\n\r\x0c") == b"[DONE]" for data in payloads)
    assert usage == (with_usage[-1] if with_usage else None)


def test_whole_events_pass_as_the_same_object() -> None:
    data = b"data: x\n\ndata: y\r\n\r\n"
    assert SseScanner().feed(data) is data


def test_event_over_its_limit_is_refused() -> None:
    scanner = SseScanner(max_event=100)
    assert scanner.feed(b"data: x\n\n" * 100) == b"data: x\n\n" * 100
    for _ in range(2):
        with pytest.raises(HttpError, match="larger than 100 bytes") as caught:
            scanner.feed(b"x" * 101)
        assert (caught.value.status, caught.value.code) == (502, "upstream_malformed")
