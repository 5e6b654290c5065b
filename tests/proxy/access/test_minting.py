"""Keys that Quiver makes: their form, and that a mistyped one is told apart."""

import re

from hypothesis import given
from hypothesis import strategies as st
from quiver.proxy.access.minting import is_minted, is_mistyped, mint


def test_keys_are_new_and_well_formed() -> None:
    keys = {mint() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(re.fullmatch(r"qv-[A-Za-z0-9]{40}", key) for key in keys)
    assert all(is_minted(key.encode()) and not is_mistyped(key.encode()) for key in keys)


@given(st.integers(3, 42), st.characters(min_codepoint=33, max_codepoint=126))
def test_one_wrong_character_is_noticed(place: int, character: str) -> None:
    key = mint()
    other = key[:place] + character + key[place + 1 :]
    assert is_minted(other.encode()) is (other == key)
    assert is_mistyped(other.encode()) is (other != key)


@given(st.integers(0, 42))
def test_cut_key_is_noticed(length: int) -> None:
    key = mint().encode()[:length]
    assert not is_minted(key)
    assert is_mistyped(key) is (length >= 3)


def test_other_keys_are_not_ours() -> None:
    for key in (b"", b"sk-abc", b"chosen-by-a-person", b"\xff" * 43, b"QV-" + mint().encode()[3:]):
        assert not is_minted(key)
        assert not is_mistyped(key)
