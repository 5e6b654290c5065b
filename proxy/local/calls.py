"""Reading calls of tools out of a model's text, in any of the formats of `dialect`, from text that comes in pieces.

A call counts once it is complete and well-formed; whatever is not stays text. One reader serves all formats: behind an
opening mark stands a JSON object or a list of them, or a function's name and then its arguments.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from .dialect import CallFormat

# What matters for the end of a JSON value: where strings begin and end, and the brackets outside of them.
_SIGNIFICANT = re.compile(r'["\\{}\[\]]')
_STRING = re.compile(r'["\\]')
_NAME = re.compile(r"\s*([a-zA-Z0-9_.-]{1,128})\s*(?:\[CALL_ID\]\s*[a-zA-Z0-9]+\s*)?(?:\[ARGS\])?\s*(?=\{)")
# A name that is still arriving.
_NAME_BEGUN = re.compile(r"\s*[a-zA-Z0-9_.-]{0,128}\s*(?:\[[A-Z_]*\]?\s*[a-zA-Z0-9]*\s*(?:\[[A-Z_]*\]?)?\s*)?\Z")


@dataclass(frozen=True)
class Call:
    """A call as the model wrote it; `arguments` is the text of a JSON object."""

    name: str
    arguments: str


_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode


class Malformed(Exception):
    """What stands there is no call."""


class ValueEnd:
    """Finds where the JSON object or list at the start of a growing text ends, reading each character once."""

    def __init__(self) -> None:
        self._at = 0
        self._open: list[str] = []
        self._in_string = False

    def find(self, text: str) -> int | None:
        """The place behind the value; None if the text ends before. `text` begins with what was given before."""
        while True:
            match = (_STRING if self._in_string else _SIGNIFICANT).search(text, self._at)
            if match is None:
                self._at = len(text)
                return None
            sign, self._at = match[0], match.end()
            if sign == "\\":
                if self._at == len(text):
                    self._at = match.start()  # which character it escapes is not known yet
                    return None
                self._at += 1
            elif sign == '"':
                self._in_string = not self._in_string
            elif sign in "{[":
                self._open.append("}" if sign == "{" else "]")
            elif not self._open or self._open.pop() != sign:
                raise Malformed
            if not self._open and not self._in_string:
                return self._at


class CallReader:
    """Reads what follows one opening mark, or the start of the answer. `read` is given all of it so far, again and again."""

    def __init__(self, form: CallFormat, names: Iterable[str], *, marked: bool) -> None:
        self._form, self._names, self._marked = form, frozenset(names), marked
        self._value_at: int | None = None
        self._name: str | None = None
        self._end = ValueEnd()
        self._found: tuple[list[Call], int] | None = None

    def read(self, text: str, *, last: bool) -> tuple[list[Call], int] | None:
        """The calls, and the place behind them; None while more is needed. `last`: nothing more will come.

        Raises `Malformed`.
        """
        if self._value_at is None:
            self._value_at = self._find_value(text)
            if self._value_at is None:
                return None
        if self._found is None:
            length = self._end.find(text[self._value_at :])
            if length is None:
                return None
            end = self._value_at + length
            self._found = self._calls(text[self._value_at : end].encode()), end
        calls, end = self._found
        behind = self._behind(text, end, last)
        return None if behind is None else (calls, behind)

    def _find_value(self, text: str) -> int | None:
        """Where the JSON begins; a name before it is noted."""
        stripped = text.lstrip()
        if not stripped:
            return None
        if stripped[0] in "{[":
            return len(text) - len(stripped)
        match = _NAME.match(text)
        if match is not None:
            self._name = match[1]
            return match.end()
        if not self._marked or _NAME_BEGUN.match(text) is None:
            raise Malformed
        return None

    def _calls(self, value: bytes) -> list[Call]:
        try:
            if self._name is not None:
                return [Call(self._name, _object(value))]
            written = _decode_list(value) if value.startswith(b"[") else [msgspec.Raw(value)]
            calls = [_call(bytes(item)) for item in written]
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise Malformed from None
        # Without a mark, any JSON might stand there: it must name a function that was offered.
        if not calls or (not self._marked and any(call.name not in self._names for call in calls)):
            raise Malformed
        return calls

    def _behind(self, text: str, end: int, last: bool) -> int | None:
        """The place behind a closing mark, if there is one; None if it may still be arriving."""
        rest = text[end:].lstrip()
        for close in self._form.closes:
            if rest.startswith(close):
                return len(text) - len(rest) + len(close)
        arriving = any(close.startswith(rest) for close in self._form.closes)
        return None if arriving and not last else end


def _call(value: bytes) -> Call:
    members = _decode_object(value)
    if "function" in members and "name" not in members:  # as OpenAI writes calls, which some models copy
        members = _decode_object(members["function"])
    if "name" not in members:
        raise Malformed
    arguments = members.get("arguments", members.get("parameters"))
    return Call(_decode_string(members["name"]), _object(bytes(arguments)) if arguments is not None else "{}")


def _object(value: bytes) -> str:
    """The text of a JSON object, which may be wrapped into a string once more."""
    if value.startswith(b'"'):
        value = _decode_string(value).encode()
    _decode_object(value)
    msgspec.json.decode(value)
    return value.strip().decode()


def find_mark(text: str, marks: Sequence[str]) -> tuple[int, str] | None:
    """The first of `marks` in `text`, and where."""
    found = [(place, mark) for mark in marks if (place := text.find(mark)) >= 0]
    return min(found, default=None, key=lambda hit: (hit[0], -len(hit[1])))


def held_tail(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of one of `marks`."""
    longest = max((len(mark) for mark in marks), default=1)
    for length in range(min(longest - 1, len(text)), 0, -1):
        tail = text[-length:]
        if any(mark.startswith(tail) for mark in marks):
            return length
    return 0
