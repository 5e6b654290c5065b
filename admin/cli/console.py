"""What the command line prints: data to stdout, `error:` and `hint:` lines to stderr."""

import getpass
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

# A table that goes into a file or a pipe is not broken to fit a screen that is not there.
_WIDE = 10_000
# Lines that a screen needs beside the rows of its table.
_AROUND = 8
# What a terminal takes for a command. Line ends and tabs may stay.
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """`text` of somebody else's, without what would command the terminal: that is spelled out."""
    return _COMMANDS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def fail(message: str, hint: str | None = None, *, code: int = 1) -> NoReturn:
    """Say what went wrong and what to do about it, and end the command with `code`."""
    complain(message, hint)
    raise typer.Exit(code)


def complain(message: str, hint: str | None = None) -> None:
    """Say what went wrong and what to do about it."""
    typer.echo(f"error: {harmless(message)}", err=True)
    if hint is not None:
        typer.echo(f"hint: {hint}", err=True)


def print_json(value: object) -> None:
    """`value` as one line of JSON."""
    typer.echo(msgspec.json.encode(value))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table without frame, aligned; colours and wrapping on a terminal only."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(harmless, row))
    screen = sys.stdout.isatty()
    console = Console(width=None if screen else _WIDE, highlight=False, markup=False, emoji=False)
    if screen:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_screenful(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """As `print_table`; on a terminal only as many rows as it has room for, so that what was printed first is still seen."""
    room = max(shutil.get_terminal_size().lines - _AROUND, 1) if sys.stdout.isatty() else len(rows)
    print_table(columns, rows[:room])
    if len(rows) > room:
        typer.echo(f"... and {len(rows) - room} more; `--json` has them all")


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr, where that is a terminal; call what this yields with a stage, the bytes done and those in all."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("loading", total=None)
        yield lambda stage, done, total: progress.update(task, description=stage, completed=done, total=total or None)


def ask_secretly(what: str) -> Callable[[str], str | None] | None:
    """How to ask a person for a key for the gateway at a URL, without showing it; None where nobody sits."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    def ask(url: str) -> str | None:
        try:
            return getpass.getpass(f"{what} for {url}: ", stream=sys.stderr).strip() or None
        except EOFError:
            return None

    return ask
