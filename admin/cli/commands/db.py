"""`quiver db`: the gateway's data folder, looked at, copied and put back. No gateway has to run for it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from quiver.schemas.sizes import size

from ..console import fail, print_json, print_table, progress_bar
from ..failures import failures_explained
from ..options import Json

if TYPE_CHECKING:
    from quiver.proxy.store.folder import Folder

db = typer.Typer(
    name="db",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Back up, restore, export, import and check what is kept.",
)

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="The data folder; the gateway's own if unset.", metavar="FOLDER")
]


@db.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where the copy goes; a file that is there is replaced.")],
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Copy the database as it is now, and check the copy. The gateway may run meanwhile.

    \b
    Example:
      quiver db backup quiver-2026-11-21.db
    """
    from quiver.proxy.store import copies

    with failures_explained(), progress_bar() as told:
        made = copies.backup(_folder(data_dir), file, told)
    if as_json:
        print_json(made)
    else:
        typer.echo(f"backed up {size(made.bytes)} to `{made.file}`, and checked it")


@db.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What `quiver db backup` made.")],
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Put a backup in the place of the database, which is kept beside it. The gateway must not run.

    \b
    Example:
      quiver db restore quiver-2026-11-21.db
    """
    from quiver.proxy.store import copies

    with failures_explained(), progress_bar() as told:
        made = copies.restore(_folder(data_dir), file, time.time(), told)
    if as_json:
        print_json(made)
        return
    typer.echo(f"restored `{file}`: {made.rows.get('servers', 0)} servers, {made.rows.get('keys', 0)} keys")
    if made.kept is not None:
        typer.echo(f"what was there before is `{made.kept}`")


@db.command()
def export(
    file: Annotated[Path | None, typer.Argument(help="Where it goes; stdout if unset.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Write servers, keys, models and settings as JSON. It holds the servers' keys: keep it safe. The gateway may run.

    \b
    Example:
      quiver db export registrations.json
    """
    from quiver.proxy.store import export as exports
    from quiver.proxy.store.imports import export_of

    with failures_explained():
        content = exports.written(export_of(_folder(data_dir)), sealed=False)
        if file is None:
            typer.echo(content.decode(), nl=False)
            return
        with _written(file):
            exports.replace(file, content)
    typer.echo(f"exported to `{file}`", err=True)


@db.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `quiver db export` wrote.")],
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Add what an export holds, and change what is there already. The gateway must not run.

    \b
    Example:
      quiver db import registrations.json
    """
    from quiver.proxy.store.imports import import_into, read_export

    with failures_explained():
        told = import_into(_folder(data_dir), read_export(file), time.time())
    if as_json:
        print_json({"imported": told})
        return
    print_table(("OF", "ID", "OUTCOME", "NOTE"), [(row.table, row.id, row.outcome, row.note or "") for row in told])


@db.command()
def check(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Look through the database. Says whether it is sound, how large it is, and what the next start does; changes nothing.

    \b
    Example:
      quiver db check
    """
    from quiver.proxy.store.inspection import inspect

    with failures_explained(), progress_bar() as told:
        told("checking", 0, 0)
        found = inspect(_folder(data_dir))
    if as_json:
        print_json(found)
    else:
        rows = [("folder", found.folder), ("sound", "yes" if found.sound else "no")]
        rows += [("in use", "by a gateway" if found.in_use else "no"), ("version", found.version or "none")]
        rows += [("at the next start", found.at_start)]
        rows += [(name, size(count)) for name, count in found.sizes.items()]
        rows += [(f"rows of {table}", str(count)) for table, count in found.rows.items()]
        print_table(("WHAT", "IS"), rows)
    if not found.sound:
        fail(f"not sound: {found.at_start}", "start the gateway to have it put right, or `quiver db restore` a backup")


def _folder(chosen: Path | None) -> "Folder":
    """The data folder that is meant. Raises `SettingsError`."""
    from quiver.proxy.store.folder import Folder, data_folder

    from ...configuration.settings import load

    return Folder(chosen if chosen is not None else data_folder(load().store.data_dir))


@contextmanager
def _written(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fail(f"`{file}` cannot be written: {error.strerror}")
