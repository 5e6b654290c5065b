"""Which requests belong together: those of one conversation, whatever was said since."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quiver.proxy.routing.affinity import PREFIX, prefix_hash, session_hash
from quiver.schemas.openai import Peek

SYSTEM = {"role": "system", "content": "You are kind."}
HI = {"role": "user", "content": "hi"}
HELLO = {"role": "assistant", "content": "hello"}
PARTS = {
    "role": "user",
    "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:"}}],
}


def raw(*messages: Any) -> bytes:
    return json.dumps(messages).encode()


@pytest.mark.parametrize(
    "beginning",
    [
        (HI,),
        (SYSTEM, HI),
        (SYSTEM, HELLO, HI),
        (PARTS,),
        ({"content": "hi", "role": "user"},),
        ({"content": 'a "quoted" } and {', "role": "user"},),
        ({"content": "ends in a backslash \\", "role": "user"},),
        ({"content": '\\"', "role": "user", "name": "x"},),
        ({"role": "user", "content": "é ü 漢"},),
        ({"role": "user", "content": "hi", "weights": [1, 2, {"a": []}]},),
    ],
)
def test_conversation_keeps_hash(beginning: tuple[Any, ...]) -> None:
    first = prefix_hash(raw(*beginning))
    assert first == prefix_hash(raw(*beginning, HELLO, {"role": "user", "content": "and then?"}))
    assert first == prefix_hash(raw(*beginning, HI, HI))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((HI,), ({"role": "user", "content": "ho"},)),
        ((SYSTEM, HI), (HI,)),
        ((SYSTEM, HI), (SYSTEM, HELLO, HI)),
        # Not a user's turn, though the words are there.
        (({"role": "system", "content": "user"}, HI), ({"role": "system", "content": "user"}, HELLO)),
        (({"content": "role", "user": 1}, HI), ({"content": "role", "user": 1}, HELLO)),
        (
            ({"role": "tool", "content": {"role": "user"}}, HI),
            ({"role": "tool", "content": {"role": "user"}}, HELLO),
        ),
        # The turn ends where the message does, not where a part of it does.
        (
            ({"role": "user", "content": [{"text": "a"}, {"text": "b"}]},),
            ({"role": "user", "content": [{"text": "a"}, {"text": "c"}]},),
        ),
    ],
)
def test_other_conversation_other_hash(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert prefix_hash(raw(*one)) != prefix_hash(raw(*other))


@pytest.mark.parametrize(("position", "same"), [(PREFIX - 1, False), (PREFIX, True)])
def test_first_kibibyte_counts(position: int, same: bool) -> None:
    text = b'[{"role": "system", "content": "' + b"x" * 2 * PREFIX
    changed = text[:position] + b"y" + text[position + 1 :]
    assert (prefix_hash(text) == prefix_hash(changed)) is same


def test_white_space_is_taken() -> None:
    spaced = b'[ {\n"role" :\t"user" , "content":"hi" } '
    assert prefix_hash(spaced + b"]") == prefix_hash(spaced + b', {"role":"assistant"}]')


def test_field_of_a_request() -> None:
    peek = msgspec.json.decode(b'{"model": "m", "messages": ' + raw(SYSTEM, HI) + b"}", type=Peek)
    assert isinstance(peek.messages, msgspec.Raw)
    assert prefix_hash(peek.messages) == prefix_hash(raw(SYSTEM, HI))


@given(st.one_of(st.binary(), st.text(alphabet='[]{}",:\\ user role').map(str.encode)))
def test_any_bytes_are_hashed(text: bytes) -> None:
    assert prefix_hash(text) == prefix_hash(text)
    assert (prefix_hash(text) != 0) is bool(text)
    assert 0 <= prefix_hash(text) < 2**64


def test_session_hash() -> None:
    assert session_hash(b"") == 0
    assert 0 < session_hash(b"lesson-1") < 2**64
    assert session_hash(b"lesson-1") == session_hash(b"lesson-1")
    assert session_hash(b"lesson-1") != session_hash(b"lesson-2")
