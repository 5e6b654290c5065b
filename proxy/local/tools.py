"""Asking for calls of tools: what the template is told, and the grammar that holds a model to them.

A model whose template shows tools gets them as it was trained to. Any other is told in a system message, and its earlier calls
and their results are written into its messages.
"""

import hashlib
import json
from collections.abc import Sequence

import msgspec
from quiver.schemas import errors
from quiver.schemas.engine import Grammar, Schema
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import ChatMessage, ChatRequest, Tool, ToolCall, ToolChoice

from .dialect import CallFormat, Dialect

# Calls that one answer may hold where a grammar asks for them.
MAX_CALLS = 16
SHORT_ID = 9
ANY_OBJECT = {"type": "object"}

INSTRUCTION = """You may call these functions to help with the request. They are described as JSON:
{tools}

To call one, answer with nothing but this, once for each call:
<tool_call>
{{"name": "the function's name", "arguments": {{"argument": "value"}}}}
</tool_call>
The results follow in the next message. If no function helps, answer in plain text."""


def offered(chat: ChatRequest) -> list[Tool]:
    """The tools that the answer may call. Raises `ApiError`."""
    choice, tools = chat.tool_choice, chat.tools or []
    if not tools:
        if choice not in (None, "none", "auto"):
            raise _refuse("tool_choice", "`tool_choice` asks for a call, but there are no `tools`")
        return []
    names = [tool.function.name for tool in tools]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise _refuse(f"tools[{index}].function.name", f"`{name}` is the name of another tool already")
    if isinstance(choice, ToolChoice) and choice.function.name not in names:
        raise _refuse("tool_choice", f"there is no tool `{choice.function.name}`")
    return [] if choice == "none" else tools


def described(tools: Sequence[Tool]) -> list[object]:
    """The tools as chat templates expect them."""
    shown: list[object] = []
    for tool in tools:
        function: dict[str, object] = {"name": tool.function.name}
        if tool.function.description is not None:
            function["description"] = tool.function.description
        function["parameters"] = tool.function.parameters or {"type": "object", "properties": {}}
        shown.append({"type": "function", "function": function})
    return shown


def told(tools: Sequence[Tool]) -> str:
    """The tools in words, for a model whose template knows none."""
    return INSTRUCTION.format(tools="\n".join(json.dumps(tool) for tool in described(tools)))


def call_fields(index: int, message: ChatMessage, dialect: Dialect) -> list[dict[str, object]]:
    """The calls of a message as chat templates expect them: the arguments are an object. Raises `ApiError`."""
    return [
        {
            "id": known_id(call.id, dialect),
            "type": "function",
            "function": {"name": call.function.name, "arguments": _arguments(index, number, call)},
        }
        for number, call in enumerate(message.tool_calls or [])
    ]


def _arguments(index: int, number: int, call: ToolCall) -> dict[str, object]:
    try:
        return msgspec.json.decode(call.function.arguments or "{}", type=dict[str, object])
    except msgspec.DecodeError as error:
        param = f"messages[{index}].tool_calls[{number}].function.arguments"
        raise _refuse(param, f"`{param}` must be the text of a JSON object: {error}") from None


def known_id(written: str, dialect: Dialect) -> str:
    """A call's id in the form that the template takes: the same for the call and its result."""
    if not dialect.short_ids or (len(written) == SHORT_ID and written.isalnum() and written.isascii()):
        return written
    return hashlib.sha256(written.encode()).hexdigest()[:SHORT_ID]


def calls_grammar(chat: ChatRequest, tools: Sequence[Tool], dialect: Dialect, answer: Schema | None) -> Grammar | None:
    """What holds the answer to calls, where the client asks for that; None where the model is free.

    `tool_choice` may demand a call. Otherwise an answer may call: as `strict` functions promise, or no more than one. `answer`
    is the form of an answer that does not call.
    """
    choice, single = chat.tool_choice, chat.parallel_tool_calls is False
    demanded = choice == "required" or isinstance(choice, ToolChoice)
    if not demanded and not single and answer is None and not any(tool.function.strict for tool in tools):
        return None
    if isinstance(choice, ToolChoice):
        tools = [tool for tool in tools if tool.function.name == choice.function.name]
        single = single or chat.parallel_tool_calls is None
    schemas = {f"arguments{index}": _schema(tool) for index, tool in enumerate(tools)}
    lines = _CallGrammar(dialect).lines(tools, demanded=demanded, single=single, formed=answer is not None)
    if answer is not None and not demanded:
        schemas["answer"] = answer
    return Grammar(field="tools", lark="\n".join(lines), schemas=schemas)


def _schema(tool: Tool) -> Schema:
    return Schema(tool.function.parameters or ANY_OBJECT, strict=bool(tool.function.strict))


class _CallGrammar:
    """Writes calls in one format as a grammar in Lark's notation."""

    def __init__(self, dialect: Dialect) -> None:
        self._form, self._controls = dialect.calls, dialect.controls

    def lines(self, tools: Sequence[Tool], *, demanded: bool, single: bool, formed: bool) -> list[str]:
        form = self._form
        names = [tool.function.name for tool in tools]
        more = "" if single else f"({_joined(self._literal(form.between), 'call')}){{0,{MAX_CALLS - 1}}}"
        calls = [
            f"call: {' | '.join(f'call{index}' for index in range(len(names)))}",
            *(self._call(f"call{index}", form.before, index, name) for index, name in enumerate(names)),
        ]
        if not demanded and not formed:
            return self._free(names, more) + calls
        start = "start: calls" if demanded else "start: calls | @answer"
        return [start, _joined("calls:", self._literal(form.begin), "call", more, self._literal(form.end)), *calls]

    def _free(self, names: Sequence[str], more: str) -> list[str]:
        """Any text, but from the mark of a call on nothing but calls."""
        mark, rest = _split_mark(self._form)
        end = self._literal(self._form.end)
        if not mark:
            return [_joined("start: TEXT | call", more, end), r"TEXT: /[^{ \n](?s:.*)/"]
        # The first call without its mark, which ends the text before it.
        firsts = [self._call(f"first{index}", rest, index, name) for index, name in enumerate(names)]
        head = f"head: TEXT? {self._literal(mark)}" if mark in self._controls else f"head[lazy]: TEXT {_quoted(mark)}"
        return [
            _joined("start: TEXT? | head first", more, end),
            f"first: {' | '.join(f'first{index}' for index in range(len(names)))}",
            *firsts,
            head,
            r"TEXT: /(?s:.*)/",
        ]

    def _call(self, rule: str, before: str, index: int, name: str) -> str:
        opening = self._literal(before.replace("NAME", name))
        return _joined(f"{rule}:", opening, f"@arguments{index}", self._literal(self._form.after))

    def _literal(self, text: str) -> str:
        """`text` in Lark's notation, its control tokens by their numbers."""
        marks = ("[TOOL_CALLS]", "[ARGS]", *self._form.opens, *self._form.closes)
        for mark in marks:
            before, found, behind = text.partition(mark)
            if found and mark in self._controls:
                return _joined(self._literal(before), f"<[{self._controls[mark]}]>", self._literal(behind))
        return _quoted(text) if text else ""


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _split_mark(form: CallFormat) -> tuple[str, str]:
    """The mark that calls begin with, and what follows it before the first call's arguments."""
    whole = form.begin + form.before
    mark = next((mark for mark in form.opens if whole.startswith(mark)), "")
    return mark, whole.removeprefix(mark)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _refuse(param: str, message: str) -> ApiError:
    return ApiError(errors.INVALID_REQUEST, message, param=param)
