"""Why the store cannot be opened, and SQLite's errors in the words of whoever runs the gateway."""

import sqlite3
from errno import ENOSPC

# SQLite's primary result codes (sqlite.org/rescode.html); an extended code's low byte is its primary code.
BUSY, LOCKED, READONLY, IO, CORRUPT, FULL, CANTOPEN, NOTADB = 5, 6, 8, 10, 11, 13, 14, 26

_REASONS = {
    BUSY: "another process keeps the database locked",
    LOCKED: "another connection keeps the database locked",
    READONLY: "the database may not be written",
    IO: "the disk reports errors",
    CORRUPT: "the database is damaged",
    FULL: "the disk is full",
    CANTOPEN: "the database cannot be opened",
    NOTADB: "the file is no database",
}


class StoreError(Exception):
    """The store cannot be used. `message` says what and where, `hint` what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class Damaged(Exception):
    """The database's bytes are not what Quiver wrote; the text says how that shows."""


def code_of(error: BaseException) -> int:
    """SQLite's primary result code; 0 when it is no error of SQLite's."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def is_damage(error: BaseException) -> bool:
    """Whether the file itself is broken, rather than the disk, its rights, or a statement."""
    no_text = isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode to UTF-8")
    return no_text or isinstance(error, Damaged) or code_of(error) in (CORRUPT, NOTADB)


def is_locked(error: BaseException) -> bool:
    """Whether it may go well a moment later."""
    return code_of(error) in (BUSY, LOCKED)


def reason_of(error: BaseException) -> str:
    """What is wrong, in a few words."""
    if isinstance(error, OSError):
        return "the disk is full" if error.errno == ENOSPC else (error.strerror or str(error))
    if isinstance(error, sqlite3.Error):
        return _REASONS.get(code_of(error), str(error))
    return str(error) or type(error).__name__
