"""HTTP messages for property tests: valid ones, ways to damage them, and ways to cut them. No assertion lives here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from hypothesis import strategies as st

Fields = list[tuple[bytes, bytes]]

TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PCHAR = "abcXYZ019-._~!$&'()*+,;=:@/[]|"
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
# What parsers have been fooled with, to be put anywhere.
FRAGMENTS = (
    *(bytes([byte]) for byte in b"\r\n \t\0:,;_0\x0b\x7f\xff"),
    *(b"\r\n", b"\r\n\r\n", b"\r\n ", b"0\r\n\r\n", b"5\r\n", b"chunked", b", chunked", b"Connection: close\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n"),
    *(b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"Content_Length: 5\r\n", b"HTTP/1.0", b"HTTP/1.1"),
)


@dataclass(frozen=True)
class Message:
    """One message and its framing: chunks of the given sizes, or a length, or neither when there is no body."""

    line: bytes
    fields: Fields
    body: bytes = b""
    chunks: tuple[int, ...] = ()
    extension: bytes = b""
    trailers: bytes = b""

    def framing(self) -> bytes:
        if self.chunks:
            return b"Transfer-Encoding: chunked\r\n"
        return b"Content-Length: %d\r\n" % len(self.body) if self.body else b""

    def content(self) -> bytes:
        if not self.chunks:
            return self.body
        bounds = [0, *sorted({min(size, len(self.body)) for size in self.chunks} - {0}), len(self.body)]
        pieces = [self.body[start:end] for start, end in pairwise(bounds) if end > start]
        framed = [b"%x%s\r\n%s\r\n" % (len(piece), self.extension, piece) for piece in pieces]
        return b"".join(framed) + b"0\r\n" + self.trailers + b"\r\n"

    def __bytes__(self) -> bytes:
        fields = b"".join(b"%s: %s\r\n" % field for field in self.fields)
        return self.line + b"\r\n" + fields + self.framing() + b"\r\n" + self.content()


def names() -> st.SearchStrategy[bytes]:
    return st.binary(min_size=1, max_size=8).map(lambda raw: b"X-" + bytes(TOKEN[byte % len(TOKEN)] for byte in raw))


def values() -> st.SearchStrategy[bytes]:
    allowed = bytes(byte for byte in range(256) if byte >= 0x20 and byte != 0x7F) + b"\t"
    return st.lists(st.sampled_from(allowed), max_size=20).map(lambda raw: bytes(raw).strip(b" \t"))


def fields() -> st.SearchStrategy[Fields]:
    return st.lists(st.tuples(names(), values()), max_size=5)


def paths() -> st.SearchStrategy[str]:
    return st.builds(
        "/{}{}".format, st.text(PCHAR, max_size=12), st.text(PCHAR, max_size=6).map("?{}".format) | st.just("")
    )


@st.composite
def framed(draw: st.DrawFn, line: bytes, common: Fields) -> Message:
    chunks = draw(st.just(()) | st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple))
    return Message(
        line,
        common + draw(fields()),
        draw(st.binary(max_size=40)),
        chunks,
        draw(st.sampled_from([b"", b"", b";a=b", b';a="b c"', b";a"])),
        draw(st.sampled_from([b"", b"", b"X-T: u\r\n"])),
    )


@st.composite
def requests(draw: st.DrawFn) -> Message:
    line = f"{draw(st.sampled_from(METHODS))} {draw(paths())} HTTP/1.1".encode()
    host = draw(st.sampled_from([b"a", b"a.example:80", b"127.0.0.1", b"[::1]:8080"]))
    return draw(framed(line, [(b"Host", host)]))


@st.composite
def responses(draw: st.DrawFn) -> Message:
    status = draw(st.sampled_from([200, 201, 204, 304, 400, 404, 429, 500, 503]))
    message = draw(framed(f"HTTP/1.1 {status} {draw(st.sampled_from(['', 'OK', 'Not So']))}".encode(), []))
    return replace(message, body=b"", chunks=()) if status in (204, 304) else message


@st.composite
def damaged(draw: st.DrawFn, messages: st.SearchStrategy[Message]) -> bytes:
    """The bytes of a few messages, in which up to three places were changed."""
    data = b"".join(bytes(message) for message in draw(st.lists(messages, min_size=1, max_size=2)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.sampled_from(FRAGMENTS)) + data[at + draw(st.integers(0, 3)) :]
    return data


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The data, cut at places derived from any numbers. No piece is empty."""
    places = sorted({cut % len(data) for cut in cuts} | {0, len(data)}) if data else []
    return [data[start:end] for start, end in pairwise(places)]


def cuts() -> st.SearchStrategy[list[int]]:
    """A few cuts, or one after each byte."""
    return st.lists(st.integers(0, 1000), max_size=6) | st.just(list(range(1000)))
