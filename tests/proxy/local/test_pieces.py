"""Taking answers apart: the same parts however the text is cut, and nothing of it lost."""

from collections.abc import Iterable, Sequence

import pytest
from quiver.proxy.local.calls import Call
from quiver.proxy.local.dialect import (
    FORMATS,
    GRANITE,
    HERMES,
    LLAMA,
    MISTRAL,
    MISTRAL_NAMED,
    PHI,
    REASONING,
    TOLD,
    CallFormat,
    read_dialect,
)
from quiver.proxy.local.pieces import AnswerReader, Part, Said, Thought

THINK = REASONING[0]
NAMES = ("f", "get_weather")
TRICKY = '{"a": "}] \\\\\\" </tool_call> [TOOL_CALLS]", "b": [{}, "\\u00e9"]}'


def joined(parts: Iterable[Part]) -> list[Part]:
    """Neighbours of one kind as one."""
    whole: list[Part] = []
    for part in parts:
        if isinstance(part, Said) and whole and isinstance(whole[-1], Said):
            whole[-1] = Said(whole[-1].text + part.text)
        elif isinstance(part, Thought) and whole and isinstance(whole[-1], Thought):
            whole[-1] = Thought(whole[-1].text + part.text)
        else:
            whole.append(part)
    return whole


def read(form: CallFormat | None, pieces: Sequence[str], *, reasoning: bool = False) -> list[Part]:
    reader = AnswerReader(THINK, form, NAMES, reasoning=reasoning)
    parts = [part for piece in pieces for part in reader.feed(piece)]
    return joined(parts + reader.finish())


def assert_read(form: CallFormat | None, text: str, expected: Sequence[Part], *, reasoning: bool = False) -> None:
    """Whole, letter by letter, and cut once at every place."""
    cuts = [[text], list(text), *([text[:place], text[place:]] for place in range(1, len(text)))]
    for pieces in cuts:
        assert read(form, pieces, reasoning=reasoning) == list(expected), pieces


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("plain text\n", [Said("plain text\n")]),
        ("\n\n plain", [Said("\n\n plain")]),
        ("<think>\nwell\n</think>\n\nyes", [Thought("well"), Said("yes")]),
        ("\n<think>a\n\nb </think>c", [Thought("a\n\nb"), Said("c")]),
        ("<think>\n\n</think>\n\nyes", [Said("yes")]),
        ("<think>unfinished </thi", [Thought("unfinished </thi")]),
        ("<think>unfinished\n", [Thought("unfinished")]),
        ("<think>", []),
        ("<thin", [Said("<thin")]),
        ("<thing> is a tag", [Said("<thing> is a tag")]),
        ("what <think> means</think>", [Said("what <think> means</think>")]),
        ("<think>a</think>b</think>", [Thought("a"), Said("b</think>")]),
    ],
)
def test_reasoning_is_set_apart(text: str, expected: list[Part]) -> None:
    assert_read(None, text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\nwell\n</think>\nyes", [Thought("well"), Said("yes")]),
        ("<think>\nwell</think>yes", [Thought("well"), Said("yes")]),
        ("</think>yes", [Said("yes")]),
        ("never done", [Thought("never done")]),
    ],
)
def test_reasoning_that_the_prompt_began(text: str, expected: list[Part]) -> None:
    assert_read(None, text, expected, reasoning=True)


def test_reasoning_may_stay_in_the_text() -> None:
    reader = AnswerReader(None, None, reasoning=True)
    assert joined(reader.feed("<think>a</think>b") + reader.finish()) == [Said("<think>a</think>b")]


CALL = Call("f", '{"a": 1}')
CALLS: list[tuple[CallFormat, str, list[Part]]] = [
    (HERMES, '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', [CALL]),
    (HERMES, '<tool_call>{"name":"f","parameters":{"a": 1}}</tool_call>', [CALL]),
    (HERMES, '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', [CALL]),
    (HERMES, '<tool_call>{"name": "f"}</tool_call>', [Call("f", "{}")]),
    (HERMES, '<tool_call>{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}</tool_call>', [CALL]),
    (HERMES, f'<tool_call>{{"name": "f", "arguments": {TRICKY}}}</tool_call>', [Call("f", TRICKY)]),
    (HERMES, 'I look.\n\n<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>\n', [Said("I look."), CALL]),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>\n' * 2, [CALL, CALL]),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call> done', [CALL, Said("done")]),
    (
        HERMES,
        '<think>\nI use <tool_call>\n</think>\n\n<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>',
        [Thought("I use <tool_call>"), CALL],
    ),
    # The last closing mark may be missing: the call is complete.
    (HERMES, '<tool_call>{"name": "f", "arguments": {"a": 1}}', [CALL]),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"a": 1}}\n</tool', [CALL, Said("</tool")]),
    (LLAMA, '{"name": "f", "parameters": {"a": 1}}', [CALL]),
    (LLAMA, '<|python_tag|>{"name": "f", "parameters": {"a": 1}}', [CALL]),
    (LLAMA, '{"type": "function", "name": "f", "parameters": {"a": 1}}; {"name": "f", "parameters": {}}', [
        CALL, Call("f", "{}"),
    ]),
    (MISTRAL, '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "f", "arguments": {}}]', [
        CALL, Call("f", "{}"),
    ]),
    (MISTRAL, '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}, "id": "abcdefghi"}]', [CALL]),
    (MISTRAL_NAMED, '[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]get_weather[ARGS]{}', [CALL, Call("get_weather", "{}")]),
    (MISTRAL_NAMED, '[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{"a": 1}', [CALL]),
    (MISTRAL_NAMED, '[TOOL_CALLS]f{"a": 1}', [CALL]),
    (GRANITE, '<|tool_call|>[{"name": "f", "arguments": {"a": 1}}]', [CALL]),
    (GRANITE, '<tool_call>[{"name": "f", "arguments": {"a": 1}}]', [CALL]),
    (PHI, '<|tool_call|>[{"name": "f", "arguments": {"a": 1}}]<|/tool_call|>', [CALL]),
    (PHI, 'functools[{"name": "f", "arguments": {"a": 1}}]', [CALL]),
    (TOLD, '{"name": "f", "arguments": {"a": 1}}', [CALL]),
    (TOLD, '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', [CALL]),
]  # fmt: skip


@pytest.mark.parametrize(("form", "text", "expected"), CALLS)
def test_calls_are_read(form: CallFormat, text: str, expected: list[Part]) -> None:
    assert_read(form, text, expected)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (HERMES, "<tool_call>"),
        (HERMES, "<tool_call>\n"),
        (HERMES, '<tool_call>{"name": "f", "arguments": {"a": 1'),
        (HERMES, '<tool_call>{"name": "f", "arguments": {"a": 1]}</tool_call>'),
        (HERMES, '<tool_call>{"name": "f", "arguments": [1]}</tool_call>'),
        (HERMES, '<tool_call>{"name": "f", "arguments": "x"}</tool_call>'),
        (HERMES, '<tool_call>{"arguments": {}}</tool_call>'),
        (HERMES, '<tool_call>{"name": 1, "arguments": {}}</tool_call>'),
        (HERMES, "<tool_call>[]</tool_call>"),
        (HERMES, "<tool_call>f, of course</tool_call>"),
        (HERMES, "the mark <tool_call> begins one"),
        (HERMES, "a < b and <tool"),
        (HERMES, '{"name": "f", "arguments": {}}'),
        (HERMES, 'text with "quotes" and {brackets}'),
        (LLAMA, '{"name": "unknown", "parameters": {}}'),
        (LLAMA, '{"city": "Oslo"}'),
        (LLAMA, "{not json}"),
        (LLAMA, '{"name": "f", "parameters": {"a'),
        (LLAMA, 'see: {"name": "f", "parameters": {}}'),
        (LLAMA, "  {"),
        (MISTRAL, "[TOOL_CALLS]"),
        (MISTRAL, "[TOOL_CALLS][1, 2]"),
        (MISTRAL_NAMED, "[TOOL_CALLS]f[ARGS]"),
        (MISTRAL_NAMED, "[TOOL_CALLS]f[ARGS]oh"),
        (PHI, "import functools"),
        (PHI, "functools[0] and functools.reduce"),
    ],
)
def test_what_is_no_call_stays_text(form: CallFormat, text: str) -> None:
    assert_read(form, text, [Said(text)])


def test_a_call_follows_a_broken_one() -> None:
    text = '<tool_call>oh {no</tool_call>\n<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
    assert_read(HERMES, text, [Said("<tool_call>oh {no</tool_call>"), CALL])


def test_text_is_not_held_back() -> None:
    reader = AnswerReader(THINK, HERMES, NAMES)
    assert [reader.feed(piece) for piece in ("Hel", "lo <", "b>")] == [[Said("Hel")], [Said("lo")], [Said(" <b>")]]
    reader = AnswerReader(THINK, None)
    assert [reader.feed(piece) for piece in ("<think>", "a b", " c<", "/x")] == [
        [], [Thought("a b")], [Thought(" c")], [Thought("</x")],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("template", "name", "knows_tools", "reasons"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "told", False, False),
        ("{% if tools %}<tools></tools> use <tool_call>{% endif %}</think>", "hermes", True, True),
        ("{% if tools %}{{ tools }}[TOOL_CALLS][{% endif %}", "mistral", True, False),
        ("{% if tools %}[TOOL_CALLS]{{ name }}[ARGS]{% endif %}[THINK]", "mistral-named", True, True),
        ("{% if tools %}<|tool|>{{ tools }}<|/tool|>{% endif %}", "phi", True, False),
        ("{% if tools %}<|start_of_role|>tools<|tool_call|>{% endif %}", "granite", True, False),
        ('{% if tools %}{"name": function name, "parameters": ..}<|python_tag|>{% endif %}', "llama", True, False),
        ("{% if tools %}in a way nobody knows{% endif %}", "told", True, False),
        ("", "told", False, False),
    ],
)
def test_templates_tell_the_dialect(template: str, name: str, knows_tools: bool, reasons: bool) -> None:
    dialect = read_dialect(template, {"[TOOL_CALLS]": 5, "<think>": 7, "<s>": 1})
    assert (dialect.calls.name, dialect.knows_tools, dialect.reasons) == (name, knows_tools, reasons)
    assert dialect.shown(calls=False) == ([] if "[THINK]" in template else [7])


def test_each_format_reads_what_it_writes() -> None:
    for form in {id(form): form for _, form in FORMATS}.values():
        call = form.before.replace("NAME", "f") + '{"a": 1}' + form.after
        assert_read(form, form.begin + call + form.between + call + form.end, [CALL, CALL])
