"""The log file: whole lines, in one file or another, whatever happens to it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from quiver.admin.logs.file import RETRY, LogFile, aside, chain

MIDNIGHT = 1_700_006_400.0  # 2023-11-15 in UTC
LINE = b'{"n": 0}\n'


class Clock:
    def __init__(self, now: float = MIDNIGHT - 3600) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "quiver.jsonl"


def text(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in reversed(list(chain(path))))


def test_only_owner_may_read(path: Path) -> None:
    LogFile(path).write(LINE)
    assert path.read_bytes() == LINE
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_size_sets_aside(path: Path) -> None:
    clock = Clock()
    log = LogFile(path, max_bytes=3 * len(LINE), keep=2, clock=clock)
    for _ in range(10):
        clock.now += 1
        log.write(LINE)
    assert [file.stat().st_size for file in chain(path)] == [len(LINE), 3 * len(LINE), 3 * len(LINE)]
    assert [file.stat().st_mode & 0o777 for file in chain(path)] == [0o600] * 3


@pytest.mark.parametrize(
    ("period", "files"), [("hourly", 3), ("daily", 2), ("weekly", 1), ("never", 1)], ids=["hourly", "daily", "weekly", "never"]
)  # fmt: skip
def test_time_sets_aside(path: Path, period: str, files: int) -> None:
    clock = Clock(MIDNIGHT - 5400)  # half past ten in the evening
    log = LogFile(path, period=period, clock=clock)  # type: ignore[arg-type] # a literal, from the table above
    for _ in range(3):
        log.write(LINE)
        clock.now += 3600
    assert len(list(chain(path))) == files
    assert text(path) == 3 * LINE


def test_yesterdays_file_is_set_aside_at_start(path: Path) -> None:
    LogFile(path).write(LINE)
    os.utime(path, (MIDNIGHT - 10, MIDNIGHT - 10))
    LogFile(path, clock=Clock(MIDNIGHT + 10)).write(LINE)
    assert [file.read_bytes() for file in chain(path)] == [LINE, LINE]


def test_none_kept_means_none(path: Path) -> None:
    log = LogFile(path, max_bytes=1, keep=0)
    for _ in range(3):
        log.write(LINE)
    assert list(chain(path)) == [path]


def test_moved_file_is_let_go(path: Path) -> None:
    log = LogFile(path)
    log.write(LINE)
    path.rename(path.with_name("by-logrotate"))
    log.write(LINE)
    assert (path.read_bytes(), path.with_name("by-logrotate").read_bytes()) == (LINE, LINE)


def test_deleted_folder_comes_back(path: Path) -> None:
    log = LogFile(path)
    log.write(LINE)
    path.unlink()
    path.parent.rmdir()
    log.write(LINE)
    assert (path.read_bytes(), log.failed) == (LINE, None)


def test_truncated_file_goes_on(path: Path) -> None:
    log = LogFile(path)
    log.write(10 * LINE)
    os.truncate(path, 0)  # `copytruncate`
    log.write(LINE)
    assert path.read_bytes() == LINE


def test_unwritable_file_is_tried_again(path: Path) -> None:
    clock = Clock()
    path.mkdir(parents=True)  # what cannot be opened for writing, by root neither
    log = LogFile(path, clock=clock)
    assert log.write(2 * LINE) is None
    assert log.failed == "Is a directory"
    path.rmdir()
    assert log.write(LINE) is None, "it is not tried again at once"
    clock.now += RETRY
    assert log.write(LINE) is not None
    assert (log.missing, path.read_bytes()) == (3, LINE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
def test_full_disk_is_survived() -> None:
    log = LogFile(Path("/dev/full"))
    assert log.write(LINE) is None
    assert log.failed == "No space left on device"


def test_torn_line_is_ended(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"half": ')
    LogFile(path, clock=lambda: path.stat().st_mtime).write(LINE)
    assert path.read_bytes() == b'{"half": \n' + LINE


def test_cut_write_loses_no_later_line(path: Path) -> None:
    """A disk that fills in the middle of a line: half of it stays, the next one begins a line of its own."""
    script = """
import resource, signal, sys
from pathlib import Path
from quiver.admin.logs.file import LogFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
clock = [1.7e9]
log = LogFile(Path(sys.argv[1]), clock=lambda: clock[0], period="never")
resource.setrlimit(resource.RLIMIT_FSIZE, (25, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
assert log.write(b"a" * 19 + b"\\n") is not None
assert log.write(b"b" * 19 + b"\\n") is None
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
clock[0] += 60
assert log.write(b"c" * 19 + b"\\n") is not None
"""
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=60)
    assert path.read_bytes().splitlines() == [b"a" * 19, b"b" * 5, b"c" * 19]


def test_processes_do_not_mix_lines(path: Path) -> None:
    """Several processes write, set the file aside and delete none: every line is there once, and whole."""
    script = """
import sys
from pathlib import Path
from quiver.admin.logs.file import LogFile
log = LogFile(Path(sys.argv[1]), max_bytes=5_000, keep=1000)
for number in range(300):
    log.write(b"".join(b"%s-%d-%d\\n" % (sys.argv[2].encode() * 20, number, each) for each in range(3)))
assert log.missing == 0
"""
    processes = [subprocess.Popen([sys.executable, "-c", script, str(path), name]) for name in "abc"]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    expected = {f"{name * 20}-{number}-{each}" for name in "abc" for number in range(300) for each in range(3)}
    lines = text(path).decode().splitlines()
    assert len(lines) == len(expected)
    assert set(lines) == expected
    assert len(aside(path)) > 3
