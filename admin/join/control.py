"""How another command of the same user reaches a join that runs: small files in the data folder.

`NAME.json` is how the join stands, written by itself; `NAME.paused` is there while it is paused, also over a restart;
`NAME.leave` asks it to leave. Files work the same on every system and need no server.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from quiver.proxy.store.folder import data_folder
from quiver.schemas.join import JoinStatus

# A join writes how it stands every second; one that has not for so long does not run any more.
STALE = 5.0


class Posted(msgspec.Struct, frozen=True):
    """How a join stood when it last wrote, and which process it is."""

    pid: int
    at: float
    status: JoinStatus

    @property
    def runs(self) -> bool:
        return time.time() - self.at < STALE


def joins_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the files are."""
    return data_folder(None, environ) / "joins"


def running(folder: Path) -> list[Posted]:
    """The joins of this user that run, by name."""
    posted = (Control(folder, file.stem).posted() for file in sorted(folder.glob("*.json")))
    return [found for found in posted if found is not None and found.runs]


class Control:
    """The files of one join. All methods raise `OSError` when the folder cannot be used."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._status, self._paused, self._leave = (folder / f"{name}.{kind}" for kind in ("json", "paused", "leave"))

    def prepare(self) -> None:
        """Make the folder, and forget what an earlier join was asked to do."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._leave.unlink(missing_ok=True)

    @property
    def paused(self) -> bool:
        return self._paused.exists()

    @paused.setter
    def paused(self, paused: bool) -> None:
        if paused:
            self._paused.touch()
        else:
            self._paused.unlink(missing_ok=True)

    @property
    def leaving(self) -> bool:
        return self._leave.exists()

    def leave(self) -> None:
        """Ask the join to leave."""
        self._leave.touch()

    def post(self, status: JoinStatus) -> None:
        """Write how the join stands, whole or not at all."""
        part = self._status.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(Posted(os.getpid(), time.time(), status)))
        part.replace(self._status)

    def posted(self) -> Posted | None:
        """How the join stood last; None if there is none."""
        try:
            return msgspec.json.decode(self._status.read_bytes(), type=Posted)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def clear(self) -> None:
        """The join has ended."""
        self._status.unlink(missing_ok=True)
        self._leave.unlink(missing_ok=True)
