"""The engine's binding without an event loop: loading, the descriptor, closing, forks."""

import multiprocessing
import select
from pathlib import Path

import pytest
from quiver.proxy.native import (
    Engine,
    EngineError,
    EngineStopped,
    Failed,
    Finished,
    InvalidRequest,
    ModelLoadError,
    Started,
    Text,
    TokenLogprob,
)

from .chat_model import CONTEXT, TOKENS
from .conftest import Answer, ask


def wait(engine: Engine) -> bool:
    """Whether events come; waits for them, with the suite's own timeout as the limit."""
    return bool(select.select([engine.fd], [], [], 60)[0])


def readable(engine: Engine) -> bool:
    return bool(select.select([engine.fd], [], [], 0)[0])


def follow(engine: Engine, numbers: list[int]) -> dict[int, Answer]:
    answers = {number: Answer() for number in numbers}
    while any(whole.end is None for whole in answers.values()):
        assert wait(engine)
        for event in engine.drain():
            answers[event.request].take(event)
            if isinstance(event, Text):
                engine.acknowledge(event.request, event.completion_tokens)
    return answers


def test_model_is_described(chat_model: str) -> None:
    info = Engine(chat_model, context_length=100).info
    assert (info.architecture, info.name, info.file_type) == ("llama", "random chat", "Q8_0")
    assert (info.context_length, info.vocabulary, info.has_chat_template) == (100, len(TOKENS), True)
    assert info.size_bytes == Path(chat_model).stat().st_size
    assert info.parameters > 3_000_000


def test_models_that_cannot_be_loaded_say_why(tmp_path: Path, chat_model: str) -> None:
    whole = Path(chat_model).read_bytes()
    table = {
        "absent": (None, "model_unreadable"),
        "empty": (b"", "not_gguf"),
        "text": (b"hello " * 100, "not_gguf"),
        "cut": (whole[: len(whole) // 2], "gguf_truncated"),
    }
    for name, (content, code) in table.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelLoadError, match=name) as refused:
            Engine(str(path))
        assert refused.value.code == code
    with pytest.raises(ModelLoadError):
        Engine(chat_model, context_length=CONTEXT + 1)
    with pytest.raises(ValueError, match="kv_type"):
        Engine(chat_model, kv_type="f64")


def test_descriptor_tells_of_events(chat_model: str) -> None:
    engine = Engine(chat_model)
    assert not readable(engine)
    number = engine.submit(ask())
    assert follow(engine, [number])[number].reason == "length"
    assert not readable(engine)
    assert engine.drain() == []
    engine.close()
    assert not readable(engine)


def test_numbers_are_never_used_twice(chat_model: str) -> None:
    engine = Engine(chat_model, max_sequences=3)
    numbers = [engine.submit(ask(f"question {index}")) for index in range(40)]
    assert len(set(numbers)) == 40
    assert {whole.reason for whole in follow(engine, numbers).values()} == {"length"}
    statistics = engine.statistics()
    assert (statistics.finished, statistics.live, statistics.completion_tokens) == (40, 0, 40 * 24)


def test_unknown_numbers_are_ignored(chat_model: str) -> None:
    engine = Engine(chat_model)
    engine.cancel(77)
    engine.acknowledge(77, 1)
    number = engine.submit(ask())
    assert list(follow(engine, [number])) == [number]


def test_close_ends_everything(chat_model: str) -> None:
    engine = Engine(chat_model, max_sequences=2)
    numbers = [engine.submit(ask(max_tokens=None, window=1)) for _ in range(6)]
    engine.close()
    engine.close()
    ends = [event for event in engine.drain() if isinstance(event, Failed)]
    assert sorted(event.request for event in ends) == numbers
    assert {event.code for event in ends} == {"engine_stopped"}
    with pytest.raises(EngineStopped):
        engine.submit(ask())
    engine.cancel(numbers[0])
    assert engine.drain() == []
    assert engine.statistics().live == 0


def test_unread_events_join(chat_model: str) -> None:
    engine = Engine(chat_model)
    number = engine.submit(ask(window=1000))
    while engine.statistics().finished == 0:
        wait(engine)
    started, text, finished = engine.drain()
    assert isinstance(started, Started)
    assert isinstance(text, Text)
    assert isinstance(finished, Finished)
    assert (text.request, text.completion_tokens, len(text.text)) == (number, 24, 24)


@pytest.mark.parametrize("request_", [b"", b"{", b"[]", b"null", b"\xff", b'{"prompt": {"text": "a"}, "colour": 1}'])
def test_what_is_no_request_is_refused(chat_model: str, request_: bytes) -> None:
    engine = Engine(chat_model)
    with pytest.raises(InvalidRequest) as refused:
        engine.submit(request_)
    assert refused.value.field in {"request", "colour"}


def _use_in_child(engine: Engine, results: "multiprocessing.SimpleQueue[str]") -> None:
    for use in (lambda: engine.submit(ask()), engine.drain, engine.statistics, engine.close):
        try:
            use()
        except EngineError as error:
            results.put(error.code)
        else:
            results.put("worked")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_is_refused(chat_model: str) -> None:
    engine = Engine(chat_model)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=_use_in_child, args=(engine, results))
    child.start()
    child.join()
    assert child.exitcode == 0, "the child's copy is dropped without waiting for threads it does not have"
    assert [results.get() for _ in range(4)] == ["engine_forked"] * 4
    number = engine.submit(ask())
    assert follow(engine, [number])[number].reason == "length"


def test_events_are_values() -> None:
    score = TokenLogprob(7, b"a", -0.5)
    text = Text(1, "it's", 3, [TokenLogprob(8, b"b", -0.25, [score])])
    assert repr(text) == """Text(request=1, text="it's", completion_tokens=3)"""
    assert text == Text(1, "it's", 3, [TokenLogprob(8, b"b", -0.25, [score])])
    assert text.logprobs[0].top == [score]
    match text:
        case Text(request, content, tokens):
            assert (request, content, tokens) == (1, "it's", 3)
    assert Started(1, 2) != Started(1, 3)
    assert repr(Failed(1, "kv_full", "no room")) == "Failed(request=1, code='kv_full', message='no room')"
