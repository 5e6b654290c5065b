"""The tables in the documentation equal the code they describe. Run this file to rewrite them."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec
import pytest
import typer
from quiver.admin.cli.app import app
from quiver.schemas import config, errors
from quiver.schemas.settings import is_live
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]


def error_table() -> str:
    """The catalogue as Markdown, by status."""
    kinds = sorted(errors.CATALOGUE, key=lambda kind: (kind.status, kind.code))
    rows = [
        f"| {kind.status} | `{kind.code}` | {kind.category} | {kind.fault} | {'yes' if kind.retryable else 'no'} "
        f"| {kind.meaning} | {kind.remedy} |"
        for kind in kinds
    ]
    head = "| Status | `code` | Category | Whose fault | Try again? | Meaning | What to do |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *rows])


def config_table() -> str:
    """Every section's fields with their defaults."""
    return "\n\n".join(block for field in msgspec.structs.fields(config.Config) for block in _blocks("", field))


def _blocks(above: str, field: msgspec.structs.FieldInfo) -> Iterator[str]:
    """A section's table, and those of the sections inside it."""
    repeated = get_origin(field.type) is tuple
    section = _section(field)
    assert section is not None
    path = f"{above}{field.encode_name}"
    title = f"### `[[{path}]]`" if repeated else f"### `[{path}]`"
    doc = " ".join(str(section.__doc__).split())
    fields = msgspec.structs.fields(section)
    rows = [
        f"| `{item.encode_name}` | {_default(path, item)} | {_reload(path, item)} | {_meaning(item)} |"
        for item in fields
    ]
    yield "\n".join([title, "", doc, "", "| Field | Default | Reload | Meaning |", "|---|---|---|---|", *rows])
    for item in fields:
        if _section(item) is not None:
            yield from _blocks(f"{path}.", item)


def _reload(path: str, field: msgspec.structs.FieldInfo) -> str:
    return "yes" if is_live(f"{path}.{field.encode_name}") else "restart"


def _section(field: msgspec.structs.FieldInfo) -> type[msgspec.Struct] | None:
    """The struct that a field holds, one or many of; None for a value."""
    kind = field.type
    while get_origin(kind) in (Annotated, tuple):
        kind = get_args(kind)[0]
    return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None


def _meaning(field: msgspec.structs.FieldInfo) -> str:
    (meaning,) = (note.description for note in field.type.__metadata__ if note.description)
    return str(meaning)


def metrics_table() -> str:
    """What the page of a real gateway holds."""
    page = importlib.import_module("tests.docs.page")
    table: str = page.table()
    return table


def cli_help() -> str:
    """What every command says of itself."""
    runner, blocks = CliRunner(), []
    for command in _commands((), typer.main.get_command(app)):
        result = runner.invoke(app, [*command, "--help"], env={"COLUMNS": "80", "TERM": "dumb"}, prog_name="quiver")
        assert result.exit_code == 0, result.output
        title = " ".join(["quiver", *command])
        text = "\n".join(line.rstrip() for line in result.output.rstrip().splitlines())
        blocks.append(f"## `{title}`\n\n```text\n{text}\n```")
    return "\n\n".join(blocks)


def _commands(path: tuple[str, ...], command: Any) -> Iterator[tuple[str, ...]]:
    """A command and all below it, in the order of their help."""
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from _commands((*path, name), below)


def _default(path: str, field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if _section(field) is not None:
        return f"see `[{path}.{field.encode_name}]`"
    default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    return "none" if default is None else f"`{msgspec.json.encode(default).decode()}`"


PAGES = {
    "docs/errors.md": error_table,
    "docs/configuration.md": config_table,
    "docs/cli.md": cli_help,
    "docs/metrics.md": metrics_table,
}


def split(page: str) -> tuple[str, str, str]:
    """What is before, in, and after the table's comments."""
    before, rest = page.split("a test keeps it equal -->\n", 1)
    table, after = rest.split("\n<!-- end -->", 1)
    return before + "a test keeps it equal -->\n", table, "\n<!-- end -->" + after


@pytest.mark.parametrize("path", PAGES)
def test_tables_match_code(path: str) -> None:
    _, table, _ = split((ROOT / path).read_text())
    assert table == PAGES[path]()


def test_codes_are_unique() -> None:
    assert len(errors.BY_CODE) == len(errors.CATALOGUE)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for name, make in PAGES.items():
        before, _, after = split((ROOT / name).read_text())
        (ROOT / name).write_text(before + make() + after)
