"""Pages of other origins: what is said to browsers of those that are listed, and of all others."""

import pytest
from quiver.proxy.access.cors import CrossOrigin, origin_in
from quiver.schemas.config import Cors

from .test_keys import headers

CHAT, EVIL = b"https://chat.lab", b"https://chat.lab.evil.example"
LISTED = Cors(origins=("https://chat.lab", "http://localhost:3000"))

REPLIES: list[tuple[Cors, bytes | None, bytes | None]] = [
    (LISTED, CHAT, CHAT),
    (LISTED, b"http://localhost:3000", b"http://localhost:3000"),
    (LISTED, EVIL, None),
    (LISTED, b"http://chat.lab", None),
    (LISTED, b"https://chat.lab:443", None),
    (LISTED, b"HTTPS://CHAT.LAB", None),
    (LISTED, b"null", None),
    (LISTED, None, None),
    (Cors(origins=("*",)), EVIL, b"*"),
    (Cors(origins=("*",)), b"null", None),
    (Cors(origins=("*", "null")), b"null", b"null"),
    (Cors(origins=("*", "https://chat.lab")), CHAT, CHAT),
]


@pytest.mark.parametrize(("config", "origin", "allowed"), REPLIES)
def test_origins_are_exact(config: Cors, origin: bytes | None, allowed: bytes | None) -> None:
    said = dict(CrossOrigin(config).headers(origin))
    assert said.get(b"access-control-allow-origin") == allowed
    assert said[b"vary"] == b"Origin"
    assert b"access-control-allow-credentials" not in said
    assert (b"access-control-expose-headers" in said) is (allowed is not None)
    if allowed is not None:
        exposed = said[b"access-control-expose-headers"].split(b", ")
        assert {b"X-Request-ID", b"X-Gateway-Server-ID", b"Retry-After", b"X-RateLimit-Remaining-Budget"} <= {*exposed}


def asked(origin: bytes = CHAT, **fields: bytes) -> dict[str, bytes]:
    return {"origin": origin, "access_control_request_method": b"POST", **fields}


def test_preflight_says_what_is_allowed() -> None:
    said = CrossOrigin(LISTED).preflight(headers(**asked(access_control_request_headers=b"authorization,x-session-id")))
    assert said is not None
    assert dict(said) == {
        b"vary": dict(said)[b"vary"],
        b"access-control-allow-origin": CHAT,
        b"access-control-allow-methods": b"GET, HEAD, POST, PUT, PATCH, DELETE",
        b"access-control-allow-headers": b"authorization,x-session-id",
        b"access-control-max-age": b"600",
    }
    assert b"Access-Control-Request-Headers" in dict(said)[b"vary"]


def test_preflight_of_strangers_says_nothing() -> None:
    for origin in (EVIL, b"null"):
        said = CrossOrigin(LISTED).preflight(headers(**asked(origin)))
        assert said is not None
        assert [name for name, _ in said] == [b"vary"]


def test_what_is_no_preflight_is_not_answered() -> None:
    cors = CrossOrigin(LISTED)
    assert cors.preflight(headers(origin=CHAT)) is None
    assert cors.preflight(headers(access_control_request_method=b"POST")) is None


def test_configured_fields_and_credentials() -> None:
    config = Cors(
        origins=("https://chat.lab",), methods=("GET",), headers=("X-One", "X-Two"), credentials=True, max_age=5
    )
    cors = CrossOrigin(config)
    said = dict(cors.preflight(headers(**asked(access_control_request_headers=b"anything"))) or ())
    assert said[b"access-control-allow-headers"] == b"X-One, X-Two"
    assert said[b"access-control-allow-methods"] == b"GET"
    assert said[b"access-control-allow-credentials"] == b"true"
    assert said[b"access-control-max-age"] == b"5"
    assert dict(cors.headers(CHAT))[b"access-control-allow-credentials"] == b"true"
    assert b"access-control-allow-credentials" not in dict(cors.headers(EVIL))


@pytest.mark.parametrize(("origins", "allowed"), [(("https://chat.lab",), True), (("*",), False)])
def test_private_network_takes_a_listed_origin(origins: tuple[str, ...], allowed: bool) -> None:
    cors = CrossOrigin(Cors(origins=origins))
    fields = asked(access_control_request_private_network=b"true")
    assert (b"access-control-allow-private-network" in dict(cors.preflight(headers(**fields)) or ())) is allowed
    assert b"access-control-allow-private-network" not in dict(cors.preflight(headers(**asked())) or ())


HEADS = [
    (b"POST / HTTP/1.1\r\nHost: x\r\nOrigin: https://chat.lab\r\n\r\n", CHAT),
    (b"POST / HTTP/1.1\r\norigin:\thttps://chat.lab \r\nHost: x", CHAT),
    (b"POST / HTTP/1.1\r\nX-Origin: https://chat.lab\r\n\r\n", None),
    (b"POST / HTTP/1.1\r\nHost: x\r\n\r\nbody\r\nOrigin: https://chat.lab\r\n", None),
    (b"POST / HTTP/1.1\r\nOrigin: two words\r\n\r\n", None),
    (b"", None),
]


@pytest.mark.parametrize(("head", "origin"), HEADS)
def test_origin_is_found_in_a_refused_head(head: bytes, origin: bytes | None) -> None:
    assert origin_in(head) == origin
