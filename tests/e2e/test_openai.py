"""The main job with the client people have: the `openai` package against the engine, and through a second gateway."""

import time
from collections.abc import Iterator

import openai
import pytest

from bench.running import Running

from .conftest import KEY

QUESTION = "How do I register a server?"


@pytest.fixture(params=["engine", "remote"])
def client(request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    running: Running = request.getfixturevalue("served" if request.param == "engine" else "two_tier")
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=KEY, max_retries=0) as found:
        _wait_for_model(found)
        yield found


def _wait_for_model(client: openai.OpenAI) -> None:
    """Servers are discovered shortly after start."""
    for _ in range(100):
        if any(model.id == "bolt" for model in client.models.list()):
            return
        time.sleep(0.05)
    pytest.fail("`bolt` was not offered within 5 s")


def ask(text: str) -> list[openai.types.chat.ChatCompletionUserMessageParam]:
    return [{"role": "user", "content": text}]


def test_answer_names_the_fact(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="bolt", messages=ask(QUESTION), temperature=0)
    text = reply.choices[0].message.content or ""
    assert "[[backends]]" in text
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 10


def test_stream_equals_whole(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="bolt", messages=ask(QUESTION), temperature=0)
    stream = client.chat.completions.create(
        model="bolt", messages=ask(QUESTION), temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert "".join(pieces) == whole.choices[0].message.content
    # How much of the prompt was known already may differ: the second answer finds what the first has computed.
    counts = [(usage.prompt_tokens, usage.completion_tokens) for usage in (chunks[-1].usage, whole.usage) if usage]
    assert len(counts) == 2
    assert counts[0] == counts[1]
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


def test_long_answers_come_in_pieces(client: openai.OpenAI) -> None:
    # Long enough that no reader falls behind for all of it: texts that wait for a reader join.
    stream = client.chat.completions.create(
        model="bolt", messages=ask("hi"), stream=True, extra_body={"guided_regex": "(ab ){300}"}
    )
    pieces = [choice.delta.content for chunk in stream for choice in chunk.choices if choice.delta.content]
    assert len(pieces) > 1
    assert "".join(pieces) == "ab " * 300


def test_usage_only_when_asked(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="bolt", messages=ask("hi"), max_tokens=4, stream=True)
    assert all(chunk.usage is None for chunk in stream)


def test_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="bold", messages=ask("hi"))
    assert caught.value.code == "model_not_found"
    assert "`bolt`" in caught.value.message


def test_plain_completion(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="bolt", prompt="Quiver is", max_tokens=5, temperature=0)
    assert reply.choices[0].text
    assert reply.usage is not None
    assert reply.usage.completion_tokens <= 5


def test_choices_and_seeds(client: openai.OpenAI) -> None:
    def sample() -> list[str]:
        reply = client.completions.create(
            model="bolt", prompt=["To", "The"], n=2, seed=7, max_tokens=8, temperature=1.5
        )
        return [choice.text for choice in reply.choices]

    first = sample()
    assert len(first) == 4
    assert len(set(first)) > 1
    assert sample() == first


def test_logprobs(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="bolt", messages=ask("hi"), temperature=0, max_tokens=3, logprobs=True, top_logprobs=2
    )
    found = reply.choices[0].logprobs
    assert found is not None
    assert found.content is not None
    for token in found.content:
        assert len(token.top_logprobs) == 2
        assert token.logprob == token.top_logprobs[0].logprob <= 0


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0]",
        ),
    ],
)
def test_bad_parameters_are_named(client: openai.OpenAI, change: dict[str, object], param: str) -> None:
    body = {"model": "bolt", "messages": ask("hi"), **change}
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body=body, cast_to=object)
    assert caught.value.param == param


def test_context_overflow_says_both_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="bolt", messages=ask("word " * 20_000))
    assert caught.value.code == "context_length_exceeded"
    numbers = [int(word) for word in caught.value.message.replace(",", "").split() if word.isdigit()]
    assert len([number for number in numbers if number > 1000]) >= 2


def test_wrong_key_is_refused(two_tier: Running) -> None:
    with (
        openai.OpenAI(base_url=f"{two_tier.url}/v1", api_key="sk-wrong-key", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()
