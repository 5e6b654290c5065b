"""Looking at a data folder without changing it: what is there, whether it is sound, and what a start would do."""

import sqlite3
from contextlib import closing

import msgspec

from .connection import connect_to_read
from .copies import row_counts
from .export import picture_of
from .failure import Damaged, StoreError, is_damage, reason_of
from .folder import Folder, parts_of
from .migrations import applied, known, refuse_newer
from .opening import copy_beside, examine


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """A data folder. `sound`: nothing is lost or damaged. `version`: the last step of its tables. `revision` counts the
    changes of the registry, `exported` those that the export beside it has. `in_use`: whether a gateway runs on it. Sizes are
    bytes.
    """

    folder: str
    sound: bool
    in_use: bool
    at_start: str
    version: str | None = None
    revision: int | None = None
    exported: int | None = None
    sizes: dict[str, int]
    rows: dict[str, int] = {}


def inspect(folder: Folder) -> Inspection:
    """Look through the whole database. Raises `StoreError` when that cannot be done."""
    sizes = {part.name: part.stat().st_size for part in (*parts_of(folder.database), folder.export) if part.exists()}
    beside = copy_beside(folder)
    found = Inspection(
        folder=str(folder.path),
        sound=True,
        in_use=folder.in_use(),
        at_start="a new database is made",
        exported=None if beside is None else beside.revision,
        sizes=sizes,
    )
    registered = "nothing is known of what was registered"
    if beside is not None:
        registered = f"{len(beside.servers)} servers and {len(beside.keys)} keys come from the export"
    if not sizes.get(folder.database.name):
        if beside is None or not beside.revision:
            return found
        return msgspec.structs.replace(found, sound=False, at_start=f"the database is gone and made anew: {registered}")
    try:
        with closing(connect_to_read(folder.database)) as database:
            examine(database, whole=True, thorough=True)
            refuse_newer(database, folder.database.name)
            steps = applied(database)
            found = msgspec.structs.replace(found, version=steps[-1] if steps else None, rows=row_counts(database))
            picture = picture_of(database)
    except StoreError as error:
        return msgspec.structs.replace(found, sound=False, at_start=f"it is refused: {error.message}")
    except (sqlite3.Error, Damaged) as error:
        if not is_damage(error):
            raise StoreError(f"`{folder.database}` cannot be read: {reason_of(error)}") from None
        words = f"the database is set aside and rebuilt ({reason_of(error)}): {registered}"
        return msgspec.structs.replace(found, sound=False, at_start=words)
    found = msgspec.structs.replace(found, revision=picture.revision)
    # While a gateway writes, the two are read at different moments.
    if beside is not None and not found.in_use and _differ(beside.revision - picture.revision, beside.says_as(picture)):
        return msgspec.structs.replace(found, sound=False, at_start=f"lost changes are put back: {registered}")
    pending = known()[len(steps) :]
    return msgspec.structs.replace(
        found, at_start=f"it is brought up to date: {', '.join(pending)}" if pending else "nothing"
    )


def _differ(ahead: int, same: bool) -> bool:
    return ahead > 0 or (ahead == 0 and not same)
