"""The running engine through its Trio side, on a real model: what requests come to, alone and beside others."""

import math
from typing import Any

import pytest
import trio
from quiver.proxy.local.engine import LocalEngine, open_local_engine
from quiver.proxy.native import ContextOverflow, EngineStopped, Finished, InvalidRequest, Started, Text
from quiver.schemas.engine import Prompt

from .chat_model import CONTEXT, TOKENS
from .conftest import Answer, answer, ask, first_text, until


async def test_answers_in_order(engine: LocalEngine) -> None:
    events = []
    async with engine.generate(ask("hello", max_tokens=3)) as generation:
        async for event in generation:
            events.append(event)
    started, *texts, finished = events
    assert started == Started(1, 5)
    assert all(isinstance(text, Text) for text in texts)
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.prompt_tokens, finished.completion_tokens) == ("length", 5, 3)
    assert finished.first_token_seconds == pytest.approx(finished.queue_seconds + finished.prefill_seconds)


async def test_messages_follow_the_template(engine: LocalEngine) -> None:
    spelled = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    tokens = [TOKENS.index("<|im_start|>"), *b"user\nhi", TOKENS.index("<|im_end|>"), *b"\n"]
    tokens += [TOKENS.index("<|im_start|>"), *b"assistant\n"]
    byte_tokens = [token if token > 255 else TOKENS.index(_spelled(token)) for token in tokens]
    from_messages = await answer(engine, ask(prompt=Prompt(messages=[{"role": "user", "content": "hi"}])))
    from_tokens = await answer(engine, ask(prompt=Prompt(tokens=byte_tokens)))
    from_text = await answer(engine, ask(spelled))
    assert from_messages.text == from_tokens.text
    assert from_messages.end != from_text.end, "the names of special tokens in plain text are text"


def _spelled(byte: int) -> str:
    return {0x0A: "\u010a"}.get(byte, chr(byte))


async def test_a_batch_changes_nothing(engine: LocalEngine) -> None:
    prompts = [f"{index} " * (1 + index * 9) for index in range(8)]
    alone = [(await answer(engine, ask(prompt))).text for prompt in prompts]
    together: dict[int, Answer] = {}

    async def follow(index: int) -> None:
        together[index] = await answer(engine, ask(prompts[index]))

    async with trio.open_nursery() as nursery:
        for index in range(8):
            nursery.start_soon(follow, index)
    assert [together[index].text for index in range(8)] == alone
    assert len(set(alone)) > 1


async def test_a_next_turn_reuses_the_last(engine: LocalEngine) -> None:
    first = await answer(engine, ask("x" * 300))
    turns = "x" * 300 + first.text + " and so on"
    stranger = await answer(engine, ask(turns, scope="another"))
    before = engine.statistics()
    second = await answer(engine, ask(turns))
    after = engine.statistics()
    assert second.text == stranger.text
    # Whole blocks of 32 tokens, and none of the three that lie beyond the last.
    assert (before.reused_tokens, after.reused_tokens) == (0, 320)
    assert after.prompt_tokens - before.prompt_tokens == len(" and so on") + 1 + 3
    assert (after.live, after.kv_blocks_used) == (0, 0)
    assert after.kv_blocks_kept >= 20


async def test_seeds_repeat(engine: LocalEngine) -> None:
    async def sampled(seed: int | None) -> str:
        return (await answer(engine, ask(temperature=1.0, seed=seed))).text

    assert await sampled(5) == await sampled(5)
    assert await sampled(5) != await sampled(6)
    assert await sampled(None) != await sampled(None)


async def test_stop_strings_never_show(engine: LocalEngine) -> None:
    whole = (await answer(engine, ask())).text
    assert len(whole) == 24
    for start, length in [(0, 1), (3, 2), (7, 5), (20, 4)]:
        stop = whole[start : start + length]
        stopped = await answer(engine, ask(stop=["@", stop]))
        assert (stopped.text, stopped.reason) == (whole[: whole.index(stop)], "stop")
    held = await answer(engine, ask(stop=[whole[20:] + "@"]))
    assert (held.text, held.reason) == (whole, "length")


async def test_logprobs_are_the_models_own(engine: LocalEngine) -> None:
    plain = await answer(engine, ask(logprobs=3, logit_bias={}))
    assert all(token.top[0].token == token.token for token in plain.logprobs)
    biased = await answer(engine, ask(logprobs=3))
    assert len(biased.logprobs) == 24
    assert b"".join(token.bytes for token in biased.logprobs).decode() == biased.text
    first = biased.logprobs[0]
    assert first.top == plain.logprobs[0].top, "a bias changes the choice, not what the model thinks"
    assert [len(token.top) for token in biased.logprobs] == [3] * 24
    assert sum(math.exp(token.logprob) for token in first.top) < 1


async def test_characters_stay_whole(engine: LocalEngine) -> None:
    # The bytes of the sign in random order: some make characters, others do not.
    euro = [TOKENS.index(character) for character in ("\u00e2", "\u0124", "\u00ac")]
    bias = {str(token): 60.0 for token in euro}
    answered = await answer(engine, ask(logit_bias=bias, temperature=2.0, seed=1, max_tokens=400, logprobs=0))
    spelled = b"".join(token.bytes for token in answered.logprobs)
    assert set(spelled) == set("€".encode())
    assert answered.text == spelled.decode(errors="replace")
    assert "€" in answered.text


async def test_context_is_a_limit(engine: LocalEngine) -> None:
    full = await answer(engine, ask("x" * (CONTEXT - 3), max_tokens=None))
    assert (full.reason, len(full.text)) == ("length", 3)
    late = await answer(engine, ask("x" * CONTEXT))
    assert late.reason == "context_length_exceeded"
    with pytest.raises(ContextOverflow) as early:
        async with engine.generate(ask(prompt=Prompt(tokens=[1] * 4000), max_tokens=100)):
            pass
    assert (early.value.prompt, early.value.requested, early.value.limit) == (4000, 100, CONTEXT)
    assert early.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"temperature": 3.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"stop": [""]}, "stop"),
        ({"logit_bias": {"100000": 1.0}}, "logit_bias"),
        ({"prompt": Prompt(tokens=[100000])}, "prompt"),
        ({"prompt": Prompt()}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"window": 0}, "window"),
    ],
)
async def test_refusals_name_the_field(engine: LocalEngine, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        async with engine.generate(ask(**fields)):
            pass
    assert (refused.value.code, refused.value.field) == ("invalid_request", field)
    assert str(refused.value) == f"`{field}`: {refused.value.reason}"


async def test_leaving_cancels(engine: LocalEngine) -> None:
    async with first_text(engine, _endless()):
        assert engine.statistics().live == 1
    await _until_idle(engine)
    assert engine.statistics().cancelled == 1


async def test_a_hundred_cancelled_leave_nothing(engine: LocalEngine) -> None:
    async def begin(index: int) -> None:
        async with first_text(engine, _endless(f"{index} " * (1 + index))):
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for index in range(100):
            nursery.start_soon(begin, index)
        await until(lambda: engine.statistics().live == 8)
        nursery.cancel_scope.cancel()
    before = engine.statistics().steps
    await _until_idle(engine)
    after = engine.statistics()
    assert (after.live, after.waiting, after.kv_blocks_used, after.cancelled) == (0, 0, 0, 100)
    assert after.steps - before <= 1
    assert (await answer(engine, ask())).reason == "length"


async def _until_idle(engine: LocalEngine) -> None:
    def idle() -> bool:
        now = engine.statistics()
        return now.live + now.waiting + now.parked == 0

    await until(idle)


def _endless(text: str = "once") -> bytes:
    return ask(text, max_tokens=None, window=65536, ignore_eos=True)


async def test_a_slow_consumer_slows_itself(engine: LocalEngine) -> None:
    async with engine.generate(ask(max_tokens=200, window=4)) as slow:
        fast = await answer(engine, ask(max_tokens=200, window=4))
        assert fast.reason == "length"
        assert engine.statistics().paused == 1
        ahead = engine.statistics().completion_tokens - 200
        assert ahead == 4
        whole = Answer()
        async for event in slow:
            whole.take(event)
    assert (whole.text, whole.reason) == (fast.text, "length")


async def test_paused_give_way(chat_model: str) -> None:
    async with open_local_engine(chat_model, max_sequences=1) as engine:
        async with engine.generate(ask(max_tokens=50, window=4)) as slow:
            async for event in slow:
                if isinstance(event, Text):
                    break
            await until(lambda: engine.statistics().paused == 1)
            other = await answer(engine, ask(max_tokens=50))
            rest = [event async for event in slow]
        texts = "".join(part.text for part in [event, *rest] if isinstance(part, Text))
        assert (texts, engine.statistics().preemptions) == (other.text, 1)


async def test_closing_fails_what_is_open(chat_model: str) -> None:
    answers = [Answer() for _ in range(5)]

    async def follow(engine: LocalEngine, whole: Answer) -> None:
        async with engine.generate(_endless()) as events:
            async for event in events:
                whole.take(event)

    async with trio.open_nursery() as nursery, open_local_engine(chat_model, max_sequences=2) as engine:
        for whole in answers:
            nursery.start_soon(follow, engine, whole)
        await until(lambda: engine.statistics().live == 2)
    assert [whole.reason for whole in answers] == ["engine_stopped"] * 5
    with pytest.raises(EngineStopped):
        async with engine.generate(ask()):
            pass


async def test_an_error_in_the_scope_closes_too(chat_model: str) -> None:
    with pytest.RaisesGroup(ZeroDivisionError):
        async with open_local_engine(chat_model) as engine, first_text(engine, _endless()):
            raise ZeroDivisionError
    assert engine.statistics().live == 0
