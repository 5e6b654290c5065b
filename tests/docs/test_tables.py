"""The tables in the documentation equal the code they describe. Run this file to rewrite them."""

from pathlib import Path
from typing import get_args, get_origin

import msgspec
import pytest
from quiver.admin.cli import app
from quiver.schemas import config, errors
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]


def error_table() -> str:
    """The catalogue as Markdown, by status."""
    kinds = sorted(errors.CATALOGUE, key=lambda kind: (kind.status, kind.code))
    rows = [
        f"| {kind.status} | `{kind.code}` | {kind.fault} | {'yes' if kind.retryable else 'no'} | {kind.meaning} |"
        for kind in kinds
    ]
    return "\n".join(["| Status | `code` | Whose fault | Try again? | Meaning |", "|---|---|---|---|---|", *rows])


def config_table() -> str:
    """Every section's fields with their defaults."""
    blocks = []
    for field in msgspec.structs.fields(config.Config):
        args = get_args(field.type)
        repeated = get_origin(field.type) is tuple
        section = args[0] if repeated else field.type
        title = f"### `[[{field.encode_name}]]`" if repeated else f"### `[{field.encode_name}]`"
        doc = " ".join(str(section.__doc__).split())
        rows = [
            f"| `{item.encode_name}` | {_default(item)} | {_meaning(item)} |"
            for item in msgspec.structs.fields(section)
        ]
        blocks.append("\n".join([title, "", doc, "", "| Field | Default | Meaning |", "|---|---|---|", *rows]))
    return "\n\n".join(blocks)


def _meaning(field: msgspec.structs.FieldInfo) -> str:
    (meaning,) = (note.description for note in field.type.__metadata__ if note.description)
    return str(meaning)


def cli_help() -> str:
    """What every command says of itself."""
    runner, blocks = CliRunner(), []
    for command in COMMANDS:
        result = runner.invoke(app, [*command, "--help"], env={"COLUMNS": "80", "TERM": "dumb"}, prog_name="quiver")
        assert result.exit_code == 0, result.output
        title = " ".join(["quiver", *command])
        text = "\n".join(line.rstrip() for line in result.output.rstrip().splitlines())
        blocks.append(f"## `{title}`\n\n```text\n{text}\n```")
    return "\n\n".join(blocks)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    return "none" if field.default is None else f"`{msgspec.json.encode(field.default).decode()}`"


COMMANDS: tuple[tuple[str, ...], ...] = ((), ("serve",), ("chat",), ("models",), ("status",))
PAGES = {"docs/errors.md": error_table, "docs/configuration.md": config_table, "docs/cli.md": cli_help}


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
    for name, make in PAGES.items():
        before, _, after = split((ROOT / name).read_text())
        (ROOT / name).write_text(before + make() + after)
