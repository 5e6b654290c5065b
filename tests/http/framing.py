"""Messages written to be misread: requests and responses on which two readers could disagree, one row for each way.

Each row names the clause it comes from: `9112 6.1` is RFC 9112, section 6.1. No assertion lives here.
"""

from dataclasses import dataclass
from typing import Literal

from .messages import Fields

MAX_HEAD = 4096
MAX_BODY = 64

Verdict = Literal["malformed", "truncated", "not reusable"]


@dataclass(frozen=True)
class BadRequest:
    """Bytes that are refused with `status`, after so many whole requests as `before` says."""

    name: str
    clause: str
    data: bytes
    status: int = 400
    before: int = 0


@dataclass(frozen=True)
class OddRequest:
    """One request, whole and unambiguous though unusual: its target, its body, its fields in order if they matter."""

    name: str
    clause: str
    data: bytes
    target: bytes = b"/v1"
    body: bytes = b""
    fields: Fields | None = None


@dataclass(frozen=True)
class BadResponse:
    """Bytes of an upstream that are no response to `method`, or one after which its connection is not used again."""

    name: str
    clause: str
    data: bytes
    verdict: Verdict = "malformed"
    body: bytes = b""
    method: str = "GET"


def line(line: bytes) -> bytes:
    return line + b"\r\nHost: a\r\n\r\n"


def host(host: bytes) -> bytes:
    return b"GET /v1 HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"


def fields(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    head = b"POST /v1 HTTP/" + version + b"\r\nHost: a\r\n"
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return fields(b"Transfer-Encoding: chunked", body=body)


def answer(*lines: bytes, body: bytes = b"", status: bytes = b"200 OK", version: bytes = b"1.1") -> bytes:
    head = b"HTTP/" + version + b" " + status + b"\r\n"
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def chunked_answer(body: bytes) -> bytes:
    return answer(b"Transfer-Encoding: chunked", body=body)


ONE, ZERO = b"Content-Length: 1", b"Content-Length: 0"
TE = b"Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
INTERIM = answer(status=b"100 Continue")
PLAIN = b"GET /v1 HTTP/1.1\r\nHost: a\r\n\r\n"

# Where the body ends: two lengths, or a length that two readers read differently.
LENGTHS = (
    BadRequest("length then chunks", "9112 6.1", fields(b"Content-Length: 5", TE, body=LAST)),
    BadRequest("chunks then length", "9112 6.1", fields(TE, b"Content-Length: 5", body=LAST)),
    BadRequest("length of a hidden request", "9112 6.1", fields(b"Content-Length: 5", TE, body=LAST + HIDDEN)),
    BadRequest("chunks and length zero", "9112 6.1", fields(TE, ZERO, body=LAST)),
    BadRequest("length and another coding", "9112 6.1", fields(ZERO, b"Transfer-Encoding: x"), 501),
    BadRequest("length twice", "9112 6.3", fields(ONE, ONE, body=b"a")),
    BadRequest("two lengths", "9112 6.3", fields(ZERO, b"Content-Length: 33", body=HIDDEN)),
    BadRequest("lengths of two cases", "9112 6.3", fields(ZERO, b"CONTENT-LENGTH: 33", body=HIDDEN)),
    BadRequest("list of lengths", "9112 6.3", fields(b"Content-Length: 1, 1", body=b"a")),
    BadRequest("list with an empty element", "9112 6.3", fields(b"Content-Length: 1,", body=b"a")),
    BadRequest("empty length", "9110 8.6", fields(b"Content-Length:")),
    BadRequest("blank length", "9110 8.6", fields(b"Content-Length: \t ")),
    BadRequest("plus", "9110 8.6", fields(b"Content-Length: +1", body=b"a")),
    BadRequest("minus", "9110 8.6", fields(b"Content-Length: -1")),
    BadRequest("minus zero", "9110 8.6", fields(b"Content-Length: -0")),
    BadRequest("hexadecimal", "9110 8.6", fields(b"Content-Length: 0x1", body=b"a")),
    BadRequest("hexadecimal digit", "9110 8.6", fields(b"Content-Length: a", body=b"0123456789")),
    BadRequest("exponent", "9110 8.6", fields(b"Content-Length: 1e1", body=b"0123456789")),
    BadRequest("fraction", "9110 8.6", fields(b"Content-Length: 1.0", body=b"a")),
    BadRequest("underscore between digits", "9110 8.6", fields(b"Content-Length: 1_0", body=b"0123456789")),
    BadRequest("space between digits", "9110 8.6", fields(b"Content-Length: 1 0", body=b"0123456789")),
    BadRequest("quoted length", "9110 8.6", fields(b'Content-Length: "1"', body=b"a")),
    BadRequest("length with a parameter", "9110 8.6", fields(b"Content-Length: 1;a", body=b"a")),
    BadRequest("digit that is not ascii", "9110 8.6", fields("Content-Length: ３".encode(), body=b"abc")),
    BadRequest("superscript digit of latin-1", "9110 8.6", fields(b"Content-Length: \xb3", body=b"abc")),
    BadRequest("vertical tab before the length", "9110 5.6.3", fields(b"Content-Length:\x0b1", body=b"a")),
    BadRequest("form feed after the length", "9110 5.6.3", fields(b"Content-Length: 1\x0c", body=b"a")),
    BadRequest("no-break space before the length", "9110 5.6.3", fields(b"Content-Length:\xa01", body=b"a")),
    BadRequest("length past 32 bits", "9110 15.5.14", fields(b"Content-Length: 4294967297", body=b"a"), 413),
    BadRequest("length past 64 bits", "9110 8.6", fields(b"Content-Length: 18446744073709551617", body=b"a")),
    BadRequest("length over the limit", "9110 15.5.14", fields(b"Content-Length: 65"), 413),
    BadRequest("folded length", "9112 5.2", fields(b"Content-Length:\r\n 1", body=b"a")),
    BadRequest("space before the colon of a length", "9112 5.1", fields(b"Content-Length : 33", body=HIDDEN)),
    BadRequest("tab before the colon of a length", "9112 5.1", fields(b"Content-Length\t: 33", body=HIDDEN)),
    BadRequest("length with an underscore", "9110 5.1", fields(b"Content_Length: 33", body=HIDDEN)),
    BadRequest("length with an underscore behind", "9110 5.1", fields(b"Content-Length_: 33", body=HIDDEN)),
    BadRequest("length with a nul in its name", "9110 5.6.2", fields(b"Content\0-Length: 33", body=HIDDEN)),
    BadRequest("length behind a bare lf", "9112 2.2", fields(b"A: b\nContent-Length: 33", body=HIDDEN)),
    BadRequest("length behind a bare cr", "9112 2.2", fields(b"A: b\rContent-Length: 33", body=HIDDEN)),
)

CODINGS = (
    BadRequest("coding twice", "9112 6.1", fields(TE, TE, body=LAST)),
    BadRequest("coding twice in a list", "9112 6.1", fields(b"Transfer-Encoding: chunked, chunked", body=LAST)),
    BadRequest("chunked is not last", "9112 6.1", fields(b"Transfer-Encoding: chunked, gzip", body=LAST)),
    BadRequest("chunked and identity", "9112 6.1", fields(b"Transfer-Encoding: chunked, identity", body=LAST)),
    BadRequest("two fields, chunked last", "9112 6.1", fields(b"Transfer-Encoding: gzip", TE, body=LAST), 501),
    BadRequest("two fields, chunked first", "9112 6.1", fields(TE, b"Transfer-Encoding: gzip", body=LAST)),
    BadRequest("two fields, one empty", "9112 6.1", fields(TE, b"Transfer-Encoding:", body=LAST)),
    BadRequest("empty coding", "9112 6.1", fields(b"Transfer-Encoding:", body=LAST)),
    BadRequest("only a comma", "9112 6.1", fields(b"Transfer-Encoding: ,", body=LAST)),
    BadRequest("comma behind", "9112 6.1", fields(b"Transfer-Encoding: chunked,", body=LAST)),
    BadRequest("comma before", "9112 6.1", fields(b"Transfer-Encoding: ,chunked", body=LAST)),
    BadRequest("parameter", "9112 7", fields(b"Transfer-Encoding: chunked;a=b", body=LAST)),
    BadRequest("quoted coding", "9112 6.1", fields(b'Transfer-Encoding: "chunked"', body=LAST)),
    BadRequest("single quotes", "9112 6.1", fields(b"Transfer-Encoding: 'chunked'", body=LAST), 501),
    BadRequest("two words", "9112 6.1", fields(b"Transfer-Encoding: x chunked", body=LAST)),
    BadRequest("tab behind a coding", "9112 6.1", fields(b"Transfer-Encoding: chunked\t", body=LAST)),
    BadRequest("tab before a coding", "9112 6.1", fields(b"Transfer-Encoding:\tchunked", body=LAST)),
    BadRequest("vertical tab", "9110 5.6.3", fields(b"Transfer-Encoding: \x0bchunked", body=LAST)),
    BadRequest("nul", "9110 5.5", fields(b"Transfer-Encoding: chunked\0", body=LAST)),
    BadRequest("no-break space", "9110 5.6.3", fields(b"Transfer-Encoding: \xa0chunked", body=LAST)),
    BadRequest(
        "letter that folds to ascii", "9110 5.6.2", fields("Transfer-Encoding: chun\u212aed".encode(), body=LAST)
    ),
    BadRequest("compressed", "9112 6.1", fields(b"Transfer-Encoding: gzip"), 501),
    BadRequest("compressed and chunked", "9112 6.1", fields(b"Transfer-Encoding: gzip, chunked", body=LAST), 501),
    BadRequest("identity", "9112 7", fields(b"Transfer-Encoding: identity"), 501),
    BadRequest("almost chunked", "9112 6.1", fields(b"Transfer-Encoding: xchunked", body=LAST), 501),
    BadRequest("chunks on version 1.0", "9112 6.1", fields(TE, body=LAST, version=b"1.0")),
    BadRequest(
        "chunks on a kept connection of 1.0",
        "9112 6.1",
        fields(b"Connection: keep-alive", TE, body=LAST, version=b"1.0"),
    ),
    BadRequest("folded coding", "9112 5.2", fields(b"Transfer-Encoding:\r\n chunked", body=LAST)),
    BadRequest("coding in a fold", "9112 5.2", fields(b"A: b\r\n Transfer-Encoding: chunked", body=LAST)),
    BadRequest("space before the colon of a coding", "9112 5.1", fields(b"Transfer-Encoding : chunked", body=LAST)),
    BadRequest("coding with an underscore", "9110 5.1", fields(b"Transfer_Encoding: chunked", body=LAST)),
    BadRequest("coding behind a bare lf", "9112 2.2", fields(b"A: b\nTransfer-Encoding: chunked", body=LAST)),
    BadRequest("coding behind a bare cr", "9112 2.2", fields(b"A: b\rTransfer-Encoding: chunked", body=LAST)),
)

CHUNKS = (
    BadRequest("no size", "9112 7.1", chunked(b"\r\n\r\n")),
    BadRequest("only an extension", "9112 7.1", chunked(b";a\r\n\r\n")),
    BadRequest("size with a prefix", "9112 7.1", chunked(b"0x1\r\na\r\n" + LAST)),
    BadRequest("size with plus", "9112 7.1", chunked(b"+1\r\na\r\n" + LAST)),
    BadRequest("size with minus", "9112 7.1", chunked(b"-1\r\na\r\n" + LAST)),
    BadRequest("size with an underscore", "9112 7.1", chunked(b"0_1\r\na\r\n" + LAST)),
    BadRequest("size not hexadecimal", "9112 7.1", chunked(b"g\r\na\r\n" + LAST)),
    BadRequest("space before the size", "9112 7.1", chunked(b" 1\r\na\r\n" + LAST)),
    BadRequest("space after the size", "9112 7.1", chunked(b"1 \r\na\r\n" + LAST)),
    BadRequest("tab after the size", "9112 7.1", chunked(b"1\t\r\na\r\n" + LAST)),
    BadRequest("nul after the size", "9112 7.1", chunked(b"1\0\r\na\r\n" + LAST)),
    BadRequest("size of seventeen digits", "9112 7.1", chunked(b"00000000000000001\r\na\r\n" + LAST)),
    BadRequest("size past 64 bits", "9112 7.1", chunked(b"10000000000000001\r\na\r\n" + LAST)),
    BadRequest("size that is minus one", "9110 15.5.14", chunked(b"ffffffffffffffff\r\na"), 413),
    BadRequest("size that wraps 32 bits", "9110 15.5.14", chunked(b"100000001\r\na\r\n" + LAST), 413),
    BadRequest("chunks that add up past the limit", "9110 15.5.14", chunked(b"1\r\na\r\n40\r\n"), 413),
    BadRequest("bare lf after the size", "9112 7.1", chunked(b"1\na\r\n" + LAST)),
    BadRequest("bare cr after the size", "9112 7.1", chunked(b"1\ra\r\n" + LAST)),
    BadRequest("two cr after the size", "9112 7.1", chunked(b"1\r\r\na\r\n" + LAST)),
    BadRequest("bare lf after the data", "9112 7.1", chunked(b"1\r\na\n" + LAST)),
    BadRequest("bare cr after the data", "9112 7.1", chunked(b"1\r\na\r" + LAST)),
    BadRequest("nothing after the data", "9112 7.1", chunked(b"1\r\na" + LAST)),
    BadRequest("data longer than its size", "9112 7.1", chunked(b"1\r\nab\r\n" + LAST)),
    BadRequest("data shorter than its size", "9112 7.1", chunked(b"3\r\na\r\n" + LAST)),
    BadRequest("two bytes for the end of the data", "9112 7.1", chunked(b"1\r\naxx" + LAST)),
    BadRequest("bare lf at the end", "9112 7.1", chunked(b"0\r\n\n")),
    BadRequest("bare lf after the last size", "9112 7.1", chunked(b"0\n\r\n")),
    BadRequest("bare cr at the end", "9112 7.1", chunked(b"0\r\n\rG")),
    BadRequest("next request for a trailer", "9112 7.1", chunked(b"0\r\n" + HIDDEN)),
    BadRequest("extension without name", "9112 7.1.1", chunked(b"1;\r\na\r\n" + LAST)),
    BadRequest("extension without value", "9112 7.1.1", chunked(b"1;a=\r\na\r\n" + LAST)),
    BadRequest("bare lf in an extension", "9112 7.1.1", chunked(b"1;a\nb\r\na\r\n" + LAST)),
    BadRequest("bare lf behind a semicolon", "9112 7.1.1", chunked(b"1;\na\r\n" + LAST)),
    BadRequest("bare cr in an extension", "9112 7.1.1", chunked(b"1;a\rb\r\na\r\n" + LAST)),
    BadRequest("control in an extension", "9112 7.1.1", chunked(b"1;a=\x01\r\na\r\n" + LAST)),
    BadRequest("end of line within quotes", "9112 7.1.1", chunked(b'1;a="\r\nb"\r\na\r\n' + LAST)),
    BadRequest("quotes that do not close", "9112 7.1.1", chunked(b'1;a="b\r\na\r\n' + LAST)),
    BadRequest("extension over its limit", "9112 7.1.1", chunked(b"1;" + b"a" * 257 + b"\r\na\r\n" + LAST)),
    BadRequest("length in a trailer", "9110 6.5.1", chunked(b"0\r\nContent-Length: 33\r\n\r\n" + HIDDEN)),
    BadRequest("coding in a trailer", "9110 6.5.1", chunked(b"0\r\nTransfer-Encoding: chunked\r\n\r\n")),
    BadRequest("host in a trailer", "9110 6.5.1", chunked(b"0\r\nHost: b\r\n\r\n")),
    BadRequest("folded trailer", "9112 5.2", chunked(b"0\r\nA: b\r\n c\r\n\r\n")),
    BadRequest("trailer without colon", "9112 5", chunked(b"0\r\nA\r\n\r\n")),
    BadRequest("bare lf in a trailer", "9112 2.2", chunked(b"0\r\nA: b\nC: d\r\n\r\n")),
    BadRequest("trailers over their limit", "9112 7.1.2", chunked(b"0\r\nA: " + b"b" * 8192 + b"\r\n\r\n")),
)

REQUEST_LINES = (
    BadRequest("bare lf", "9112 2.2", b"GET /v1 HTTP/1.1\nHost: a\r\n\r\n"),
    BadRequest("bare lf everywhere", "9112 2.2", b"GET /v1 HTTP/1.1\nHost: a\n\n"),
    BadRequest("bare cr", "9112 2.2", b"GET /v1 HTTP/1.1\rHost: a\r\n\r\n"),
    BadRequest("two cr", "9112 2.2", b"GET /v1 HTTP/1.1\r\r\nHost: a\r\n\r\n"),
    BadRequest("lf before cr", "9112 2.2", b"GET /v1 HTTP/1.1\n\rHost: a\r\n\r\n"),
    BadRequest("two empty lines before", "9112 2.2", b"\r\n\r\n" + PLAIN),
    BadRequest("bare lf before", "9112 2.2", b"\n" + PLAIN),
    BadRequest("space before", "9112 2.2", b" " + PLAIN),
    BadRequest("byte order mark before", "9112 2.2", b"\xef\xbb\xbf" + PLAIN),
    BadRequest("nul before", "9112 2.2", b"\0" + PLAIN),
    BadRequest("handshake of tls", "9112 3", b"\x16\x03\x01\x02\x00\x01"),
    BadRequest("no version", "9112 3", line(b"GET /v1")),
    BadRequest("only a method", "9112 3", line(b"GET")),
    BadRequest("no target", "9112 3", line(b"GET HTTP/1.1")),
    BadRequest("two spaces before the target", "9112 3", line(b"GET  /v1 HTTP/1.1")),
    BadRequest("two spaces before the version", "9112 3", line(b"GET /v1  HTTP/1.1")),
    BadRequest("space at the end", "9112 3", line(b"GET /v1 HTTP/1.1 ")),
    BadRequest("tabs for spaces", "9112 3", line(b"GET\t/v1\tHTTP/1.1")),
    BadRequest("form feed for a space", "9112 3", line(b"GET\x0c/v1 HTTP/1.1")),
    BadRequest("space in the target", "9112 3.2", line(b"GET /v1 x HTTP/1.1")),
    BadRequest("two versions", "9112 3", line(b"GET /v1 HTTP/1.1 HTTP/1.1")),
    BadRequest("version of lower case", "9112 2.3", line(b"GET /v1 http/1.1")),
    BadRequest("version of one number", "9112 2.3", line(b"GET /v1 HTTP/1")),
    BadRequest("version of three digits", "9112 2.3", line(b"GET /v1 HTTP/1.10")),
    BadRequest("version with a zero before", "9112 2.3", line(b"GET /v1 HTTP/01.1")),
    BadRequest("another protocol", "9112 2.3", line(b"GET /v1 ICAP/1.0")),
    BadRequest("version 0.9", "9110 15.6.6", line(b"GET /v1 HTTP/0.9"), 505),
    BadRequest("version 1.2", "9110 15.6.6", line(b"GET /v1 HTTP/1.2"), 505),
    BadRequest("version 2.0", "9110 15.6.6", line(b"GET /v1 HTTP/2.0"), 505),
    BadRequest("preface of version 2", "9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    BadRequest("method is no token", "9110 9.1", line(b"GE,T /v1 HTTP/1.1")),
    BadRequest("nul in the method", "9110 9.1", line(b"GE\0T /v1 HTTP/1.1")),
    BadRequest("colon in the method", "9110 9.1", b"Host: a\r\n" + PLAIN),
    BadRequest("endless method", "9112 3", line(b"A" * 33 + b" /v1 HTTP/1.1"), 501),
    BadRequest("connect", "9110 9.3.6", line(b"CONNECT a:443 HTTP/1.1"), 501),
    BadRequest("trace", "9110 9.3.8", line(b"TRACE /v1 HTTP/1.1"), 501),
    BadRequest("target without slash", "9112 3.2.1", line(b"GET v1 HTTP/1.1")),
    BadRequest("backslash for a slash", "9112 3.2.1", line(b"GET \\v1 HTTP/1.1")),
    BadRequest("fragment", "9112 3.2", line(b"GET /v1#a HTTP/1.1")),
    BadRequest("nul in the target", "9112 3.2", line(b"GET /v1\0 HTTP/1.1")),
    BadRequest("delete in the target", "9112 3.2", line(b"GET /v1\x7f HTTP/1.1")),
    BadRequest("target not ascii", "9112 3.2", line("GET /é HTTP/1.1".encode())),
    BadRequest("bare cr in the target", "9112 3.2", line(b"GET /v1\rA: b HTTP/1.1")),
    BadRequest("escape that is not whole", "3986 2.1", line(b"GET /v1%4 HTTP/1.1")),
    BadRequest("asterisk for another method", "9112 3.2.4", line(b"GET * HTTP/1.1")),
    BadRequest("authority for another method", "9112 3.2.3", line(b"GET a:80 HTTP/1.1")),
    BadRequest("another scheme", "9112 3.2.2", line(b"GET ftp://a/v1 HTTP/1.1")),
    BadRequest("target of another host", "9112 3.2.2", line(b"GET http://b/v1 HTTP/1.1")),
    BadRequest("target of another port", "9112 3.2.2", line(b"GET http://a:81/v1 HTTP/1.1")),
    BadRequest("target with a user", "9112 3.2.2", line(b"GET http://a@b/v1 HTTP/1.1")),
    BadRequest("target without authority", "9112 3.2.2", line(b"GET http:///v1 HTTP/1.1")),
    BadRequest("endless target", "9110 15.5.15", line(b"GET /" + b"a" * MAX_HEAD + b" HTTP/1.1"), 414),
    BadRequest("line without end", "9110 15.5.15", b"A" * (MAX_HEAD + 1), 414),
)

FIELDS = (
    BadRequest("no host", "9112 3.2", b"GET /v1 HTTP/1.1\r\n\r\n"),
    BadRequest("host twice", "9112 3.2", host(b"a\r\nHost: a")),
    BadRequest("two hosts", "9112 3.2", host(b"a\r\nHost: b")),
    BadRequest("two hosts on version 1.0", "9112 3.2", b"GET /v1 HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    BadRequest("empty host", "9110 7.2", host(b"")),
    BadRequest("only a port", "9110 7.2", host(b":80")),
    BadRequest("list of hosts", "9110 7.2", host(b"a, b")),
    BadRequest("host with a user", "9110 7.2", host(b"a@b")),
    BadRequest("host with a path", "9110 7.2", host(b"a/b")),
    BadRequest("host with a space", "9110 7.2", host(b"a b")),
    BadRequest("host with a scheme", "9110 7.2", host(b"http://a")),
    BadRequest("port that is no number", "9110 7.2", host(b"a:b")),
    BadRequest("port beyond all ports", "9110 7.2", host(b"a:65536")),
    BadRequest("brackets without address", "3986 3.2.2", host(b"[a]")),
    BadRequest("bytes behind the brackets", "3986 3.2.2", host(b"[::1]a")),
    BadRequest("host with an underscore", "9110 5.1", fields(b"Host_: b")),
    BadRequest("folded host", "9112 5.2", host(b"a\r\n b")),
    BadRequest("host only in a fold", "9112 5.2", b"GET /v1 HTTP/1.1\r\nA: b\r\n Host: a\r\n\r\n"),
    BadRequest("space before the first field", "9112 2.2", b"GET /v1 HTTP/1.1\r\n Host: a\r\n\r\n"),
    BadRequest("fold with a space", "9112 5.2", fields(b"A: b\r\n c")),
    BadRequest("fold with a tab", "9112 5.2", fields(b"A: b\r\n\tc")),
    BadRequest("fold of nothing", "9112 5.2", fields(b"A: b\r\n ")),
    BadRequest("space before the colon", "9112 5.1", fields(b"A : b")),
    BadRequest("no name", "9110 5.1", fields(b": b")),
    BadRequest("no colon", "9112 5", fields(b"A")),
    BadRequest("equals for the colon", "9112 5", fields(b"A=b")),
    BadRequest("name is no token", "9110 5.1", fields(b"A(b): c")),
    BadRequest("name not ascii", "9110 5.1", fields(b"A\xe9: b")),
    BadRequest("nul in a name", "9110 5.1", fields(b"A\0: b")),
    BadRequest("nul in a value", "9110 5.5", fields(b"A: b\0c")),
    BadRequest("bell in a value", "9110 5.5", fields(b"A: b\x07c")),
    BadRequest("delete in a value", "9110 5.5", fields(b"A: b\x7fc")),
    BadRequest("bare cr in a value", "9112 2.2", fields(b"A: b\rc")),
    BadRequest("bare lf in a value", "9112 2.2", fields(b"A: b\nc")),
    BadRequest("two cr behind a value", "9112 2.2", fields(b"A: b\r")),
    BadRequest("bare lf for the empty line", "9112 2.2", b"GET /v1 HTTP/1.1\r\nHost: a\r\n\n"),
    BadRequest("bare cr for the empty line", "9112 2.2", b"GET /v1 HTTP/1.1\r\nHost: a\r\n\r" + HIDDEN),
    BadRequest("space in the empty line", "9112 2.2", b"GET /v1 HTTP/1.1\r\nHost: a\r\n \r\n"),
    BadRequest("unknown expectation", "9110 10.1.1", fields(b"Expect: 200-ok"), 417),
    BadRequest("list of expectations", "9110 10.1.1", fields(b"Expect: 100-continue, x", ZERO), 417),
    BadRequest("expectation twice, once unknown", "9110 10.1.1", fields(b"Expect: x", b"Expect: 100-continue"), 417),
    BadRequest("fields over the limit", "6585 5", fields(b"A: " + b"b" * MAX_HEAD), 431),
    BadRequest("field without end", "6585 5", b"GET /v1 HTTP/1.1\r\nHost: a\r\nA: " + b"b" * MAX_HEAD, 431),
    BadRequest("name without end", "6585 5", b"GET /v1 HTTP/1.1\r\nHost: a\r\n" + b"A" * MAX_HEAD, 431),
    BadRequest("flood of fields", "6585 5", fields(*[b"A: b"] * 128), 431),
)

# Behind a request that is taken, nothing is read more kindly than at the start of the connection.
SECONDS = (
    BadRequest("nul behind a request", "9112 2.2", PLAIN + b"\0" + HIDDEN, before=1),
    BadRequest("space behind a request", "9112 2.2", PLAIN + b" " + HIDDEN, before=1),
    BadRequest("two empty lines behind a body", "9112 2.2", chunked(LAST) + b"\r\n\r\n" + HIDDEN, before=1),
    BadRequest("bare lf behind a body", "9112 2.2", fields(ONE, body=b"a\n") + HIDDEN, before=1),
    BadRequest("second end of the chunks", "9112 7.1", chunked(LAST + LAST), before=1),
    BadRequest("body that nothing announces", "9112 6.3", PLAIN + b'{"model": "a"}\r\n', before=1),
    BadRequest("body longer than its length", "9112 6.3", fields(ONE, body=b'a{"b"}'), before=1),
    BadRequest("second with two lengths", "9112 6.1", PLAIN + fields(b"Content-Length: 5", TE, body=LAST), before=1),
    BadRequest("third with two lengths", "9112 6.1", PLAIN * 2 + fields(TE, ZERO), before=2),
    BadRequest("second over the limit", "6585 5", PLAIN + fields(b"A: " + b"b" * MAX_HEAD), 431, before=1),
    BadRequest("preface behind a request", "9113 3.4", PLAIN + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, before=1),
)

BAD_REQUESTS = LENGTHS + CODINGS + CHUNKS + REQUEST_LINES + FIELDS + SECONDS

ODD_REQUESTS = (
    OddRequest("empty line before", "9112 2.2", b"\r\n" + PLAIN),
    OddRequest("no space before a value", "9112 5", fields(b"A:b"), fields=[(b"host", b"a"), (b"a", b"b")]),
    OddRequest(
        "white space around a value", "9112 5.1", fields(b"A: \t b \tc \t "), fields=[(b"host", b"a"), (b"a", b"b \tc")]
    ),
    OddRequest("white space around a length", "9112 5.1", fields(b"Content-Length:\t 1 \t", body=b"a"), body=b"a"),
    OddRequest("names of any case", "9110 5.1", fields(b"cOnTeNt-LeNgTh: 1", body=b"a"), body=b"a"),
    OddRequest(
        "coding of any case", "9112 7", fields(b"tRANSFER-eNCODING: cHuNkEd", body=b"1\r\na\r\n" + LAST), body=b"a"
    ),
    OddRequest("spaces around a coding", "9112 5.1", fields(b"Transfer-Encoding:  chunked  ", body=LAST)),
    OddRequest("zeros before a length", "9110 8.6", fields(b"Content-Length: 0001", body=b"a"), body=b"a"),
    OddRequest("length zero", "9110 8.6", fields(ZERO)),
    OddRequest("body of a get", "9110 9.3.1", b"GET /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na", body=b"a"),
    OddRequest("body that looks like a request", "9112 6.3", fields(b"Content-Length: 33", body=HIDDEN), body=HIDDEN),
    OddRequest("chunk that looks like an end", "9112 7.1", chunked(b"5\r\n0\r\n\r\n\r\n" + LAST), body=LAST),
    OddRequest(
        "chunks of any case",
        "9112 7.1",
        chunked(b"a\r\n0123456789\r\nA\r\n0123456789\r\n" + LAST),
        body=b"0123456789" * 2,
    ),
    OddRequest("zeros before a size", "9112 7.1", chunked(b"0001\r\na\r\n0000\r\n\r\n"), body=b"a"),
    OddRequest("extension", "9112 7.1.1", chunked(b"1;a\r\na\r\n0;b=c\r\n\r\n"), body=b"a"),
    OddRequest("quoted extension", "9112 7.1.1", chunked(b'1;a="b c"\r\na\r\n' + LAST), body=b"a"),
    OddRequest(
        "trailer is dropped",
        "9110 6.5.1",
        chunked(b"1\r\na\r\n0\r\nA: b\r\nC:\r\n\r\n"),
        body=b"a",
        fields=[(b"host", b"a"), (b"transfer-encoding", b"chunked")],
    ),
    OddRequest(
        "field twice", "9110 5.3", fields(b"A: b", b"a: c"), fields=[(b"host", b"a"), (b"a", b"b"), (b"a", b"c")]
    ),
    OddRequest("empty value", "9110 5.5", fields(b"A:", b"B: "), fields=[(b"host", b"a"), (b"a", b""), (b"b", b"")]),
    OddRequest("obs-text", "9110 5.5", fields(b"A: \xff\x80"), fields=[(b"host", b"a"), (b"a", b"\xff\x80")]),
    OddRequest("odd name that is a token", "9110 5.6.2", fields(b"!#$%&'*+.^`|~0: b")),
    OddRequest("underscore elsewhere", "9110 5.1", fields(b"X_Length: 5")),
    OddRequest(
        "length named by connection",
        "9110 7.6.1",
        fields(b"Connection: content-length", ONE, body=b"a"),
        body=b"a",
    ),
    OddRequest("host named by connection", "9110 7.6.1", fields(b"Connection: host")),
    OddRequest(
        "expectation of any case",
        "9110 10.1.1",
        fields(b"Expect: 100-CONTINUE", ONE, body=b"a"),
        body=b"a",
    ),
    OddRequest("port of host is empty", "9110 7.2", host(b"a:")),
    OddRequest("address of version 6", "3986 3.2.2", host(b"[::1]:80")),
    OddRequest("absolute target", "9112 3.2.2", line(b"GET http://a/v1 HTTP/1.1"), b"http://a/v1"),
    OddRequest("absolute target of any case", "9112 3.2.2", line(b"GET HTTP://A/v1 HTTP/1.1"), b"HTTP://A/v1"),
    OddRequest("empty segments", "9112 3.2.1", line(b"GET //a//b HTTP/1.1"), b"//a//b"),
    OddRequest("escaped end of line", "3986 2.1", line(b"GET /%0d%0aA:b HTTP/1.1"), b"/%0d%0aA:b"),
    OddRequest("query with question marks", "3986 3.4", line(b"GET /v1??a=/?b HTTP/1.1"), b"/v1??a=/?b"),
    OddRequest("asterisk", "9112 3.2.4", line(b"OPTIONS * HTTP/1.1"), b"*"),
    OddRequest("version 1.0 with a length", "9112 6.3", fields(ONE, body=b"a", version=b"1.0"), body=b"a"),
)

BAD_RESPONSES = (
    BadResponse("length and chunks", "9112 6.1", answer(b"Content-Length: 5", TE, body=LAST)),
    BadResponse("chunks and length", "9112 6.1", answer(TE, ZERO, body=LAST)),
    BadResponse("chunks on version 1.0", "9112 6.1", answer(TE, body=LAST, version=b"1.0")),
    BadResponse("length twice", "9112 6.3", answer(ONE, ONE, body=b"a")),
    BadResponse("two lengths", "9112 6.3", answer(ONE, b"Content-Length: 2", body=b"ab")),
    BadResponse("list of lengths", "9112 6.3", answer(b"Content-Length: 1, 1", body=b"a")),
    BadResponse("negative length", "9110 8.6", answer(b"Content-Length: -1")),
    BadResponse("length with plus", "9110 8.6", answer(b"Content-Length: +1", body=b"a")),
    BadResponse("hexadecimal length", "9110 8.6", answer(b"Content-Length: 0x1", body=b"a")),
    BadResponse("empty length", "9110 8.6", answer(b"Content-Length:")),
    BadResponse("length past 64 bits", "9110 8.6", answer(b"Content-Length: 18446744073709551617", body=b"a")),
    BadResponse("length with an underscore", "9110 5.1", answer(b"Content_Length: 1", body=b"a")),
    BadResponse("compressed and chunked", "9112 6.1", answer(b"Transfer-Encoding: gzip, chunked", body=LAST)),
    BadResponse("chunked is not last", "9112 6.1", answer(b"Transfer-Encoding: chunked, gzip", body=LAST)),
    BadResponse("coding twice", "9112 6.1", answer(TE, TE, body=LAST)),
    BadResponse("identity", "9112 7", answer(b"Transfer-Encoding: identity", body=b"a")),
    BadResponse("size not hexadecimal", "9112 7.1", chunked_answer(b"g\r\n")),
    BadResponse("no size", "9112 7.1", chunked_answer(b"\r\n")),
    BadResponse("negative size", "9112 7.1", chunked_answer(b"-1\r\n")),
    BadResponse("space after the size", "9112 7.1", chunked_answer(b"1 \r\na\r\n")),
    BadResponse("size past 64 bits", "9112 7.1", chunked_answer(b"10000000000000001\r\n")),
    BadResponse(
        "sizes that add up past 64 bits", "9112 7.1", chunked_answer(b"1\r\na\r\nffffffffffffffff\r\n"), body=b"a"
    ),
    BadResponse("bare lf after the size", "9112 7.1", chunked_answer(b"1\na\r\n")),
    BadResponse("bare lf after the data", "9112 7.1", chunked_answer(b"1\r\na\n"), body=b"a"),
    BadResponse("bare cr after the data", "9112 7.1", chunked_answer(b"1\r\na\rx"), body=b"a"),
    BadResponse("data longer than its size", "9112 7.1", chunked_answer(b"1\r\nab"), body=b"a"),
    BadResponse("bare lf at the end", "9112 7.1", chunked_answer(b"0\r\n\n")),
    BadResponse("bare lf in an extension", "9112 7.1.1", chunked_answer(b"1;\na\r\n")),
    BadResponse("endless extension", "9112 7.1.1", chunked_answer(b"1;" + b"a" * 300)),
    BadResponse("length in a trailer", "9110 6.5.1", chunked_answer(b"0\r\nContent-Length: 5\r\n\r\n")),
    BadResponse("endless trailer", "9112 7.1.2", chunked_answer(b"0\r\nA: " + b"b" * 8192)),
    BadResponse("fold", "9112 5.2", answer(b"A: b\r\n c", ZERO)),
    BadResponse("folded length", "9112 5.2", answer(b"Content-Length:\r\n 1", body=b"a")),
    BadResponse("space before the first field", "9112 2.2", b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n"),
    BadResponse("space before the colon", "9112 5.1", answer(b"Content-Length : 0")),
    BadResponse("no colon", "9112 5", answer(b"Content-Length 0")),
    BadResponse("no name", "9110 5.1", answer(b": 0")),
    BadResponse("nul in a value", "9110 5.5", answer(b"A: b\0", ZERO)),
    BadResponse("bare cr in a value", "9112 2.2", answer(b"A: b\rContent-Length: 0")),
    BadResponse("bare lf in the head", "9112 2.2", answer(b"A: b\nContent-Length: 0")),
    BadResponse("bare lf for the empty line", "9112 2.2", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n"),
    BadResponse("bare lf in the status line", "9112 2.2", b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"),
    BadResponse("empty line before", "9112 2.2", b"\r\n" + answer(ZERO)),
    BadResponse("no status", "9112 4", b"HTTP/1.1 OK\r\n\r\n"),
    BadResponse("status of two digits", "9112 4", b"HTTP/1.1 20 OK\r\n\r\n"),
    BadResponse("status of four digits", "9112 4", b"HTTP/1.1 2000 OK\r\n\r\n"),
    BadResponse("status with plus", "9112 4", b"HTTP/1.1 +20 OK\r\n\r\n"),
    BadResponse("status zero", "9110 15", b"HTTP/1.1 000 OK\r\n\r\n"),
    BadResponse("status above all classes", "9110 15", b"HTTP/1.1 600 OK\r\n\r\n"),
    BadResponse("no space behind the status", "9112 4", b"HTTP/1.1 200OK\r\n\r\n"),
    BadResponse("two spaces before the status", "9112 4", b"HTTP/1.1  200 OK\r\n\r\n"),
    BadResponse("control in the reason", "9112 4", b"HTTP/1.1 200 O\x01K\r\n\r\n"),
    BadResponse("bare cr in the reason", "9112 4", b"HTTP/1.1 200 OK\rA: b\r\n\r\n"),
    BadResponse("version of lower case", "9112 2.3", b"http/1.1 200 OK\r\n\r\n"),
    BadResponse("version 2", "9112 2.3", b"HTTP/2.0 200 OK\r\n\r\n"),
    BadResponse("version 0.9", "9112 2.3", b"<html>hello</html>\r\n"),
    BadResponse("another protocol", "9112 2.3", b"SSH-2.0-a\r\n"),
    BadResponse("status line without end", "9112 4", b"A" * (MAX_HEAD + 1)),
    BadResponse("fields over the limit", "6585 5", answer(b"A: " + b"b" * MAX_HEAD)),
    BadResponse("field without end", "6585 5", b"HTTP/1.1 200 OK\r\nA: " + b"b" * MAX_HEAD),
    BadResponse("flood of fields", "6585 5", answer(*[b"A: b"] * 129)),
    BadResponse(
        "switch that nobody asked for", "9110 15.2.2", answer(b"Upgrade: h2c", status=b"101 Switching Protocols")
    ),
    BadResponse("interim response with a length", "9110 8.6", answer(ONE, body=b"a", status=b"100 Continue")),
    BadResponse("interim response with chunks", "9112 6.1", answer(TE, body=LAST, status=b"103 Early Hints")),
    BadResponse("flood of interim responses", "9110 15.2", answer(status=b"102 Processing") * 9),
    BadResponse("no content with a length", "9110 8.6", answer(ONE, body=b"a", status=b"204 No Content")),
    BadResponse("no content with chunks", "9112 6.1", answer(TE, body=LAST, status=b"204 No Content")),
    BadResponse("two lengths for head", "9112 6.3", answer(ONE, b"Content-Length: 2"), method="HEAD"),
    BadResponse("nothing", "9112 8", b"", "truncated"),
    BadResponse("end in the status line", "9112 8", b"HTTP/1.1 200", "truncated"),
    BadResponse("end in the fields", "9112 8", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", "truncated"),
    BadResponse("end behind an interim response", "9112 8", answer(status=b"100 Continue"), "truncated"),
    BadResponse("end in the body", "9112 8", answer(b"Content-Length: 5", body=b"abc"), "truncated", b"abc"),
    BadResponse(
        "length beyond all memory", "9112 8", answer(b"Content-Length: " + b"9" * 18, body=b"a"), "truncated", b"a"
    ),
    BadResponse("size beyond all memory", "9112 8", chunked_answer(b"ffffffffffffffff\r\na"), "truncated", b"a"),
    BadResponse("end in a chunk", "9112 8", chunked_answer(b"5\r\nabc"), "truncated", b"abc"),
    BadResponse("end between chunks", "9112 8", chunked_answer(b"1\r\na\r\n"), "truncated", b"a"),
    BadResponse("end in the last chunk", "9112 8", chunked_answer(b"1\r\na\r\n0\r\n"), "truncated", b"a"),
    BadResponse("end in the trailer", "9112 8", chunked_answer(b"1\r\na\r\n0\r\nA: b\r\n"), "truncated", b"a"),
    BadResponse("bytes behind a length", "9112 9.3", answer(ONE, body=b"ab"), "not reusable", b"a"),
    BadResponse("end of line behind a length", "9112 9.3", answer(ONE, body=b"a\r\n"), "not reusable", b"a"),
    BadResponse(
        "bytes behind the chunks", "9112 9.3", chunked_answer(b"1\r\na\r\n" + LAST + b"x"), "not reusable", b"a"
    ),
    BadResponse("second response", "9112 9.2", answer(ZERO) * 2, "not reusable"),
    BadResponse("interim response behind", "9112 9.2", answer(ZERO) + INTERIM, "not reusable"),
    BadResponse("bytes behind no content", "9112 6.3", answer(body=b"a", status=b"204 No Content"), "not reusable"),
    BadResponse(
        "bytes behind not modified", "9112 6.3", answer(ONE, body=b"a", status=b"304 Not Modified"), "not reusable"
    ),
    BadResponse("body for head", "9110 9.3.2", answer(ONE, body=b"a"), "not reusable", method="HEAD"),
    BadResponse("chunks for head", "9110 9.3.2", answer(TE, body=LAST), "not reusable", method="HEAD"),
    BadResponse("asked to close", "9112 9.6", answer(b"Connection: close", ONE, body=b"a"), "not reusable", b"a"),
    BadResponse("close in a list", "9112 9.6", answer(b"Connection: x, CLOSE", ONE, body=b"a"), "not reusable", b"a"),
    BadResponse("close and keep-alive", "9112 9.3", answer(b"Connection: keep-alive, close", ZERO), "not reusable"),
    BadResponse("version 1.0", "9112 9.3", answer(ONE, body=b"a", version=b"1.0"), "not reusable", b"a"),
)
