"""TOML: the values by the standard library's parser, which keeps no places, and the line of each key by a scan of our own.

The scan is only told texts that the parser has accepted, so it need not be strict; it knows just enough not to take what
stands in a string, a comment or a list for a key. Inside lists and inline tables the line is that of the key before.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from .complaint import SettingsError
from .layer import Place, Tree

_HEADER = re.compile(r"\[(\[?)\s*(.+?)\s*\]")
_PART = re.compile(r"""\s*("(?:\\.|[^"\\])*"|'[^']*'|[A-Za-z0-9_-]+)\s*(\.)?""")
# What a value is made of, as far as finding its end goes.
_PIECE = re.compile(
    r"""(?P<text>\"\"\"(?:\\.|[^\\])*?\"{3,5}|'''.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')|(?P<comment>\#[^\n]*)"""
    r"""|(?P<open>[\[{])|(?P<close>[\]}])|(?P<end>\n)|(?P<other>[^\#"'\[\]{}\n]+)""",
    re.DOTALL,
)


def parse(file: Path, text: str) -> Tree:
    """The settings in `text`. Raises `SettingsError` with the line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        lines = text.rstrip().splitlines() or [""]
        place = f"at line {len(lines)}, column {len(lines[-1]) + 1}"
        words = str(error).replace("at end of document", place)
        raise SettingsError(f"{file}: not valid TOML: {words}", "text needs quotes, sections are `[name]`") from None
    except (RecursionError, ValueError):
        raise SettingsError(f"{file}: nested too deeply, or a number beyond all bounds") from None


def places(text: str) -> dict[str, Place]:
    """The line of each table and key of a text that is TOML, by path."""
    found: dict[str, Place] = {}
    counts: dict[str, int] = {}
    table = ""
    for line, statement in _statements(text.replace("\r\n", "\n")):
        header = _HEADER.match(statement)
        if header:
            table = _table(_parts(header[2]), counts, repeated=bool(header[1]))
            found.setdefault(table, Place(line))
            continue
        path = table
        for part in _parts(statement):
            path = f"{path}.{part}" if path else part
            found.setdefault(path, Place(line))
    return found


def _table(parts: list[str], counts: dict[str, int], *, repeated: bool) -> str:
    """The path of a header: `backends[1].capabilities`, where `[[backends]]` has stood twice."""
    path = ""
    for number, part in enumerate(parts):
        path = f"{path}.{part}" if path else part
        if repeated and number == len(parts) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = f"{path}[{counts[path]}]"
    return path


def _parts(text: str) -> list[str]:
    """The names in a dotted key at the beginning of `text`."""
    parts, at = [], 0
    while found := _PART.match(text, at):
        name = found[1]
        parts.append(tomllib.loads(f"k = {name}")["k"] if name[0] in "\"'" else name)
        if not found[2]:
            break
        at = found.end()
    return parts


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each header and each `key = value`, with the line it begins in."""
    line, depth, began, statement = 1, 0, 1, ""
    for piece in _PIECE.finditer(text):
        kind = piece.lastgroup
        if kind == "end" and depth == 0:
            if statement.strip():
                yield began, statement.strip()
            statement = ""
        elif kind != "comment":
            if not statement.strip():
                began = line
            statement += piece[0]
            depth += (kind == "open") - (kind == "close")
        line += piece[0].count("\n")
    if statement.strip():
        yield began, statement.strip()
