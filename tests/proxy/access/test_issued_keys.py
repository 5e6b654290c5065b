"""Keys that are made while the gateway runs: what opens when, through any order of rotations, expiries and revocations."""

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from quiver.proxy.access.keys import KeyRing
from quiver.proxy.access.limits import admit_request
from quiver.schemas.config import Auth, Key, Rate
from quiver.schemas.errors import ApiError
from quiver.schemas.saved import SavedKey

from .test_keys import ALICE, BOB, PEER, bearer, headers

NOW = 1_700_000_000.0
SECRET = b"s" * 32


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def empty(clock: Clock | None = None, **options: object) -> KeyRing:
    return KeyRing(secret=SECRET, wall_clock=clock or Clock(), auth=Auth(failures_per_minute=0), **options)  # type: ignore[arg-type]


def saved(ring: KeyRing, text: str, **fields: object) -> SavedKey:
    fields = {"id": f"id-{text}", "name": text, "hint": text[-4:], "created": NOW, "changed": NOW} | fields
    return msgspec.convert({"digest": ring.digest_of(text), **fields}, SavedKey)


def code(ring: KeyRing, text: str) -> str:
    """The code of the error that a key gets, or the name of its client."""
    try:
        return ring.authenticate(bearer(text), PEER, 0).name
    except ApiError as error:
        return error.kind.code


def test_saved_key_opens_as_its_client() -> None:
    ring = empty()
    client = ring.put(saved(ring, "key-one", models=["m"], priority="high", keep_content=True, budget_tokens=5), 0, 2)
    assert ring.authenticate(bearer("key-one"), PEER, 7) is client
    assert (client.scope, client.priority, client.models) == ("id-key-one", "high", frozenset({"m"}))
    assert (client.keep_content, client.used_at, client.limited) == (True, 7, True)
    assert client.budget is not None
    assert client.budget.left == 3


def test_expired_key_is_told_when() -> None:
    clock = Clock()
    ring = empty(clock)
    ring.put(saved(ring, "key-one", expires=NOW + 10), 0)
    assert code(ring, "key-one") == "key-one"
    clock.now += 10
    with pytest.raises(ApiError, match="expired on 2023-11-14 22:13:30 UTC") as caught:
        ring.authenticate(bearer("key-one"), PEER, 0)
    assert (caught.value.kind.code, caught.value.kind.status) == ("expired_api_key", 401)
    assert caught.value.headers() == [(b"www-authenticate", b"Bearer")]


def test_changes_reach_requests_under_way() -> None:
    ring = empty()
    client = ring.put(saved(ring, "key-one", requests_per_minute=10, tokens_per_minute=100, budget_tokens=100), 0)
    for _ in range(5):
        admit_request(client, 0)
    held = client.reserve(50, 0)
    changed = saved(ring, "key-one", requests_per_minute=20, tokens_per_minute=1000, budget_tokens=200, version=2)
    assert ring.put(changed, 0) is client
    assert client.requests is not None
    assert client.requests.level(0) == 10
    assert held is not None
    held.settle(10, 0)
    assert client.tokens is not None
    assert client.tokens.bucket.level(0) == 540
    assert client.budget is not None
    assert (client.budget.spent, client.budget.left, client.budget.reserved) == (10, 190, 0)


def test_first_key_closes_and_last_revoked_keeps_closed() -> None:
    ring = empty()
    assert not ring.required
    key = saved(ring, "key-one")
    ring.put(key, 0)
    assert ring.required
    ring.put(msgspec.structs.replace(key, revoked=NOW), 0)
    assert ring.required
    assert code(ring, "key-one") == "revoked_api_key"
    with pytest.raises(ApiError, match="No API key"):
        ring.authenticate(headers(), "127.0.0.1", 0)


def test_closed_ring_lets_nobody_in_without_a_key() -> None:
    ring = empty(closed=True)
    assert ring.required
    with pytest.raises(ApiError, match="No API key"):
        ring.authenticate(headers(), PEER, 0)
    assert code(ring, "anything") == "invalid_api_key"


def test_open_to_all_knows_its_keys() -> None:
    ring = KeyRing(secret=SECRET, auth=Auth(open=True), closed=True, wall_clock=Clock())
    ring.put(saved(ring, "key-one", priority="high"), 0)
    ring.put(saved(ring, "key-two", revoked=NOW), 0)
    assert not ring.required
    assert ring.authenticate(headers(), PEER, 0).name == "anonymous"
    assert ring.authenticate(bearer("sk-anything"), PEER, 0).name == "anonymous"
    assert ring.authenticate(bearer("key-one"), PEER, 0).priority == "high"
    assert code(ring, "key-two") == "revoked_api_key"


def test_names_and_keys_are_unique_among_those_in_use() -> None:
    ring = empty()
    ring.add(ALICE)
    ring.put(saved(ring, "key-one", name="one"), 0)
    for taken in (saved(ring, "other", name="alice"), saved(ring, "other", name="one")):
        with pytest.raises(ValueError, match="two keys are named"):
            ring.put(taken, 0)
    for known in (saved(ring, "alice-secret", name="x"), saved(ring, "key-one", id="new", name="x")):
        with pytest.raises(ValueError, match="have the same key"):
            ring.put(known, 0)
    with pytest.raises(ValueError, match="two keys are named `one`"):
        ring.add(Key(name="one", key="another-secret"))
    ring.put(saved(ring, "key-one", name="one", revoked=NOW), 0)
    ring.put(saved(ring, "key-two", name="one"), 0)
    assert (code(ring, "key-two"), code(ring, "key-one")) == ("one", "revoked_api_key")


def test_reload_keeps_what_is_left() -> None:
    ring = empty()
    alice, bob = ring.add(ALICE), ring.add(BOB)
    admit_request(alice, 0)
    other = msgspec.structs.replace(ALICE, key="alice-new-secret", requests_per_minute=4)
    ring.reload([other, Key(name="carol", key="carols-secret")], ["plain-secret"], Rate(), 0)
    assert ring.authenticate(bearer("alice-new-secret"), PEER, 0) is alice
    assert alice.requests is not None
    assert alice.requests.level(0) == 2
    assert [code(ring, key) for key in ("alice-secret", "bobs-secret", "carols-secret", "plain-secret")] == [
        "invalid_api_key",
        "invalid_api_key",
        "carol",
        "key-1",
    ]
    ring.reload([BOB], [], Rate(), 0)
    assert ring.authenticate(bearer("bobs-secret"), PEER, 0) is not bob
    ring.reload([], [], Rate(), 0)
    assert ring.required


REFUSED = [
    ([ALICE, msgspec.structs.replace(BOB, name="alice")], "two keys are named `alice`"),
    ([ALICE, msgspec.structs.replace(BOB, key="alice-secret")], "have the same key"),
    ([Key(name="one", key="another-secret")], "two keys are named `one`"),
    ([Key(name="x", key="key-one")], "same key as one that was made"),
    ([Key(name="x", key="old-key")], "same key as one that was made"),
]


@pytest.mark.parametrize(("keys", "message"), REFUSED)
def test_reload_that_contradicts_itself_changes_nothing(keys: list[Key], message: str) -> None:
    ring = empty()
    alice = ring.add(ALICE)
    old = ring.digest_of("old-key")
    ring.put(saved(ring, "key-one", name="one", previous=old, previous_until=NOW + 9), 0)
    with pytest.raises(ValueError, match=message):
        ring.reload(keys, [], Rate(), 0)
    assert ring.authenticate(bearer("alice-secret"), PEER, 0) is alice
    assert list(ring.configured) == ["alice"]


class Life(RuleBasedStateMachine):
    """Keys are made, replaced, revoked and given ends, time goes by; the model is a table of what opens until when."""

    ids: Bundle[str] = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.ring = empty(self.clock)
        self.made = 0
        # Of each text: its key's id, and until when it is to open; of each id: whether it is revoked, and its end.
        self.texts: dict[str, tuple[str, float]] = {}
        self.revoked: set[str] = set()
        self.ends: dict[str, float] = {}

    def text(self) -> str:
        self.made += 1
        return f"text-{self.made}"

    def change(self, id: str, **changes: object) -> None:
        issued = self.ring.get(id)
        assert issued is not None
        self.ring.put(msgspec.structs.replace(issued.key, version=issued.key.version + 1, **changes), 0)

    @rule(target=ids, end=st.none() | st.integers(1, 50))
    def make(self, end: int | None) -> str:
        text = self.text()
        until = float("inf") if end is None else self.clock.now + end
        expires = None if end is None else until
        key = saved(self.ring, text, id=f"id{self.made}", name=f"n{self.made}", expires=expires)
        self.ring.put(key, 0)
        self.texts[text], self.ends[key.id] = (key.id, float("inf")), until
        return key.id

    @rule(id=ids, grace=st.integers(0, 30))
    def rotate(self, id: str, grace: int) -> None:
        issued = self.ring.get(id)
        assert issued is not None
        text, until = self.text(), self.clock.now + grace
        for known, (owner, opens) in list(self.texts.items()):
            if owner == id:
                if opens < float("inf"):
                    del self.texts[known]  # only the last key is still known beside the present one
                else:
                    self.texts[known] = (id, until)
        digest = self.ring.digest_of(text)
        self.change(id, digest=digest, previous=issued.key.digest, previous_until=until)
        self.texts[text] = (id, float("inf"))

    @rule(id=ids, end=st.none() | st.integers(1, 50))
    def set_end(self, id: str, end: int | None) -> None:
        self.ends[id] = float("inf") if end is None else self.clock.now + end
        self.change(id, expires=None if end is None else self.ends[id])

    @rule(id=consumes(ids))
    def revoke(self, id: str) -> None:
        self.change(id, revoked=self.clock.now)
        self.revoked.add(id)

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def opens_as_it_should(self) -> None:
        for number in range(1, self.made + 1):
            text = f"text-{number}"
            found = code(self.ring, text)
            if text not in self.texts:
                assert found == "invalid_api_key"
                continue
            id, opens = self.texts[text]
            if id in self.revoked:
                assert found == "revoked_api_key"
            elif self.clock.now < min(opens, self.ends[id]):
                assert found == f"n{id[2:]}"
            else:
                assert found in ("expired_api_key", "revoked_api_key")
        assert self.ring.required is bool(self.made)


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLife = Life.TestCase
