"""Answers in a form, calls of tools, and reasoning: with the `openai` client, against the built-in model.

The built-in model follows no instructions; whatever it says, a grammar holds it to the form. So these are tests of the forms.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam

from bench.running import Running

HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Describe a server."}]
PERSON: dict[str, object] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
        "kind": {"$ref": "#/$defs/kind"},
    },
    "required": ["name", "age", "tags", "kind"],
    "additionalProperties": False,
    "$defs": {"kind": {"const": "person"}},
}


@pytest.fixture
def client(served: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60) as found:
        yield found


def ask(client: openai.OpenAI, **fields: Any) -> ChatCompletion:
    defaults: dict[str, Any] = {"model": "bolt", "messages": HI, "temperature": 0, "max_tokens": 200}
    reply = client.chat.completions.create(**(defaults | fields))
    assert isinstance(reply, ChatCompletion)
    return reply


def stream(client: openai.OpenAI, **fields: Any) -> list[ChatCompletionChunk]:
    defaults: dict[str, Any] = {"model": "bolt", "messages": HI, "temperature": 0, "max_tokens": 200}
    return list(client.chat.completions.create(**(defaults | fields), stream=True))


def text_of(chunks: Sequence[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def check_person(text: str) -> None:
    person = json.loads(text)
    assert set(person) == {"name", "age", "tags", "kind"}
    assert isinstance(person["name"], str)
    assert len(person["name"]) <= 12
    assert 0 <= person["age"] <= 99
    assert set(person["tags"]) <= {"a", "b"}
    assert len(person["tags"]) <= 2
    assert person["kind"] == "person"


def schema(strict: bool = True, **own: object) -> dict[str, Any]:
    form = {"name": "person", "schema": PERSON | own, "strict": strict}
    return {"response_format": {"type": "json_schema", "json_schema": form}}


@pytest.mark.parametrize("temperature", [0, 1.5])
@pytest.mark.parametrize("strict", [True, False])
def test_answers_follow_their_schema(client: openai.OpenAI, temperature: float, strict: bool) -> None:
    reply = ask(client, **schema(strict), temperature=temperature, seed=3, n=3)
    for choice in reply.choices:
        assert choice.finish_reason == "stop"
        check_person(choice.message.content or "")


def test_a_streamed_answer_is_the_same(client: openai.OpenAI) -> None:
    whole = ask(client, **schema())
    chunks = stream(client, **schema())
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_any_object_will_do(client: openai.OpenAI) -> None:
    reply = ask(client, response_format={"type": "json_object"}, max_tokens=400, temperature=1, seed=1)
    text = reply.choices[0].message.content or ""
    assert text.startswith("{")
    if reply.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"guided_regex": "[0-9]{3}-[a-f]{2}"}, "[0-9]{3}-[a-f]{2}"),
        ({"guided_choice": ["red", "green"]}, "red|green"),
        ({"structured_outputs": {"choice": ["red"]}}, "red"),
        ({"guided_grammar": 'start: "a" B "c"\nB: /b{2,3}/'}, "ab{2,3}c"),
        ({"grammar": 'start: "yes" | "no" /[a-c]{2}/'}, "yes|no[a-c]{2}"),
        ({"grammar": 'root ::= "yes" | "no" tail\ntail ::= [a-c]{2}'}, "yes|no[a-c]{2}"),
        ({"guided_json": {"type": "boolean"}}, "true|false"),
    ],
)
def test_other_servers_names_work(client: openai.OpenAI, fields: dict[str, object], pattern: str) -> None:
    reply = ask(client, extra_body=fields)
    assert re.fullmatch(pattern, reply.choices[0].message.content or "")
    plain = client.completions.create(model="bolt", prompt="The", max_tokens=50, extra_body=fields)
    assert re.fullmatch(pattern, plain.choices[0].text)


@pytest.mark.parametrize(
    ("fields", "param", "part"),
    [
        (schema(uniqueItems=True), "response_format", "uniqueItems"),
        (schema(type="colour"), "response_format", "colour"),
        ({"extra_body": {"guided_regex": "("}}, "guided_regex", "regex"),
        ({"extra_body": {"guided_grammar": "start: nothing"}}, "guided_grammar", "nothing"),
        ({"extra_body": {"guided_choice": []}}, "guided_choice", "choices"),
        ({"extra_body": {"guided_regex": "a{1000" * 40_000}}, "guided_regex", "240000 bytes are too many"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_bad_forms_are_refused_by_name(
    client: openai.OpenAI, fields: dict[str, Any], param: str, part: str, streamed: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        (stream if streamed else ask)(client, **fields)
    assert (caught.value.code, caught.value.param) == ("invalid_request", param)
    assert part in caught.value.message


WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "maximum": 9, "minimum": 1}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
CLOCK: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}},
}


def check_weather(arguments: str) -> None:
    found = json.loads(arguments)
    assert set(found) == {"city", "days"}
    assert found["city"] in {"Oslo", "Rome"}
    assert 1 <= found["days"] <= 9


NAMED = {"type": "function", "function": {"name": "get_weather"}}


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_demanded_calls_come(client: openai.OpenAI, choice: object) -> None:
    reply = ask(client, tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False)
    message, reason = reply.choices[0].message, reply.choices[0].finish_reason
    assert reason == "tool_calls"
    assert message.content is None
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.type == "function"
    assert call.id.startswith("call_")
    assert call.function.name == "get_weather"
    check_weather(call.function.arguments)


def test_calls_stream_in_pieces(client: openai.OpenAI) -> None:
    chunks = stream(client, tools=[CLOCK, WEATHER], tool_choice=NAMED, parallel_tool_calls=False)
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert deltas[0].role == "assistant"
    calls = [call for delta in deltas for call in delta.tool_calls or []]
    assert {call.index for call in calls} == {0}
    assert calls[0].id is not None
    assert calls[0].function is not None
    assert calls[0].function.name == "get_weather"
    assert all(call.id is None for call in calls[1:])
    check_weather("".join(call.function.arguments or "" for call in calls if call.function))
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert text_of(chunks) == ""


def test_calls_are_one_of_the_tools(client: openai.OpenAI) -> None:
    for seed in range(4):
        reply = ask(client, tools=[CLOCK, WEATHER], tool_choice="required", temperature=1.5, seed=seed, max_tokens=400)
        for call in reply.choices[0].message.tool_calls or []:
            assert call.type == "function"
            if call.function.name == "get_weather":
                check_weather(call.function.arguments)
            else:
                assert (call.function.name, json.loads(call.function.arguments)) == ("get_time", {})


def test_a_conversation_with_calls_goes_on(client: openai.OpenAI) -> None:
    first = ask(client, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)
    asked = first.choices[0].message
    assert asked.tool_calls is not None
    history: list[Any] = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [call.to_dict() for call in asked.tool_calls]},
        {"role": "tool", "tool_call_id": asked.tool_calls[0].id, "content": "Rain."},
    ]
    reply = ask(client, tools=[WEATHER], messages=history, max_tokens=20)
    assert reply.choices[0].message.content
    assert reply.choices[0].finish_reason in {"stop", "length"}
    assert ask(client, tools=[WEATHER], tool_choice="none", messages=HI, max_tokens=20).choices[0].message.content


def test_an_answer_may_have_a_form_or_call(client: openai.OpenAI) -> None:
    reply = ask(client, tools=[WEATHER], **schema())
    message = reply.choices[0].message
    if message.tool_calls is None:
        check_person(message.content or "")
    else:
        assert reply.choices[0].finish_reason == "tool_calls"


def test_an_unfinished_call_is_text(client: openai.OpenAI) -> None:
    reply = ask(client, tools=[WEATHER], tool_choice="required", max_tokens=4)
    assert reply.choices[0].finish_reason == "length"
    assert reply.choices[0].message.tool_calls is None
    assert reply.choices[0].message.content


def test_tools_that_cannot_be_are_refused(client: openai.OpenAI) -> None:
    broken = {"type": "function", "function": {"name": "f", "parameters": {"type": "colour"}, "strict": True}}
    table: list[tuple[dict[str, Any], str]] = [
        ({"tools": [broken], "tool_choice": "required"}, "tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ]
    for fields, param in table:
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, **fields)
        assert caught.value.param == param


def test_reasoning_stands_beside_the_answer(client: openai.OpenAI) -> None:
    body = {"guided_grammar": 'start: "<think>\\n" /[a-z]{3}/ "\\n</think>\\n\\n" /[0-9]{2}/'}
    message = ask(client, extra_body=body).choices[0].message
    assert re.fullmatch("[0-9]{2}", message.content or "")
    assert message.model_extra is not None
    assert re.fullmatch("[a-z]{3}", message.model_extra["reasoning_content"])
    deltas = [choice.delta for chunk in stream(client, extra_body=body) for choice in chunk.choices]
    thoughts = "".join((delta.model_extra or {}).get("reasoning_content", "") for delta in deltas)
    assert thoughts == message.model_extra["reasoning_content"]
    assert "".join(delta.content or "" for delta in deltas) == message.content
    left = ask(client, extra_body={**body, "reasoning_format": "none"}).choices[0].message
    assert re.fullmatch("<think>\n[a-z]{3}\n</think>\n\n[0-9]{2}", left.content or "")


def test_logprobs_of_a_form_are_the_models_own(client: openai.OpenAI) -> None:
    fields = {"logprobs": True, "top_logprobs": 2, "extra_body": {"guided_choice": ["zebra"]}}
    found = ask(client, **fields).choices[0].logprobs
    assert found is not None
    assert found.content is not None
    assert "".join(token.token for token in found.content) == "zebra"
    assert found.content[0].logprob < found.content[0].top_logprobs[0].logprob
    told = [choice.logprobs for chunk in stream(client, **fields) for choice in chunk.choices if choice.logprobs]
    assert [token for part in told for token in part.content or []] == found.content
