"""Opening the database: take the folder, check the file, bring it up to date, and read what it holds."""

import sqlite3
from pathlib import Path

from quiver.schemas.saved import Saved

from . import registry
from .connection import connect, transaction
from .failure import StoreError, reason_of
from .folder import Folder
from .migrations import migrate, refuse_newer


class Opened:
    """A database that is ready to be used, and what was in it. `folder` None: it is in memory."""

    def __init__(self, folder: Folder | None, database: sqlite3.Connection) -> None:
        self.folder, self.database = folder, database
        with transaction(database, durable=True):
            registry.make_identity(database)
        self.secret: bytes = registry.meta(database, "secret")
        self.saved: Saved = registry.saved(database)

    def __repr__(self) -> str:
        return f"<Opened {self.folder or 'in memory'}>"


def open_in_memory() -> Opened:
    """A new database that ends with its connection."""
    database = connect(None)
    migrate(database, "memory")
    return Opened(None, database)


def open_folder(path: Path) -> Opened:
    """The database in the folder `path`, which is made if there is none. Raises `StoreError`."""
    folder = Folder(path)
    folder.prepare()
    folder.lock()
    try:
        return Opened(folder, _open(folder.database))
    except (sqlite3.Error, OSError) as error:
        folder.release()
        raise StoreError(f"`{folder.database}` cannot be used: {reason_of(error)}") from error
    except BaseException:
        folder.release()
        raise


def _open(path: Path) -> sqlite3.Connection:
    database = connect(path)
    try:
        refuse_newer(database, str(path))
        migrate(database, str(path))
    except BaseException:
        database.close()
        raise
    return database
