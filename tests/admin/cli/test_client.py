"""The command line's HTTP client against real sockets that say the right thing, the wrong thing, or nothing."""

import socket
from collections.abc import Callable

import pytest
from quiver.admin.cli.client import Client, ClientError, RequestFailed

from ..conftest import Speak, events, reply

ENVELOPE = b'{"error": {"message": "No server offers `x`", "type": "invalid_request_error", "code": "model_not_found"}}'

ADDRESSES: list[tuple[str, str | None]] = [
    ("http://h:1", "http://h:1"),
    ("http://h:1/", "http://h:1"),
    ("http://h:1/v1", "http://h:1"),
    ("http://h:1/v1/", "http://h:1"),
    ("https://h/quiver/v1", "https://h/quiver"),
    ("h:8080", "http://h:8080"),
    ("http://[::1]:8080", "http://[::1]:8080"),
    ("http://me:pass@h:1", "http://h:1"),
    ("ftp://h", None),
    ("http://", None),
    ("http://h:port", None),
    ("http://h:99999", None),
]

BAD_REPLIES: list[tuple[bytes, str]] = [
    (b"", "{url} does not answer in HTTP"),
    (b"SSH-2.0-OpenSSH_9.6\r\n", "{url} does not answer in HTTP"),
    (reply("404 Not Found", b"<h1>nope</h1>", "text/html"), "what answered is no Quiver gateway (status 404)"),
    (reply("302 Found", b""), "what answered is no Quiver gateway (status 302)"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "the connection ended before the answer was complete"),
]

STREAMS: list[tuple[bytes, list[bytes], str | None]] = [
    (events(b"1", b"2", b"[DONE]"), [b"1", b"2"], None),
    (events(b"[DONE]"), [], None),
    (events(b"1"), [b"1"], "the connection ended before the answer was complete"),
    (events(b"1", ended=False), [b"1"], "the connection ended before the answer was complete"),
    (events(b"1", ENVELOPE), [b"1"], "No server offers `x`"),
]


@pytest.mark.parametrize(("given", "url"), ADDRESSES)
def test_address_is_understood(given: str, url: str | None) -> None:
    if url is not None:
        assert Client(given).url == url
        return
    with pytest.raises(ClientError) as caught:
        Client(given)
    assert caught.value.hint == "write it as `http://127.0.0.1:8080`"


@pytest.mark.parametrize("key", ["line\nbreak", "schlüssel"])
def test_key_must_fit_http(key: str) -> None:
    with pytest.raises(ClientError, match="the API key has characters that HTTP cannot carry"):
        Client("h", key)


def test_key_and_base_are_sent(speak: Speak) -> None:
    speaker = speak(reply("200 OK", b"{}"))
    assert Client(f"{speaker.url}/below/v1", "the-key").get("/status") == b"{}"
    (sent,) = speaker.requests
    assert sent.startswith(b"GET /below/status HTTP/1.1\n")
    assert b"\nAuthorization: Bearer the-key\n" in sent


def test_error_envelope_is_raised(speak: Speak) -> None:
    speaker = speak(reply("404 Not Found", ENVELOPE))
    with pytest.raises(RequestFailed) as caught:
        Client(speaker.url).get("/v1/models")
    assert (caught.value.status, caught.value.error.code) == (404, "model_not_found")


@pytest.mark.parametrize(("raw", "message"), BAD_REPLIES)
def test_bad_reply_is_explained(speak: Speak, raw: bytes, message: str) -> None:
    speaker = speak(raw)
    with pytest.raises(ClientError) as caught:
        Client(speaker.url).get("/status")
    assert caught.value.message == message.format(url=speaker.url)


@pytest.mark.parametrize(("raw", "data", "message"), STREAMS)
def test_stream_gives_events_until_its_end(speak: Speak, raw: bytes, data: list[bytes], message: str | None) -> None:
    speaker = speak(raw)
    found: list[bytes] = []

    def follow() -> None:
        found.extend(Client(speaker.url).stream("/v1/chat/completions", b"{}"))

    if message is None:
        follow()
    else:
        with pytest.raises((ClientError, RequestFailed)) as caught:
            follow()
        assert str(caught.value) == message
    assert found == data


def nobody(listener: socket.socket) -> None:
    listener.close()


def silence(listener: socket.socket) -> None:
    listener.listen()


@pytest.mark.parametrize(
    ("prepare", "message", "hint"),
    [
        (nobody, "no gateway runs at {url}", "start one with `quiver serve`, or say where it is with QUIVER_URL"),
        (silence, "{url} did not answer within 0.05 s", None),
    ],
)
def test_missing_gateway_is_explained(prepare: Callable[[socket.socket], None], message: str, hint: str | None) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        prepare(listener)
        with pytest.raises(ClientError) as caught:
            Client(url, timeout=0.05).get("/status")
    assert (caught.value.message, caught.value.hint) == (message.format(url=url), hint)


def test_unknown_host_is_explained() -> None:
    with pytest.raises(ClientError, match=r"the host `no-such-host\.invalid` is not known"):
        Client("http://no-such-host.invalid").get("/status")
