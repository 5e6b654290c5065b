"""llama.cpp's notation for grammars, GBNF, rewritten in Lark's, which the engine reads.

The two differ in little: how rules are written down, and that GBNF has character classes where Lark has regular expressions.
Rules that refer to no rule but such ones, and not to themselves, become terminals, which are faster and read their text whole.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<blank>[ \t]+|\#[^\n]*)|(?P<line>\r?\n)|(?P<define>::=)|(?P<name>[a-zA-Z][a-zA-Z0-9_-]*)
    |(?P<text>"(?:[^"\\\n]|\\.)*")|(?P<set>\[(?:[^\]\\\n]|\\.)*\])|(?P<repeat>[*+?]|\{\d*,?\d*\})|(?P<sign>[|().])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_PLAIN = {"n": "\n", "r": "\r", "t": "\t"}
ROOT = "root"


class BadGrammar(Exception):
    """What is wrong, and where."""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int


def is_gbnf(text: str) -> bool:
    """Is `text` written in GBNF rather than in Lark's notation?"""
    return "::=" in text


def to_lark(text: str) -> str:
    """The same grammar in Lark's notation. Raises `BadGrammar`."""
    rules = _rules(text)
    if ROOT not in rules:
        raise BadGrammar(f"there is no rule `{ROOT}`")
    terminals = _terminals(rules)
    names = {name: _renamed(name, terminal=name in terminals) for name in rules}
    lines = [f"start: {names[ROOT]}"]
    for name, tokens in rules.items():
        lines.append(f"{names[name]}: " + " ".join(_written(token, names) for token in tokens))
    return "\n".join(lines)


def _tokens(text: str) -> Iterator[_Token]:
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise BadGrammar(f"line {line}: `{text[at : at + 20].splitlines()[0]}` is not understood")
        if match.lastgroup != "blank":
            yield _Token(match.lastgroup, match[0], line)
        line += match[0].count("\n")
        at = match.end()


def _rules(text: str) -> dict[str, list[_Token]]:
    """What each rule is defined as. A rule goes on over line ends up to the next definition."""
    tokens = [token for token in _tokens(text) if token.kind != "line"]
    rules: dict[str, list[_Token]] = {}
    body: list[_Token] | None = None
    for index, token in enumerate(tokens):
        defines = index + 1 < len(tokens) and tokens[index + 1].kind == "define"
        if token.kind == "name" and defines:
            if token.text in rules:
                raise BadGrammar(f"line {token.line}: `{token.text}` is defined twice")
            body = rules[token.text] = []
        elif token.kind != "define":
            if body is None:
                raise BadGrammar(f"line {token.line}: `{token.text}` stands before the first rule")
            body.append(token)
        elif index == 0 or tokens[index - 1].kind != "name":
            raise BadGrammar(f"line {token.line}: `::=` must follow a name")
    for body in rules.values():
        for token in body:
            if token.kind == "name" and token.text not in rules:
                raise BadGrammar(f"line {token.line}: there is no rule `{token.text}`")
    return rules


def _terminals(rules: dict[str, list[_Token]]) -> set[str]:
    """Rules that are regular expressions: they refer to none but such rules."""
    terminals: set[str] = set()
    while True:
        more = {
            name
            for name, body in rules.items()
            if body and all(token.text in terminals for token in body if token.kind == "name")
        }
        if more == terminals:
            return terminals
        terminals = more


def _renamed(name: str, *, terminal: bool) -> str:
    """Lark tells terminals from rules by their case. A prefix keeps names apart that differ in case or signs alone."""
    spelled = "".join(letter if letter.isalnum() else f"_{ord(letter):x}_" for letter in name)
    cased = "".join(f"{letter}_" if letter.isupper() else letter for letter in spelled)
    return f"T_{cased.upper()}" if terminal else f"r_{cased.lower()}"


def _written(token: _Token, names: dict[str, str]) -> str:
    match token.kind:
        case "name":
            return names[token.text]
        case "text":
            text = _ESCAPE.sub(_unescaped, token.text[1:-1])
            return json.dumps(text, ensure_ascii=False)
        case "set":
            return f"/{_regex_class(token)}/"
        case "sign" if token.text == ".":
            return "/(?s:.)/"
        case _:
            return token.text


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if len(code) > 1 else _PLAIN.get(code, code)


def _regex_class(token: _Token) -> str:
    """A character class as a regular expression has it: the same, with every sign escaped that means more there."""
    inner = token.text[1:-1]
    negated = inner.startswith("^")
    members = re.findall(
        r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)|.", inner.removeprefix("^"), re.DOTALL
    )
    if not members:
        raise BadGrammar(f"line {token.line}: `[]` matches nothing")
    written = "".join(_member(member, index, len(members)) for index, member in enumerate(members))
    return f"[{'^' if negated else ''}{written}]"


def _member(member: str, index: int, count: int) -> str:
    if member == "-" and 0 < index < count - 1:
        return "-"  # a range
    letter = _ESCAPE.sub(_unescaped, member)
    return letter if letter.isalnum() and letter.isascii() else f"\\x{{{ord(letter):x}}}"
