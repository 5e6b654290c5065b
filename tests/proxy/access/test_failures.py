"""Addresses that show wrong keys: told to wait, remembered in bounded memory, and nobody else is locked out."""

import contextlib
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quiver.proxy.access.failures import MEMORY, NOTES_A_MINUTE, Failures
from quiver.proxy.access.keys import KeyRing
from quiver.proxy.access.minting import mint
from quiver.schemas.config import Auth, Key
from quiver.schemas.errors import ApiError

from .test_keys import bearer, headers

ALLOWED = 20
PEER, NEIGHBOUR = "203.0.113.9", "203.0.113.10"


def ring(*keys: str, notes: list[tuple[str, int]] | None = None) -> KeyRing:
    found = [Key(name=f"k{place}", key=key) for place, key in enumerate(keys or ("chosen-key",))]
    told = notes if notes is not None else []
    return KeyRing(found, auth=Auth(failures_per_minute=ALLOWED), note=lambda *note: told.append(note))


def status(keys: KeyRing, key: str, peer: str = PEER, now: float = 0.0) -> int:
    try:
        keys.authenticate(bearer(key), peer, now)
    except ApiError as caught:
        error = caught
    else:
        return 200
    assert (error.retry_after is not None) is (error.kind.status == 429)
    assert f"`{key}`" not in error.message
    return error.kind.status


def test_wrong_keys_run_into_a_limit() -> None:
    keys = ring()
    assert [status(keys, f"wrong-{number}") for number in range(25)] == [401] * ALLOWED + [429] * 5
    assert status(keys, "wrong", NEIGHBOUR) == 401
    assert keys.refused == {"invalid_api_key": ALLOWED + 1, "authentication_limited": 5}


def test_waiting_as_told_is_enough() -> None:
    keys = ring()
    for number in range(ALLOWED):
        status(keys, f"wrong-{number}")
    with pytest.raises(ApiError) as caught:
        keys.authenticate(bearer("wrong"), PEER, 0)
    wait = caught.value.retry_after
    assert wait == 60 / ALLOWED
    assert status(keys, "another", now=wait) == 401


def test_guesser_finds_nothing() -> None:
    """Once an address guesses, a key that a person chose is not looked at: right and wrong ones look the same."""
    keys = ring("chosen-key")
    for number in range(ALLOWED):
        status(keys, f"chosen-key-{number}")
    with pytest.raises(ApiError) as wrong:
        keys.authenticate(bearer("chosen-kex"), PEER, 0)
    with pytest.raises(ApiError) as right:
        keys.authenticate(bearer("chosen-key"), PEER, 0)
    assert (wrong.value.message, wrong.value.retry_after) == (right.value.message, right.value.retry_after)
    assert status(keys, "chosen-key", NEIGHBOUR) == 200
    assert status(keys, "chosen-key", now=60 / ALLOWED) == 200


def test_made_keys_pass_beside_a_guesser() -> None:
    key = mint()
    keys = ring(key)
    for number in range(100):
        status(keys, f"wrong-{number}")
    assert status(keys, key) == 200
    assert status(keys, mint()) == 429


def test_old_key_in_a_loop_locks_nobody_out() -> None:
    keys = ring("chosen-key")
    assert [status(keys, "an-old-key") for _ in range(100)][ALLOWED:] == [429] * (100 - ALLOWED)
    assert status(keys, "chosen-key") == 200


def test_missing_keys_are_no_guesses() -> None:
    keys = ring()
    for _ in range(100):
        with pytest.raises(ApiError) as caught:
            keys.authenticate(headers(), PEER, 0)
        assert caught.value.kind.status == 401
    assert status(keys, "chosen-key") == 200


def test_network_of_ipv6_is_one_address() -> None:
    keys = ring()
    found = [status(keys, f"wrong-{number}", f"2001:4860:1:2::{number:x}") for number in range(25)]
    assert found == [401] * ALLOWED + [429] * 5
    assert status(keys, "wrong", "2001:4860:1:3::1") == 401


def test_loopback_is_limited_alike() -> None:
    keys = ring()
    found = [status(keys, f"wrong-{number}", ("127.0.0.1", "::1", "127.0.0.2")[number % 3]) for number in range(25)]
    assert found == [401] * ALLOWED + [429] * 5


def test_zero_is_no_limit() -> None:
    keys = KeyRing([Key(name="a", key="chosen-key")], auth=Auth(failures_per_minute=0))
    assert {status(keys, f"wrong-{number}") for number in range(200)} == {401}


def test_notes_have_address_and_count_and_are_few() -> None:
    notes: list[tuple[str, int]] = []
    keys = ring(notes=notes)
    for number in range(200):
        status(keys, f"wrong-{number}", now=number / 100)
    assert notes == [(PEER, ALLOWED + 1)]
    for second in range(2, 130):
        status(keys, "wrong", now=second)
        status(keys, "other", now=second)
    assert 2 <= len(notes) <= 3
    notes.clear()
    for address in range(500):
        for number in range(ALLOWED + 1):
            status(keys, f"wrong-{number}", f"198.51.{address // 256}.{address % 256}", now=200)
    assert len(notes) == NOTES_A_MINUTE


def test_memory_is_bounded() -> None:
    failures = Failures(ALLOWED, addresses=16)
    for number in range(1000):
        failures.failed(f"198.51.{number // 256}.{number % 256}", b"wrong", 0)
        assert len(failures) <= 16
    failures.failed(PEER, b"wrong", MEMORY)
    assert len(failures) == 1


ATTEMPTS = st.lists(st.tuples(st.sampled_from([PEER, NEIGHBOUR]), st.floats(0, 5), st.booleans()), max_size=200)


@given(ATTEMPTS)
def test_guesses_never_exceed_the_limit(attempts: list[tuple[str, float, bool]]) -> None:
    """However wrong keys come, of different ones no more than the bucket holds are looked at."""
    failures, now, numbers = Failures(5, 100), 0.0, count()
    looked_at: dict[str, list[float]] = {PEER: [], NEIGHBOUR: []}
    for peer, pause, repeated in attempts:
        now += pause
        key = b"same" if repeated else b"guess-%d" % next(numbers)
        try:
            failures.refuse_guesses(peer, key, now)
        except ApiError:
            continue
        if not repeated:
            looked_at[peer].append(now)
        with contextlib.suppress(ApiError):
            failures.failed(peer, key, now)
    for times in looked_at.values():
        for start in times:
            assert sum(start <= time < start + 60 for time in times) <= 5 + 5
