"""Taking a model's text apart, as it arrives: reasoning first, then text, then calls of tools.

The result does not depend on how the text was cut into pieces, and nothing is lost: a call that does not become one comes
out as the text that it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, assert_never

from .calls import Call, CallReader, Malformed, find_mark, held_tail
from .dialect import CallFormat, Marks

Stage = Literal["start", "reasoning", "text", "call"]


@dataclass(frozen=True)
class Thought:
    """More of the reasoning."""

    text: str


@dataclass(frozen=True)
class Said:
    """More of the text."""

    text: str


Part = Thought | Said | Call


class AnswerReader:
    """Reads one answer. `marks` None leaves the reasoning in the text, `form` None any calls; `names` are the functions that
    were offered. `reasoning`: the prompt has begun it already.
    """

    def __init__(
        self, marks: Marks | None, form: CallFormat | None, names: Iterable[str] = (), *, reasoning: bool = False
    ) -> None:
        self._marks, self._form, self._names = marks, form, frozenset(names)
        self._stage: Stage = "text" if marks is None else "reasoning" if reasoning else "start"
        self._held = ""
        # Blanks at the start of the reasoning, and between it and the text, belong to neither.
        self._skips_blanks = marks is not None and reasoning
        # Some models repeat the mark that the prompt ended with.
        self._may_repeat = self._skips_blanks
        self._begun = False
        self._reader: CallReader | None = None
        self._mark = ""

    def feed(self, text: str) -> list[Part]:
        """What is certain now."""
        self._held += text
        return self._read(last=False)

    def finish(self) -> list[Part]:
        """The rest, once no more can come."""
        parts = self._read(last=True)
        if self._stage == "call":  # the text ends with an opening mark
            self._held = self._mark + self._held
        if self._held:
            parts.append(Thought(self._held) if self._stage == "reasoning" else Said(self._held))
            self._held = ""
        return parts

    def _read(self, *, last: bool) -> list[Part]:
        parts: list[Part] = []
        while True:
            before = (self._stage, len(self._held))
            match self._stage:
                case "start":
                    self._read_start(last)
                case "reasoning":
                    self._read_reasoning(parts, last)
                case "text":
                    self._read_text(parts, last)
                case "call":
                    self._read_call(parts, last)
                case _:
                    assert_never(self._stage)
            if (self._stage, len(self._held)) == before or not self._held:
                return parts

    def _read_start(self, last: bool) -> None:
        """Does the answer begin with reasoning?"""
        assert self._marks is not None
        stripped = self._held.lstrip()
        if stripped.startswith(self._marks.open):
            self._held = stripped.removeprefix(self._marks.open)
            self._stage, self._skips_blanks = "reasoning", True
        elif last or not self._marks.open.startswith(stripped):
            self._stage = "text"

    def _read_reasoning(self, parts: list[Part], last: bool) -> None:
        assert self._marks is not None
        if self._skips_blanks:
            self._held = self._held.lstrip()
            if self._may_repeat:
                if not last and self._marks.open.startswith(self._held):
                    return
                self._held = self._held.removeprefix(self._marks.open).lstrip()
                self._may_repeat = False
            self._skips_blanks = not self._held
        thought, close, rest = self._held.partition(self._marks.close)
        if close:
            self._held, self._stage, self._skips_blanks = rest, "text", True
            thought = thought.rstrip()
        elif not last:
            # Blanks before the closing mark belong to neither.
            safe = len(thought) - held_tail(thought, [self._marks.close])
            thought = thought[:safe].rstrip()
            self._held = self._held[len(thought) :]
        else:
            self._held, thought = "", thought.rstrip()
        if thought:
            parts.append(Thought(thought))

    def _read_text(self, parts: list[Part], last: bool) -> None:
        if self._skips_blanks:
            self._held = self._held.lstrip()
            self._skips_blanks = not self._held
        if self._form is None:
            self._say(parts, len(self._held))
            return
        if self._form.bare and not self._begun and self._held.lstrip().startswith("{"):
            self._open_call(0, "")
            return
        hit = find_mark(self._held, self._form.opens)
        if hit is not None:
            place, mark = hit
            blanks = place - len(self._held[:place].rstrip())
            self._say(parts, place - blanks)
            self._open_call(blanks, mark)
        elif last:
            self._say(parts, len(self._held))
        else:
            # Blanks before a call belong to nothing.
            safe = len(self._held) - held_tail(self._held, self._form.opens)
            self._say(parts, len(self._held[:safe].rstrip()))

    def _open_call(self, blanks: int, mark: str) -> None:
        """The held text goes on with so many blanks, which belong to nothing if this becomes a call, and then the mark."""
        assert self._form is not None
        self._mark, self._held = self._held[: blanks + len(mark)], self._held[blanks + len(mark) :]
        self._stage = "call"
        self._reader = CallReader(self._form, self._names, marked=bool(mark) and mark != "functools")

    def _read_call(self, parts: list[Part], last: bool) -> None:
        assert self._reader is not None
        try:
            found = self._reader.read(self._held, last=last)
        except Malformed:
            found = None
        else:
            if found is None and not last:
                return
        self._reader = None
        if found is None:
            # No call after all: the mark is text, and what follows it is read again.
            self._stage, self._begun = "text", True
            length = 0 if self._mark else 1
            parts.append(Said(self._mark + self._held[:length]))
            self._held = self._held[length:]
            return
        calls, behind = found
        parts.extend(calls)
        self._held, self._stage, self._skips_blanks = self._held[behind:], "text", True

    def _say(self, parts: list[Part], length: int) -> None:
        if length:
            parts.append(Said(self._held[:length]))
            self._held, self._begun = self._held[length:], True
