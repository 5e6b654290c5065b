"""From OpenAI's parameters to the engine's: every one is translated or refused by name."""

from typing import Any, TypeVar

import msgspec
import pytest
from quiver.proxy.local.prompting import chat_requests, completion_requests
from quiver.schemas.engine import GenerateRequest, Prompt
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import ChatRequest, CompletionRequest

HI: list[dict[str, object]] = [{"role": "user", "content": "hi"}]


T = TypeVar("T")


def decoded(fields: dict[str, Any], kind: type[T]) -> T:
    return msgspec.json.decode(msgspec.json.encode(fields), type=kind)


def chat(**fields: Any) -> list[GenerateRequest]:
    return chat_requests(decoded({"model": "m", "messages": HI, **fields}, ChatRequest), "s")


def completion(**fields: Any) -> list[GenerateRequest]:
    return completion_requests(decoded({"model": "m", "prompt": "x", **fields}, CompletionRequest), "s")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"temperature": None, "top_p": 0.5}, {"temperature": 1.0, "top_p": 0.5}),
        ({"stop": "a"}, {"stop": ["a"]}),
        ({"stop": ["a", "", "b"]}, {"stop": ["a", "b"]}),
        ({"seed": 4}, {"seed": 4}),
        ({"seed": -1}, {"seed": 2**64 - 1}),
        ({"logit_bias": {"7": -100}}, {"logit_bias": {"7": -100.0}}),
        ({"logprobs": True}, {"logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
        ({"tools": [{}], "tool_choice": "none"}, {}),
        ({"response_format": {"type": "text"}}, {}),
        ({"an_extension": 1}, {}),
    ],
)
def test_chat_parameters(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    (request,) = chat(**fields)
    assert request == GenerateRequest(prompt=Prompt(messages=HI), scope="s", **expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("hi", "hi"),
        (None, ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
    ],
)
def test_message_content_is_one_string(content: object, expected: str) -> None:
    (request,) = chat(messages=[{"role": "assistant", "content": content, "name": "n"}])
    assert request.prompt.messages == [{"role": "assistant", "content": expected, "name": "n"}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{}]}, "tools"),
        ({"tools": [{}], "tool_choice": "auto"}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"top_logprobs": 2}, "top_logprobs"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0]",
        ),
    ],
)
def test_chat_refusals_name_the_parameter(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        chat(**fields)
    assert (caught.value.kind.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", [Prompt(text="a")]),
        (["a", "b"], [Prompt(text="a"), Prompt(text="b")]),
        ([1, 2], [Prompt(tokens=[1, 2])]),
        ([[1], [2, 3]], [Prompt(tokens=[1]), Prompt(tokens=[2, 3])]),
    ],
)
def test_completion_prompts(prompt: object, expected: list[Prompt]) -> None:
    assert [request.prompt for request in completion(prompt=prompt)] == expected
    assert [request.max_tokens for request in completion(prompt=prompt)] == [16] * len(expected)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a"] * 65, "n": 2}, "prompt"),
        ({"suffix": "s"}, "suffix"),
        ({"echo": True}, "echo"),
        ({"best_of": 3}, "best_of"),
    ],
)
def test_completion_refusals_name_the_parameter(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        completion(**fields)
    assert caught.value.param == param


def test_choices_of_a_seed_differ() -> None:
    assert [request.seed for request in chat(n=3, seed=9)] == [9, 10, 11]
