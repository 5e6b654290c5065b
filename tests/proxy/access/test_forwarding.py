"""Proxies in front: only what a trusted one adds to the list of addresses is believed."""

import pytest
from quiver.proxy.access.forwarding import Proxies

TRUSTED = Proxies(["10.0.0.0/8", "fd00::/8", "127.0.0.1"])
PROXY, STRANGER = "10.0.0.1", "203.0.113.7"

# Who is connected, what its request says, and whose request it is.
HOPS: list[tuple[str, list[bytes], str]] = [
    (STRANGER, [b"198.51.100.1"], STRANGER),
    (PROXY, [b"198.51.100.1"], "198.51.100.1"),
    (PROXY, [b"6.6.6.6, 198.51.100.1"], "198.51.100.1"),
    (PROXY, [b"6.6.6.6, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
    (PROXY, [b"6.6.6.6", b"198.51.100.1", b"10.0.0.2 ,10.0.0.3"], "198.51.100.1"),
    (PROXY, [b"10.0.0.9, 10.0.0.2"], "10.0.0.9"),
    (PROXY, [], PROXY),
    (PROXY, [b""], PROXY),
    (PROXY, [b"unknown"], PROXY),
    (PROXY, [b"6.6.6.6, unknown, 10.0.0.2"], "10.0.0.2"),
    (PROXY, [b"6.6.6.6, <script>"], PROXY),
    (PROXY, [b"198.51.100.1:4711"], "198.51.100.1"),
    (PROXY, [b"[2001:db8::1]:4711"], "2001:db8::1"),
    (PROXY, [b"2001:DB8:0::1"], "2001:db8::1"),
    (PROXY, [b"\xff\xfe"], PROXY),
    ("fd00::1", [b"198.51.100.1"], "198.51.100.1"),
    ("::ffff:10.0.0.1", [b"198.51.100.1"], "198.51.100.1"),
    ("local", [b"198.51.100.1"], "local"),
]


@pytest.mark.parametrize(("peer", "lists", "client"), HOPS)
def test_rightmost_untrusted_address_counts(peer: str, lists: list[bytes], client: str) -> None:
    fields = [(b"host", b"x"), *((b"x-forwarded-for", value) for value in lists)]
    assert TRUSTED.client(peer, fields) == client
    assert TRUSTED.client(client, fields) in (client, TRUSTED.client(peer, fields))


def test_long_lists_are_not_read() -> None:
    assert TRUSTED.client(PROXY, [(b"x-forwarded-for", b"6.6.6.6" + b",10.0.0.2" * 100_000)]) == "10.0.0.2"


@pytest.mark.parametrize(
    ("peer", "told", "scheme"),
    [
        (PROXY, [b"https"], "https"),
        (PROXY, [b"http, HTTPS"], "https"),
        (PROXY, [b"https", b"http"], "http"),
        (PROXY, [b"gopher"], None),
        (PROXY, [], None),
        (STRANGER, [b"https"], None),
    ],
)
def test_scheme_is_the_proxys_word(peer: str, told: list[bytes], scheme: str | None) -> None:
    assert TRUSTED.scheme(peer, [(b"x-forwarded-proto", value) for value in told]) == scheme


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="999"):
        Proxies(["999.0.0.0/8"])
