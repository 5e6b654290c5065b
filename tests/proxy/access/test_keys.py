"""Keys: who is let in, as whom, and that no key can be read back."""

import pytest
from quiver.proxy.access.client import Client
from quiver.proxy.access.keys import HeaderLookup, KeyRing, Statistics, presented_key
from quiver.proxy.access.limits import admit_request
from quiver.schemas.config import Key, Rate
from quiver.schemas.errors import INVALID_API_KEY, RATE_LIMITED, ApiError

ALICE = Key(
    name="alice",
    key="alice-secret",
    requests_per_minute=2,
    tokens_per_minute=500,
    models=("small", "team/large"),
    priority="high",
)
BOB = Key(name="bob", key="bobs-secret")
PEER = "203.0.113.9"


def headers(**fields: bytes) -> HeaderLookup:
    by_name = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return by_name.get


def bearer(key: str) -> HeaderLookup:
    return headers(authorization=b"Bearer " + key.encode())


SHOWN: list[tuple[dict[str, bytes], bytes | None]] = [
    ({}, None),
    ({"authorization": b"Bearer alice"}, b"alice"),
    ({"authorization": b"bearer  alice "}, b"alice"),
    ({"authorization": b"BEARER alice"}, b"alice"),
    ({"authorization": b"Bearer"}, None),
    ({"authorization": b"Bearer "}, None),
    ({"authorization": b"Basic YWxpY2U="}, None),
    ({"authorization": b"Basic YWxpY2U=", "x_api_key": b"alice"}, b"alice"),
    ({"x_api_key": b"alice"}, b"alice"),
    ({"authorization": b"Bearer alice", "x_api_key": b"bob"}, b"alice"),
]


@pytest.mark.parametrize(("fields", "expected"), SHOWN)
def test_keys_come_by_header(fields: dict[str, bytes], expected: bytes | None) -> None:
    assert presented_key(headers(**fields)) == expected


def test_key_is_its_owner() -> None:
    ring = KeyRing([ALICE, BOB])
    alice = ring.authenticate(bearer("alice-secret"), PEER, 0.0)
    bob = ring.authenticate(headers(x_api_key=b"bobs-secret"), PEER, 0.0)
    assert ring.authenticate(headers(x_api_key=b"alice-secret"), "10.0.0.1", 9.0) is alice
    assert (alice.name, alice.priority, alice.models) == ("alice", "high", frozenset({"small", "team/large"}))
    assert (bob.name, bob.priority, bob.models, bob.requests, bob.tokens) == ("bob", "normal", frozenset(), None, None)
    assert alice.scope != bob.scope
    assert alice.requests is not None
    assert (alice.requests.capacity, alice.requests.level(0.0)) == (2, 2)
    assert alice.tokens is not None
    assert (alice.tokens.bucket.capacity, alice.tokens.bucket.level(0.0)) == (500, 500)


ALLOWED = [
    ((), "anything", True),
    (("small", "team/large"), "small", True),
    (("small", "team/large"), "team/large", True),
    (("small", "team/large"), "large", False),
    (("small",), "", False),
]


@pytest.mark.parametrize(("models", "model", "expected"), ALLOWED)
def test_models_limit_a_key(models: tuple[str, ...], model: str, expected: bool) -> None:
    assert Client("a", "a", models=frozenset(models)).allows(model) is expected


REFUSED = [
    (headers(), "No API key was sent; send `Authorization: Bearer YOUR_KEY`"),
    (headers(authorization=b"Basic abc"), "No API key was sent; send `Authorization: Bearer YOUR_KEY`"),
    (bearer("alice"), "The API key is not known to this gateway"),
    (bearer("alice-secret-and-more"), "The API key is not known to this gateway"),
    (bearer("k\u00e9y"), "The API key is not known to this gateway"),
    (headers(x_api_key=b""), "The API key is not known to this gateway"),
    (headers(x_api_key=b"\xff" * 5000), "The API key is not known to this gateway"),
]


@pytest.mark.parametrize("peer", ["127.0.0.1", PEER])
@pytest.mark.parametrize(("header", "message"), REFUSED)
def test_strangers_are_refused(header: HeaderLookup, message: str, peer: str) -> None:
    with pytest.raises(ApiError) as caught:
        KeyRing([ALICE]).authenticate(header, peer, 0.0)
    assert (caught.value.kind, caught.value.message) == (INVALID_API_KEY, message)
    assert caught.value.headers() == [(b"www-authenticate", b"Bearer")]


def test_no_keys_admits_everyone() -> None:
    ring = KeyRing(rate=Rate(anonymous_requests_per_minute=1))
    assert not ring.required
    client = ring.authenticate(bearer("ignored-key"), PEER, 0.0)
    assert (client.name, client.scope) == ("anonymous", f"address:{PEER}")
    admit_request(client, 0.0)
    with pytest.raises(ApiError) as caught:
        admit_request(ring.authenticate(headers(), PEER, 0.0), 0.0)
    assert (caught.value.kind, caught.value.retry_after) == (RATE_LIMITED, 60)
    assert ring.authenticate(headers(), "127.0.0.1", 0.0).requests is None


def test_plain_keys_have_no_limits() -> None:
    ring = KeyRing([ALICE], ["first-plain", "second-plain", "alice-secret", "first-plain"])
    first, second = (ring.authenticate(bearer(key), PEER, 0.0) for key in ("first-plain", "second-plain"))
    assert (first.name, second.name) == ("key-1", "key-2")
    assert first.scope != second.scope
    assert (first.requests, first.tokens, first.models) == (None, None, frozenset())
    assert ring.authenticate(bearer("alice-secret"), PEER, 0.0).name == "alice"
    assert ring.statistics() == Statistics(keys=3, addresses=0)


CLASHES = [
    (Key(name="alice", key="another-secret"), "two keys are named `alice`"),
    (Key(name="carol", key="alice-secret"), "`carol` and `alice` have the same key"),
    (Key(name="carol"), "the key of `carol` is not given"),
    (Key(name="carol", key=""), "the key of `carol` is not given"),
]


@pytest.mark.parametrize(("key", "message"), CLASHES)
def test_ambiguous_keys_are_refused(key: Key, message: str) -> None:
    ring = KeyRing([ALICE])
    with pytest.raises(ValueError, match=message):
        ring.add(key)
    assert ring.statistics().keys == 1
    assert ring.authenticate(bearer("alice-secret"), PEER, 0.0).name == "alice"


def test_removed_key_is_unknown() -> None:
    ring = KeyRing([ALICE, BOB])
    ring.remove("alice")
    with pytest.raises(ApiError, match="not known"):
        ring.authenticate(bearer("alice-secret"), PEER, 0.0)
    assert ring.authenticate(bearer("bobs-secret"), PEER, 0.0).name == "bob"
    with pytest.raises(KeyError):
        ring.remove("alice")


def test_last_removal_keeps_closed() -> None:
    ring = KeyRing([ALICE])
    ring.remove("alice")
    assert ring.required
    with pytest.raises(ApiError, match="No API key"):
        ring.authenticate(headers(), "127.0.0.1", 0.0)


def test_first_key_closes_ring() -> None:
    ring = KeyRing()
    client = ring.add(BOB)
    assert ring.required
    assert ring.authenticate(bearer("bobs-secret"), PEER, 0.0) is client
    with pytest.raises(ApiError):
        ring.authenticate(headers(), PEER, 0.0)


def test_nothing_shows_a_key() -> None:
    ring = KeyRing([ALICE], ["plain-secret"])
    clients = [ring.authenticate(bearer(key), PEER, 0.0) for key in ("alice-secret", "plain-secret")]
    shown = repr(ring) + repr(clients) + "".join(client.name + client.scope for client in clients) + repr(vars(ring))
    assert "alice-secret" not in shown
    assert "plain-secret" not in shown
    assert repr(ring) == "<KeyRing: 2 keys>"


def test_scopes_depend_on_secret() -> None:
    def scope(ring: KeyRing) -> str:
        return ring.authenticate(bearer("alice-secret"), PEER, 0.0).scope

    assert scope(KeyRing([ALICE], secret=b"one")) == scope(KeyRing([ALICE], secret=b"one"))
    assert scope(KeyRing([ALICE], secret=b"one")) != scope(KeyRing([ALICE], secret=b"two"))
    assert scope(KeyRing([ALICE])) != scope(KeyRing([ALICE]))
