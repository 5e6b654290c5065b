"""The data folder: where the store's files lie, and that only one process uses them.

Nobody else may read them: servers' keys are among what they hold.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from .failure import StoreError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

VARIABLE = "QUIVER_DATA_DIR"


def data_folder(configured: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """`QUIVER_DATA_DIR`, else what the configuration says, else the platform's folder for a user's data."""
    chosen = environ.get(VARIABLE) or configured
    return Path(chosen).expanduser() if chosen else platformdirs.user_data_path("quiver", appauthor=False)


class Folder:
    """The files of one store, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "quiver.db"
        self.export = path / "registrations.json"
        # There between the last steps of a recovery.
        self.rebuilt = path / "quiver.db.rebuilt"
        # There while the database is known to be damaged: then it is looked through as a whole at the next start.
        self.suspect = path / "quiver.db.suspect"
        self._lock_file = path / "quiver.lock"
        self._lock: int | None = None

    def __repr__(self) -> str:
        return f"<Folder {self.path}{'' if self._lock is None else ', in use'}>"

    def prepare(self) -> None:
        """Make the folder if there is none. Raises `StoreError`."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the data folder `{self.path}` cannot be made: {error.strerror}",
                f"choose another with {VARIABLE} or `store.data_dir`",
            ) from None

    def lock(self) -> None:
        """Take the folder for this process, until `release` or its end. Raises `StoreError` when another one has it."""
        try:
            handle = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(
                f"the data folder `{self.path}` cannot be written: {error.strerror}",
                f"change its rights, or choose another with {VARIABLE} or `store.data_dir`",
            ) from None
        if not _locked(handle):
            holder = os.pread(handle, 20, 1).decode("ascii", "replace").strip() if sys.platform != "win32" else ""
            os.close(handle)
            raise StoreError(
                f"another process{f' ({holder})' if holder else ''} uses the data folder `{self.path}`",
                f"stop that gateway, or use another folder with {VARIABLE}",
            )
        os.truncate(handle, 0)
        # The first byte is what Windows locks; the number behind it is for people.
        os.write(handle, b" %d" % os.getpid())
        self._lock = handle

    def in_use(self) -> bool:
        """Whether a process has it now."""
        try:
            handle = os.open(self._lock_file, os.O_RDWR)
        except OSError:
            return False
        try:
            return not _locked(handle)
        finally:
            os.close(handle)

    def release(self) -> None:
        """Let others use the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def parts_of(database: Path) -> tuple[Path, ...]:
    """A database's file and those that SQLite keeps beside it."""
    return tuple(database.with_name(database.name + ending) for ending in ("", "-wal", "-shm"))


def _locked(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
