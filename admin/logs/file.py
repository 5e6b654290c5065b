"""The log file: whole lines, appended; set aside when it is too large or its time is over; reopened when it was moved away.

Several processes may write to one file. Each batch of lines is one write in append mode, which the kernel does not mix with
others, and who sets the file aside holds a lock on it. A file is set aside by renaming it: a line is in one file or another,
never lost and never in two.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

if sys.platform != "win32":  # where there is no log file: see `setup`
    import fcntl

Period = Literal["hourly", "daily", "weekly", "never"]
# The beginning of the period that a moment is in; a file whose lines began in another one is set aside.
_PERIODS: dict[Period, str] = {"hourly": "%Y-%m-%d %H", "daily": "%Y-%m-%d", "weekly": "%G week %V", "never": ""}
# After a failure the file is tried again so many seconds later.
RETRY = 5.0
# A file that has not grown for so many seconds is not being written to.
SETTLED = 0.02


class Position(msgspec.Struct, frozen=True):
    """Where lines begin: the file, by its number in the file system, which it keeps when it is renamed, and the byte."""

    file: int
    offset: int


class LogFile:
    """Appends lines to `path`. `failed`: why the last write came to nothing, else None; `missing` counts the lines that are
    not in it.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = 100_000_000,
        period: Period = "daily",
        keep: int = 5,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(os.path.realpath(path))  # a link stays where it is when its file is set aside
        self.failed: str | None = None
        self.missing = 0
        self._max_bytes, self._period, self._keep, self._clock = max_bytes, period, keep, clock
        self._fd: int | None = None
        self._inode = 0
        self._size = 0
        self._began = ""
        self._torn = False
        self._retry_at = 0.0

    def __repr__(self) -> str:
        return f"<LogFile {self.path.name}: {self.failed or 'written'}>"

    def write(self, lines: bytes) -> Position | None:
        """Append whole lines, setting the file aside before if that is due; where they begin, None when they are not there.

        Never raises: `failed` says what is wrong. The next write after a pause tries again.
        """
        now = self._clock()
        if self.failed is not None and self._retry_at - RETRY <= now < self._retry_at:
            self.missing += lines.count(b"\n")
            return None
        try:
            self._open(now)
            if self._size and (self._size + len(lines) > self._max_bytes or self._began != self._stamp(now)):
                self._set_aside(now)
                self._open(now)
            position = self._append(lines)
        except OSError as error:
            self.failed, self._retry_at = error.strerror or str(error), now + RETRY
            self.missing += lines.count(b"\n")
            self.close()
            return None
        self.failed = None
        return position

    def close(self) -> None:
        """Close it; the next write opens it again."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = None

    def _open(self, now: float) -> None:
        """Have the file open that has the name now: it may have been moved or deleted, by `logrotate` or another process."""
        if self._fd is not None:
            try:
                found = os.stat(self.path)
            except FileNotFoundError:
                self.close()
            else:
                if found.st_ino == self._inode:
                    self._size = found.st_size
                    return
                self.close()
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        found = os.fstat(self._fd)
        self._inode, self._size = found.st_ino, found.st_size
        self._torn = self._ends_inside_line()
        self._began = self._stamp(found.st_mtime if found.st_size else now)

    def _ends_inside_line(self) -> bool:
        """Whether a write was cut short. One that another process is in the middle of looks the same, and gets time to end."""
        assert self._fd is not None
        size = self._size
        while size and os.pread(self._fd, 1, size - 1) != b"\n":
            time.sleep(SETTLED)
            before, size = size, os.fstat(self._fd).st_size
            if size == before:
                return True
        return False

    def _append(self, lines: bytes) -> Position:
        """One write. The rest of one that was cut short, by a full disk, follows or fails; then the next begins a new line."""
        assert self._fd is not None
        data = b"\n" + lines if self._torn else lines
        written = os.write(self._fd, data)
        while written < len(data):
            self._torn = True
            written += os.write(self._fd, data[written:])
        self._torn = False
        end = os.lseek(self._fd, 0, os.SEEK_CUR)
        self._size = end
        return Position(self._inode, end - len(lines))

    def _set_aside(self, now: float) -> None:
        """Rename the file, unless another process does or just did."""
        assert self._fd is not None
        assert sys.platform != "win32"
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            with contextlib.suppress(FileNotFoundError):
                if os.stat(self.path).st_ino == self._inode:
                    os.rename(self.path, self._free_name(now))
                    self._remove_oldest()
        finally:
            self.close()  # and with it the lock

    def _free_name(self, now: float) -> Path:
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
        return self.path.with_name(f"{self.path.stem}.{stamp}{self.path.suffix}")

    def _remove_oldest(self) -> None:
        for old in aside(self.path)[self._keep :]:
            with contextlib.suppress(FileNotFoundError):
                old.unlink()

    def _stamp(self, at: float) -> str:
        return datetime.fromtimestamp(at, UTC).strftime(_PERIODS[self._period])


def aside(path: Path) -> list[Path]:
    """The files that were set aside for `path`, the newest first."""
    found = path.parent.glob(f"{_escaped(path.stem)}.[0-9]*{_escaped(path.suffix)}")
    return sorted((file for file in found if file.name != path.name), reverse=True)


def chain(path: Path) -> Iterator[Path]:
    """The file and those set aside, the newest first."""
    yield path
    yield from aside(path)


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
