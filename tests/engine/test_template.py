"""Chat templates beside real Jinja with the settings of Hugging Face's `apply_chat_template`. The templates are in the
style of those that models are published with; every conversation goes through every one of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from quiver._engine import EngineError, render_chat

from .vocabularies import write_sentencepiece

CHATML = """\
{% if messages and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}{% endif %}
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
"""

LLAMA = """\
{{- bos_token }}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set date = date_string | default("01 Jan 2025", true) %}
{#- The first message may be the system prompt. #}
{%- if messages and messages[0].role == 'system' %}
    {%- set system = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday: " + date + "\\n" }}
{%- if tools is not none %}
    {{- "Answer with JSON.\\n\\n" }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception("Only one call at a time") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '{"name": "' ~ call.name ~ '", "parameters": ' }}
        {{- call.arguments if call.arguments is string else call.arguments | tojson }}
        {{- "}<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL = """\
{%- if messages and messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("Roles must alternate: user, assistant, user, ...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val | tojson }}
                    {%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}{{ ", " if not loop.last else "]" }}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function | tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id | length != 9 %}
                {{- raise_exception("Ids of calls have 9 characters") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}{{ ", " if not loop.last else "]" + eos_token }}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] | trim + eos_token }}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content | string + ', "id": "' ~ message.tool_call_id ~ '"}' }}
    {%- else %}
        {{- raise_exception("Unknown role " ~ message.role) }}
    {%- endif %}
{%- endfor %}
"""

QWEN = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages and messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string
        and not (message.content.startswith('<result>') and message.content.endswith('</result>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning is string %}
            {%- set reasoning = message.reasoning %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if loop.index0 > ns.last_query and (loop.last or reasoning) %}
            {{- '<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content }}
        {%- for tool_call in message.tool_calls or [] %}
            {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
            {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
            {%- if tool_call.arguments is string %}
                {{- tool_call.arguments }}
            {%- else %}
                {{- tool_call.arguments | tojson }}
            {%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<result>\\n' + content + '\\n</result>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""

TAGGED = """\
{%- macro turn(role, text, mark="|") -%}
    <{{ mark }}{{ role }}{{ mark }}>{{ caller() if caller else text }}
{%- endmacro -%}
{% for message in messages %}
  {% if loop.index0 > 3 %}{% break %}{% endif %}
  {% if message.content is none %}{% continue %}{% endif %}
  {%- if message.role == "assistant" %}
    {% generation %}{{ turn("bot", message.content, mark="#") }}{% endgeneration %}
  {% else %}
    {% call turn(message.role, "") %}{{ message.content | string | upper }}{% endcall %}
  {% endif %}
  {{ loop.cycle("odd", "even") }} {{ loop.previtem.role }} {{ loop.nextitem.role }} {{ loop.length - loop.revindex }}
{% else %}
no messages
{% endfor %}
{% filter replace("a", "4") %}banana{% endfilter %}{% set block %}x{{ 1 + 1 }}{% endset %}{{ block }}
{{ {"tools": tools, "sum": [1.0, 2e-7, true, none]} }}
"""

TEMPLATES = {"chatml": CHATML, "llama": LLAMA, "mistral": MISTRAL, "qwen": QWEN, "tagged": TAGGED}

SYSTEM = {"role": "system", "content": "You are <b>helpful</b> & 'terse'.\n"}
USER = {"role": "user", "content": '  Hi "there"\n\u00e9\u6f22\U0001f600 {{ x }} {% y %}'}
ASSISTANT = {"role": "assistant", "content": "<think>\nwell\n</think>\n\nHello\n"}
REASONED = {"role": "assistant", "content": "Hello", "reasoning": "well"}
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": {"city": "Rom", "days": 2}}}
WRITTEN = {"id": "123456789", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rom"}'}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "abcdefghi", "content": '{"t": 20.5}'}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather <now> & 'later' \u2013 \u00e9",
            "parameters": {
                "type": "object",
                "properties": {"days": {"type": "integer", "default": 3, "minimum": 0.5}, "city": {"type": "string"}},
                "required": [],
            },
        },
    }
]

CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "one": ([USER], {}),
    "system": ([SYSTEM, USER], {}),
    "long": ([SYSTEM, USER, ASSISTANT, USER, REASONED], {}),
    "tools": ([SYSTEM, USER], {"tools": TOOLS}),
    "call": ([USER, CALLING, RESULT], {"tools": TOOLS}),
    "calls": ([USER, {**CALLING, "tool_calls": [CALL, WRITTEN]}, RESULT, RESULT, ASSISTANT, USER], {"tools": TOOLS}),
    "written call": ([SYSTEM, USER, {**CALLING, "tool_calls": [WRITTEN]}, RESULT], {}),
    "two users": ([USER, USER], {}),
    "thinking": ([USER], {"enable_thinking": True}),
    "not thinking": ([USER, ASSISTANT, USER], {"enable_thinking": False, "date_string": "29 Feb 2024"}),
    "late system": ([USER, SYSTEM], {}),
    "other role": ([USER, ASSISTANT, USER, {"role": "critic", "content": "No"}], {}),
    "numbers": ([{"role": "user", "content": "1", "weight": 1.5}], {"date_string": ""}),
}


def jinja() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    return environment


class Generation(Extension):
    """`{% generation %}`: the mark for what the assistant said."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.If(nodes.Const(True), body, [], []).set_lineno(line)


def tojson(value: object, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


@pytest.fixture(name="file", params=TEMPLATES, scope="module")
def template_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A model file's path, and the template in it."""
    template = TEMPLATES[request.param]
    path = write_sentencepiece(tmp_path_factory.mktemp("templates") / "model.gguf", template=template)
    return str(path), template


@pytest.mark.parametrize("generate", [True, False], ids=["answer", "no answer"])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_renders_like_jinja(file: tuple[str, str], conversation: str, generate: bool) -> None:
    path, template = file
    messages, extra = CONVERSATIONS[conversation]
    usual = {"tools": None, "documents": None, "bos_token": "<s>", "eos_token": "</s>"}
    variables = {**usual, **extra, "messages": messages, "add_generation_prompt": generate}

    def render() -> str:
        return render_chat(
            path, json.dumps(messages).encode(), extra=json.dumps(extra).encode(), add_generation_prompt=generate
        )

    agree(render, lambda: jinja().from_string(template).render(variables))


def agree(ours: Callable[[], str], jinjas: Callable[[], str]) -> None:
    """Both give the same text, or both fail for the same reason: what the template raised, something undefined, or an
    operation on a value of the wrong type.
    """
    try:
        expected = jinjas()
    except jinja2.UndefinedError:
        reason = r".*undefined"
    except jinja2.TemplateError as error:
        reason = re.escape(str(error)) + "$"
    except TypeError:
        reason = r".*\(line"
    else:
        assert ours() == expected
        return
    with pytest.raises(EngineError, match="chat template: " + reason):
        ours()


EXPRESSIONS = """\
true ~ none ~ 1.5
[1, 2, 'a', none, true, 1.5, "it's"]
{'a': 1, 'b': [1, {'c': 'd'}]}
('a', 1)
-3 // 2 ~ -7 % 3 ~ 7 / 2 ~ 2 ** 10
'abc'[::-1] ~ 'abc'[1:] ~ 'abc'[-1] ~ 'abcdef'[::2]
messages[::-1] | map(attribute='role') | list
'a,b,c'.split(',', 1) + 'a b  c'.split() + 'a\\nb\\n'.splitlines()
'aXbX'.rsplit('X', 1) ~ 'a=b=c'.partition('=') ~ 'a=b=c'.rpartition('=')
'abc'.removeprefix('a') ~ 'abc'.removesuffix('c') ~ 'xxaxx'.strip('x') ~ 'abcabc'.lstrip('ab')
'abc'.startswith(('x', 'a')) ~ 'abc'.find('c') ~ 'aaa'.replace('a', 'b', 2) ~ 'abc'.count('b')
'hello world'.title() ~ 'hello'.capitalize() ~ '-'.join(['a', 'b']) ~ '{} {}'.format('a', 1)
{'a': 1}.get('b', 'z') ~ {'a': 1}.items() | list ~ {'b': 1, 'a': 2} | dictsort
'a' in 'abc' and 'a' in {'a': 1} and 1 in [1.0] and none in [none]
[1 is number, true is number, true is integer, 1.0 is float, true is boolean, 1 is true]
['a' is sequence, {} is sequence, [] is sequence, none is sequence, 1 is sequence, nothing is sequence]
['a' is iterable, {} is iterable, none is iterable, 1 is iterable, nothing is iterable, {} is mapping]
[nothing is defined, nothing is none, none is undefined, nothing is string]
[nothing | default('x'), '' | default('x'), '' | default('x', true), none | default('x')]
[nothing or 'y', none or 'z', [] or 'e', '' and 'x', 0 or 5, not none]
'a' + nothing
nothing.attribute
{'a': 1}.b
{'a': 1}.b.c
[1][5]
'x' if false
[3, 1, 2] | sort(reverse=true) ~ [1, 1, 2] | unique | list ~ ['b', 'A'] | sort
[{'a': 1}, {}] | map(attribute='a', default=0) | list ~ [{'a': {'b': 1}}] | map(attribute='a.b') | list
[{'r': 'x'}, {'r': 'y'}] | selectattr('r', 'in', ['x']) | list ~ [{'r': 'x'}] | rejectattr('r', 'equalto', 'x') | list
[1, 2, 3, 4, 5] | batch(2) | list ~ [1, none, ''] | select | list ~ [[1], [2]] | sum(start=[])
3.7 | int ~ '5' | int ~ 3 | float ~ 3.456 | round(1) ~ -5 | abs ~ [1, 2] | max
'a\\nb' | indent(2, true) ~ '%s-%d' | format('a', 2) ~ '%.2f' | format(3.14159) ~ '<a>' | escape
'a "q" \u00e9 < \\u2028 / \\x7f \\x00\\t' | tojson
[1.0, 1e-7, 1e22, 123456789.123, 1e16, 0.0001, 100000000000000000000] | tojson
{'a': {'b': [], 'c': {}}} | tojson(indent=4) ~ ['x', 1] | tojson(separators=(',', ':'))
{'b': 1, 'a': ('x', none)} | tojson(sort_keys=true) ~ '\u00e9\U0001f600' | tojson(ensure_ascii=true) ~ {1: 2} | tojson
nothing | tojson
range(1, 10, 3) | list ~ range(5, 0, -2) | list ~ dict(a=1) ~ namespace(a=1).a
messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | first
messages[0]
""".splitlines()  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_evaluates_like_jinja(tmp_path: Path, expression: str) -> None:
    template = "{{ " + expression + " }}"
    path = str(write_sentencepiece(tmp_path / "model.gguf", template=template))
    messages = [SYSTEM, USER]
    agree(
        lambda: render_chat(path, json.dumps(messages).encode()),
        lambda: jinja().from_string(template).render(messages=messages),
    )


def test_files_without_a_template_say_so(tmp_path: Path) -> None:
    path = str(write_sentencepiece(tmp_path / "model.gguf"))
    with pytest.raises(EngineError, match="chat template: the model file has none"):
        render_chat(path, b"[]")


def test_broken_templates_name_the_line(tmp_path: Path) -> None:
    path = str(write_sentencepiece(tmp_path / "model.gguf", template="{{ bos_token }}\n{% if %}"))
    with pytest.raises(EngineError, match=r"syntax error: .* \(line 2: `\{% if %\}`\)"):
        render_chat(path, b"[]")
