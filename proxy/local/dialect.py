"""How a model writes what is more than text - its reasoning, its calls of tools - decided once from its chat template.

A template shows a model what it was trained to write: the marks in it name the format. All formats are data; `calls` reads
them, `tools` asks for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..native import ModelInfo


@dataclass(frozen=True)
class Marks:
    """What surrounds a model's reasoning."""

    open: str
    close: str


@dataclass(frozen=True)
class CallFormat:
    """How calls are written.

    `opens`: marks that begin calls, `closes`: marks that may follow one. `bare`: a JSON object at the start of the answer may
    be a call without any mark. `arguments`: what the member with the arguments is called. The rest writes calls as the model
    would, with the function's name for `NAME`: all of them between `begin` and `end`, each between `before` and `after`.
    """

    name: str
    opens: Sequence[str]
    closes: Sequence[str]
    before: str
    after: str
    between: str = "\n"
    begin: str = ""
    end: str = ""
    bare: bool = False
    arguments: str = "arguments"


HERMES = CallFormat(
    "hermes",
    opens=("<tool_call>",),
    closes=("</tool_call>",),
    before='<tool_call>\n{"name": "NAME", "arguments": ',
    after="}\n</tool_call>",
)
LLAMA = CallFormat(
    "llama",
    opens=("<|python_tag|>",),
    closes=(";",),
    before='{"name": "NAME", "parameters": ',
    after="}",
    between="; ",
    bare=True,
    arguments="parameters",
)
MISTRAL = CallFormat(
    "mistral",
    opens=("[TOOL_CALLS]",),
    closes=(),
    begin="[TOOL_CALLS][",
    before='{"name": "NAME", "arguments": ',
    after="}",
    between=", ",
    end="]",
)
MISTRAL_NAMED = CallFormat(
    "mistral-named",
    opens=("[TOOL_CALLS]",),
    closes=(),
    before="[TOOL_CALLS]NAME[ARGS]",
    after="",
    between="",
)
GRANITE = CallFormat(
    "granite",
    opens=("<|tool_call|>", "<tool_call>"),
    closes=("<|/tool_call|>", "</tool_call>"),
    begin="<|tool_call|>[",
    before='{"name": "NAME", "arguments": ',
    after="}",
    between=", ",
    end="]",
)
PHI = CallFormat(
    "phi",
    opens=("<|tool_call|>", "functools"),
    closes=("<|/tool_call|>",),
    begin="<|tool_call|>[",
    before='{"name": "NAME", "arguments": ',
    after="}",
    between=", ",
    end="]<|/tool_call|>",
)
# For a model that was never shown tools: it is told to write calls as Hermes does, and may forget the marks.
TOLD = CallFormat(
    "told",
    opens=HERMES.opens,
    closes=HERMES.closes,
    before=HERMES.before,
    after=HERMES.after,
    bare=True,
)

# The first row with a mark in the template decides.
FORMATS: tuple[tuple[str, CallFormat], ...] = (
    ("[ARGS]", MISTRAL_NAMED),
    ("[TOOL_CALLS]", MISTRAL),
    ("<tool_call>", HERMES),
    ("<|/tool_call|>", PHI),
    ("<|/tool|>", PHI),
    ("<|tool_call|>", GRANITE),
    ("<|python_tag|>", LLAMA),
    ('"parameters":', LLAMA),
)
REASONING = (Marks("<think>", "</think>"), Marks("[THINK]", "[/THINK]"))
# Mistral's templates take no other ids than their own.
SHORT_IDS = "length 9"


@dataclass(frozen=True)
class Dialect:
    """How one model writes. `controls`: the numbers of tokens that steer it, by name."""

    calls: CallFormat = TOLD
    reasoning: Marks = REASONING[0]
    # The template mentions the reasoning's marks; another model may still begin its answer with them.
    reasons: bool = False
    # The template shows tools to the model.
    knows_tools: bool = False
    # The template takes system messages.
    knows_system: bool = True
    short_ids: bool = False
    controls: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Dialect {self.calls.name}, {'reasons' if self.reasons else 'does not reason'}>"

    def shown(self, *, calls: bool) -> list[int]:
        """Control tokens that an answer needs to be read."""
        marks = [self.reasoning.open, self.reasoning.close]
        if calls:
            marks += [*self.calls.opens, *self.calls.closes, "[ARGS]", "[CALL_ID]"]
        return sorted({self.controls[mark] for mark in marks if mark in self.controls})


def dialect_of(info: ModelInfo) -> Dialect:
    """The dialect of a loaded model."""
    return read_dialect(info.chat_template, info.controls)


def read_dialect(template: str, controls: Mapping[str, int]) -> Dialect:
    knows_tools = "tools" in template
    found = (form for mark, form in FORMATS if mark in template)
    marks = next((marks for marks in REASONING if marks.close in template or marks.open in template), None)
    return Dialect(
        calls=next(found, TOLD) if knows_tools else TOLD,
        reasoning=marks or REASONING[0],
        reasons=marks is not None,
        knows_tools=knows_tools,
        knows_system="System role not supported" not in template,
        short_ids=SHORT_IDS in template,
        controls=controls,
    )
