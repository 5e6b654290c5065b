"""From OpenAI's parameters to the engine's: every one is translated or refused by name."""

from typing import Any, TypeVar

import msgspec
import pytest
from quiver.proxy.local.dialect import HERMES, LLAMA, MISTRAL, MISTRAL_NAMED, Dialect
from quiver.proxy.local.prompting import chat_requests, completion_requests
from quiver.schemas.engine import GenerateRequest, Grammar, Prompt
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import ChatRequest, CompletionRequest

HI: list[dict[str, object]] = [{"role": "user", "content": "hi"}]


WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "strict": True,
    },
}
CALLED: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
}

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
        ({"tools": [WEATHER], "tool_choice": "none"}, {}),
        ({"response_format": {"type": "text"}}, {}),
        (
            {"response_format": {"type": "json_object"}},
            {"grammar": Grammar("response_format", json={"type": "object"})},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}}},
            {"grammar": Grammar("response_format", json={}, strict=True)},
        ),
        ({"guided_json": {"type": "null"}}, {"grammar": Grammar("guided_json", json={"type": "null"})}),
        ({"guided_json": '{"type": "null"}'}, {"grammar": Grammar("guided_json", json={"type": "null"})}),
        ({"guided_regex": "a+"}, {"grammar": Grammar("guided_regex", regex="a+")}),
        ({"guided_choice": ["a", "b"]}, {"grammar": Grammar("guided_choice", choice=["a", "b"])}),
        ({"guided_grammar": "start: A"}, {"grammar": Grammar("guided_grammar", lark="start: A")}),
        ({"grammar": "start: A"}, {"grammar": Grammar("grammar", lark="start: A")}),
        ({"json_schema": {}}, {"grammar": Grammar("json_schema", json={})}),
        (
            {"structured_outputs": {"choice": ["a"]}},
            {"grammar": Grammar("structured_outputs.choice", choice=["a"])},
        ),
        ({"chat_template_kwargs": {"x": [1]}}, {"template_arguments": {"x": [1]}}),
        ({"reasoning_effort": "low"}, {"template_arguments": {"reasoning_effort": "low"}}),
        (
            {"reasoning_effort": "none"},
            {"template_arguments": {"reasoning_effort": "none", "enable_thinking": False}},
        ),
        ({"modalities": ["text"], "tools": []}, {}),
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
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "no"}}}, "tool_choice"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "response_format"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        ({"guided_regex": "a", "tools": [WEATHER]}, "guided_regex"),
        ({"guided_json": "{"}, "guided_json"),
        ({"functions": []}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"audio": {}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [CALLED | {"function": {"name": "f", "arguments": "{"}}]}
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
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


def spoken(dialect: Dialect, **fields: Any) -> GenerateRequest:
    (request,) = chat_requests(decoded({"model": "m", "messages": HI, **fields}, ChatRequest), "s", dialect)
    return request


HISTORY: list[dict[str, object]] = [
    *HI,
    {"role": "assistant", "content": None, "tool_calls": [CALLED]},
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
]


def test_templates_get_tools_and_calls() -> None:
    request = spoken(Dialect(HERMES, knows_tools=True), tools=[WEATHER], messages=HISTORY)
    function = {name: WEATHER["function"][name] for name in ("name", "description", "parameters")}
    assert request.template_arguments == {"tools": [{"type": "function", "function": function}]}
    assert request.prompt.messages == [
        *HI,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [CALLED | {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}],
        },
        {"role": "tool", "content": "rain", "tool_call_id": "call_1", "name": "weather"},
    ]


def test_templates_without_tools_get_words() -> None:
    request = spoken(Dialect(), tools=[WEATHER], messages=HISTORY)
    assert request.template_arguments == {}
    assert isinstance(request.prompt.messages, list)
    system, *rest = request.prompt.messages
    assert system["role"] == "system"
    assert '"name": "weather"' in str(system["content"])
    written = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    assert rest == [
        *HI,
        {"role": "assistant", "content": written},
        {"role": "user", "content": "<tool_response>\nrain\n</tool_response>"},
    ]
    own = {"role": "system", "content": "Be brief."}
    first = spoken(Dialect(), tools=[WEATHER], messages=[own, *HI]).prompt.messages
    assert isinstance(first, list)
    assert str(first[0]["content"]).startswith("Be brief.\n\nYou may call")
    merged = spoken(Dialect(knows_system=False), tools=[WEATHER]).prompt.messages
    assert isinstance(merged, list)
    assert [message["role"] for message in merged] == ["user"]
    assert str(merged[0]["content"]).endswith("hi")


def test_short_ids_stay_paired() -> None:
    messages = spoken(Dialect(MISTRAL, knows_tools=True, short_ids=True), messages=HISTORY).prompt.messages
    _, asked, answered = msgspec.convert(messages, list[dict[str, Any]])
    (call,) = asked["tool_calls"]
    assert call["id"] == answered["tool_call_id"]
    assert len(call["id"]) == 9


def test_reasoning_marks_are_told() -> None:
    dialect = Dialect(reasons=True, controls={"<think>": 3, "<|python_tag|>": 9, "[TOOL_CALLS]": 8})
    plain = spoken(dialect)
    assert (plain.reasoning, plain.shown) == (("<think>", "</think>"), [3])
    assert spoken(Dialect(LLAMA, controls=dialect.controls), tools=[WEATHER]).shown == [3, 9]


def lark(dialect: Dialect, **fields: Any) -> str | None:
    grammar = spoken(dialect, tools=[WEATHER], **fields).grammar
    if grammar is None:
        return None
    assert isinstance(grammar.schemas, dict)
    assert grammar.schemas["arguments0"].json == WEATHER["function"]["parameters"]
    return str(grammar.lark)


def test_calls_have_a_grammar_where_promised() -> None:
    loose = {"type": "function", "function": {"name": "f"}}
    assert spoken(Dialect(HERMES), tools=[loose]).grammar is None
    for fields in ({"tool_choice": "required"}, {"parallel_tool_calls": False}):
        assert spoken(Dialect(HERMES), tools=[loose], **fields).grammar is not None
    named = {"type": "function", "function": {"name": "weather"}}
    assert lark(Dialect(HERMES), tool_choice=named) == "\n".join(
        [
            "start: calls",
            "calls: call",
            "call: call0",
            r'call0: "<tool_call>\n{\"name\": \"weather\", \"arguments\": " @arguments0 "}\n</tool_call>"',
        ]
    )
    control = Dialect(MISTRAL_NAMED, controls={"[TOOL_CALLS]": 5})
    assert lark(control, tool_choice="required", parallel_tool_calls=False) == "\n".join(
        ["start: calls", "calls: call", "call: call0", 'call0: <[5]> "weather[ARGS]" @arguments0']
    )
