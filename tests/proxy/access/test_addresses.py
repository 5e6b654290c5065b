"""Clients without a key: what counts as one address, and that being forgotten gives nobody a fresh limit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quiver.proxy.access.addresses import AddressBook, counted_address
from quiver.proxy.access.client import Client
from quiver.proxy.access.limits import admit_request
from quiver.schemas.config import Rate
from quiver.schemas.errors import ApiError

ADDRESSES = [
    ("203.0.113.9", "203.0.113.9"),
    ("192.168.1.5", "192.168.1.5"),
    ("127.0.0.1", None),
    ("127.8.9.1", None),
    ("::1", None),
    ("0:0:0:0:0:0:0:1", None),
    ("::ffff:127.0.0.1", None),
    ("::ffff:203.0.113.9", "203.0.113.9"),
    ("::ffff:cb00:7109", "203.0.113.9"),
    ("2a00:1450:4001:80b::200e", "2a00:1450:4001:80b::/64"),
    ("2a00:1450:4001:80b:ffff::1", "2a00:1450:4001:80b::/64"),
    ("2a00:1450:4001:80c::200e", "2a00:1450:4001:80c::/64"),
    ("fd00::1", "fd00::1"),
    ("FD00:0::2", "fd00::2"),
    ("fe80::1%eth0", "fe80::1%eth0"),
    ("", ""),
    ("not:an:address", "not:an:address"),
]


@pytest.mark.parametrize(("peer", "expected"), ADDRESSES)
def test_address_counts_as_one(peer: str, expected: str | None) -> None:
    assert counted_address(peer) == expected


def admitted(client: Client, now: float) -> bool:
    try:
        admit_request(client, now)
    except ApiError:
        return False
    return True


def test_each_address_has_limit() -> None:
    book = AddressBook(Rate(anonymous_requests_per_minute=60))
    for peer in ("10.0.0.1", "10.0.0.2"):
        assert [admitted(book.client(peer, 0.0), 0.0) for _ in range(61)] == [True] * 60 + [False]
    assert admitted(book.client("10.0.0.1", 1.0), 1.0)


def test_same_address_same_client() -> None:
    book = AddressBook(Rate())
    client = book.client("10.0.0.1", 0.0)
    assert book.client("10.0.0.1", 99.0) is client
    assert book.client("::ffff:10.0.0.1", 99.0) is client
    assert (client.name, client.scope, client.priority) == ("anonymous", "address:10.0.0.1", "normal")
    assert book.client("10.0.0.2", 99.0).scope == "address:10.0.0.2"
    assert len(book) == 2


def test_loopback_has_no_limit() -> None:
    book = AddressBook(Rate(anonymous_requests_per_minute=1))
    local = book.client("127.0.0.1", 0.0)
    assert book.client("::1", 0.0) is local
    assert (local.requests, local.tokens, len(book)) == (None, None, 0)


def test_zero_means_no_limit() -> None:
    book = AddressBook(Rate(anonymous_requests_per_minute=0, addresses=16))
    clients = [book.client(f"10.0.0.{number}", 0.0) for number in range(40)]
    assert {client.requests for client in clients} == {None}
    assert len({client.scope for client in clients}) == 40
    assert len(book) == 16


def test_full_buckets_go_first() -> None:
    book = AddressBook(Rate(anonymous_requests_per_minute=60, addresses=16))
    early = book.client("10.0.0.0", 0.0)
    clients = [book.client(f"10.0.0.{number}", 0.0) for number in range(1, 16)]
    for _ in range(30):
        admit_request(early, 0.0)
    for client in clients:
        admit_request(client, 20.0)
    late = book.client("10.1.0.0", 21.0)
    assert repr(book) == "<AddressBook: 16 of 16 addresses>"
    assert book.client("10.0.0.0", 21.0) is early
    assert book.client("10.0.0.2", 21.0) is clients[1]
    assert late.requests is not None
    assert late.requests.level(21.0) == 60
    assert book.client("10.0.0.1", 21.0) is not clients[0]


def test_fullest_goes_when_none_is_full() -> None:
    book = AddressBook(Rate(anonymous_requests_per_minute=60, addresses=16))
    clients = [book.client(f"10.0.0.{number}", 0.0) for number in range(16)]
    for number, client in enumerate(clients):
        for _ in range(40 - number):
            admit_request(client, 0.0)
    newcomer = book.client("10.1.0.0", 1.0)
    assert newcomer.requests is not None
    assert newcomer.requests.level(1.0) == 60 - 25 + 1
    assert book.client("10.0.0.0", 1.0) is clients[0]
    assert book.client("10.0.0.15", 1.0) is not clients[15]


def test_debt_of_forgotten_passes() -> None:
    book = AddressBook(Rate(anonymous_requests_per_minute=60, addresses=16))
    for number in range(16):
        client = book.client(f"10.0.0.{number}", 0.0)
        for _ in range(10):
            admit_request(client, 0.0)
    levels = []
    for number, now in enumerate((0.0, 4.0, 10.0, 30.0)):
        requests = book.client(f"10.1.0.{number}", now).requests
        assert requests is not None
        levels.append(requests.level(now))
    assert levels == [50, 54, 60, 60]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 39), st.integers(1, 8)), max_size=250))
def test_forgetting_never_adds_tokens(events: list[tuple[int, int, int]]) -> None:
    """However addresses come and go, each is admitted at most its limit and the refill since the beginning."""
    book = AddressBook(Rate(anonymous_requests_per_minute=6, addresses=16))
    passed = dict.fromkeys(range(40), 0)
    now = 0.0
    for pause, number, requests in events:
        now += pause
        for _ in range(requests):
            passed[number] += admitted(book.client(f"10.0.0.{number}", now), now)
        assert passed[number] <= 6 + now * 6 / 60 + 1e-6
        assert len(book) <= 16
