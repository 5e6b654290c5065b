"""What is kept of prompts and answers: text, whole up to a limit, without what is no text; and only where somebody asked."""

import base64
from typing import Any

import msgspec
import pytest
import trio
from quiver.proxy.content import LONGEST, Content, bounded
from quiver.proxy.telemetry.record import Record
from quiver.schemas.config import Auth, Key, Log
from quiver.schemas.config import Store as StoreConfig

from .gateways import BODY, LAST, STREAM, answering, running
from .servers import Farm, Said, events, response

PNG = base64.b64encode(b"\x89PNG" + b"\0" * 2996).decode()


def chat(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"model": "m", "messages": list(messages)}


IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
SOUND = {"type": "input_audio", "input_audio": {"format": "wav", "data": PNG}}
CALLS = [{"function": {"name": "f", "arguments": '{"a": 1}'}}]


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return chat({"role": "user", "content": list(parts)})


PROMPTS: list[tuple[dict[str, Any], str | None]] = [
    ({"prompt": "say"}, "say"),
    ({"prompt": ["one", "two"]}, "one\n\ntwo"),
    ({"prompt": [1, 2, 3]}, "[3 tokens]"),
    ({"input": ["a", "b"]}, "a\n\nb"),
    (chat({"role": "system", "content": "be"}, {"role": "user", "content": "who?"}), "system: be\n\nuser: who?"),
    (user({"type": "text", "text": "look: "}, IMAGE), "user: look: [image/png, 3000 bytes left out]"),
    (user({"type": "image_url", "image_url": {"url": "http://x/y.png"}}), "user: http://x/y.png"),
    (user(SOUND), "user: [audio/wav, 3000 bytes left out]"),
    (user({"type": "file", "file": {}}), "user: [file, 25 bytes left out]"),
    (
        chat({"role": "user", "content": f"see data:image/jpeg;base64,{PNG}!"}),
        "user: see [image/jpeg, 3000 bytes left out]!",
    ),
    (chat({"role": "assistant", "content": None, "tool_calls": CALLS}), 'assistant: [calls f] {"a": 1}'),
    ({"messages": [17, {"role": 5}]}, None),
    ({"other": 1}, None),
]


@pytest.mark.parametrize(("body", "prompt"), PROMPTS)
def test_prompt_is_text(body: dict[str, Any], prompt: str | None) -> None:
    assert (Content(msgspec.json.encode(body), own=False).prompt() or None) == prompt


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"messages": {}}', b'{"prompt": null}', b"[" * 5000]
)
def test_odd_prompt_harms_nobody(body: bytes) -> None:
    assert not Content(body, own=False).prompt()


def event(text: str, index: int = 0) -> bytes:
    return b"data: " + msgspec.json.encode({"choices": [{"index": index, "delta": {"content": text}}]}) + b"\n\n"


@pytest.mark.parametrize("together", [1, 3, 10_000])
def test_streamed_answer_is_put_together(together: int) -> None:
    words = [f"word{number} " for number in range(3000)]
    content = Content(b"{}", own=True)
    for begin in range(0, len(words), together):
        content.take_events(b": heartbeat\n\n" + b"".join(event(word) for word in words[begin : begin + together]))
    content.take_events(b'data: {"choices": [], "usage": {}}\n\ndata: [DONE]\n\n')
    assert content.answer() == "".join(words)


def test_choices_stand_apart() -> None:
    content = Content(b"{}", own=True)
    for text, index in (("a", 0), ("x", 1), ("b", 0), ("y", 1)):
        content.take_events(event(text, index))
    assert content.answer() == "[0] ab\n\n[1] xy"


BODIES = [
    ({"choices": [{"message": {"content": "yes"}}]}, "yes"),
    ({"choices": [{"text": "yes"}]}, "yes"),
    ({"choices": [{"message": {"content": None, "tool_calls": CALLS}}]}, '[calls f] {"a": 1}'),
    ({"data": []}, None),
    ({"choices": "none"}, None),
]  # fmt: skip


@pytest.mark.parametrize(("body", "answer"), BODIES)
def test_whole_answer_is_read(body: dict[str, Any], answer: str | None) -> None:
    content = Content(b"{}", own=True)
    content.take_body(msgspec.json.encode(body))
    assert content.answer() == answer


def test_long_answer_is_cut_and_counted() -> None:
    content = Content(b"{}", own=True)
    for _ in range(100):
        content.take_events(event("x" * 10_000))
    answer = content.answer()
    assert answer is not None
    kept, _, told = answer.partition("… ")
    assert len(kept) == LONGEST
    assert told == f"[{1_000_000 - LONGEST} more characters]"


@pytest.mark.parametrize("letter", ["x", "ü", "漢", "🙂"])
def test_limit_is_in_bytes_and_cuts_no_character(letter: str) -> None:
    text = bounded(letter * LONGEST)
    kept = text.partition("…")[0]
    assert set(kept) == {letter}
    assert LONGEST - 4 < len(kept.encode()) <= LONGEST


ASKED = b'{"model": "m", "messages": [{"role": "user", "content": "who?"}]}'
ANSWER = Said(response(b"200 OK", b'{"choices": [{"message": {"content": "me"}}]}'))
KEYS = (Key(name="ada", key="the-key-of-ada", keep_content=True), Key(name="bob", key="the-key-of-bob"))


def kept(record: Record) -> tuple[bool, str | None, str | None]:
    return record.keep_content, record.prompt, record.answer


WHOLE = ("user: who?", "me")
CASES: list[tuple[dict[str, Any], bytes, tuple[bool, str | None, str | None]]] = [
    ({}, b"bob", (False, None, None)),
    ({}, b"ada", (True, *WHOLE)),
    ({"log": Log(prompts=True)}, b"bob", (False, *WHOLE)),
    ({"keeping": StoreConfig(content=True)}, b"bob", (False, *WHOLE)),
]


@pytest.mark.parametrize(("sections", "who", "expected"), CASES, ids=["nobody", "key", "log", "store"])
async def test_only_who_asked_is_kept(
    farm: Farm,
    autojump_clock: object,
    sections: dict[str, Any],
    who: bytes,
    expected: tuple[bool, str | None, str | None],
) -> None:
    config, _ = await farm.configure(answering(ANSWER))
    async with running(farm, [config], keys=KEYS, auth=Auth(), **sections) as gateway:
        await gateway.ask(ASKED, b"Authorization: Bearer the-key-of-" + who)
        await trio.sleep(1)
        (record,) = gateway.records
        store = gateway.gateway.store
        await store.wait_written()
        stored = await store.history.request(record.request_id)
        gateway.signal(15)
    assert kept(record) == expected
    # The history keeps what the log alone was to have no more than the log keeps what the history was to have.
    assert stored is not None
    assert (stored.prompt, stored.answer) == ((None, None) if "log" in sections else expected[1:])


async def test_stream_and_failure_are_kept(farm: Farm, autojump_clock: object) -> None:
    config, _ = await farm.configure(answering(Said(events(event("m"), event("e"), LAST))))
    async with running(farm, [config], log=Log(prompts=True)) as gateway:
        await gateway.ask(STREAM.replace(b"[]", b'[{"role": "user", "content": "who?"}]'))
        await gateway.ask(BODY.replace(b'"m"', b'"unknown"'))
        gateway.signal(15)
    streamed, failed = gateway.records
    assert kept(streamed) == (False, *WHOLE)
    assert (failed.error, failed.answer) == ("model_not_found", None)
