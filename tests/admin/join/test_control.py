"""The files by which other commands reach a join: how it stands, whether it is paused, and that it is to leave."""

from pathlib import Path

import msgspec
import pytest
from quiver.admin.cli.app import app
from quiver.admin.join.control import STALE, Control, joins_folder, running
from quiver.schemas.join import JoinStatus, Tally
from typer.testing import CliRunner, Result

STATUS = JoinStatus(
    name="laptop",
    gateway="https://gateway.lab",
    server="http://127.0.0.1:11434",
    state="joined",
    paused=False,
    since=1_700_000_000.0,
    tally=Tally(served=3, failed=0, in_flight=1, tokens=99),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return joins_folder({"QUIVER_DATA_DIR": str(tmp_path)})


def control(folder: Path, name: str = "laptop") -> Control:
    found = Control(folder, name)
    found.prepare()
    found.post(msgspec.structs.replace(STATUS, name=name))
    return found


def told(tmp_path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["join", *arguments], env={"QUIVER_DATA_DIR": str(tmp_path)})


def test_status_is_read_by_others(folder: Path) -> None:
    control(folder)
    (posted,) = running(folder)
    assert posted.status == STATUS
    assert posted.runs


def test_pause_outlives_the_join(folder: Path) -> None:
    found = control(folder)
    found.paused = True
    found.clear()
    assert running(folder) == []
    assert Control(folder, "laptop").paused
    found.paused = False
    assert not Control(folder, "laptop").paused


def test_leave_does_not(folder: Path) -> None:
    found = control(folder)
    found.leave()
    assert found.leaving
    found.prepare()
    assert not found.leaving


def test_dead_join_is_not_running(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = control(folder)
    posted = found.posted()
    assert posted is not None
    monkeypatch.setattr("time.time", lambda: posted.at + STALE + 1)
    assert running(folder) == []


def test_damaged_file_is_nobody(folder: Path) -> None:
    control(folder)
    (folder / "laptop.json").write_text("{half")
    assert running(folder) == []


def test_commands_find_the_one_that_runs(folder: Path, tmp_path: Path) -> None:
    found = control(folder)
    assert "laptop  joined  https://gateway.lab" in told(tmp_path, "status").stdout
    assert msgspec.json.decode(told(tmp_path, "status", "--json").stdout, type=JoinStatus) == STATUS
    assert told(tmp_path, "pause").stdout == "pausing `laptop`\n"
    assert found.paused
    assert told(tmp_path, "resume", "laptop").stdout == "resuming `laptop`\n"
    assert not found.paused
    assert told(tmp_path, "leave").stdout == "`laptop` leaves\n"
    assert found.leaving


def test_several_want_a_name(folder: Path, tmp_path: Path) -> None:
    one, two = control(folder, "one"), control(folder, "two")
    result = told(tmp_path, "pause")
    assert result.exit_code == 2
    assert "one, two" in result.stderr
    assert told(tmp_path, "pause", "two").exit_code == 0
    assert (one.paused, two.paused) == (False, True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("status",), 1, "no join runs here"),
        (("pause", "other"), 1, "no join called `other` runs here"),
        (("http://gateway.lab", "--name", "a b"), 2, "--name takes"),
        (("http://gateway.lab", "--server", "ftp://x"), 2, "--server is no address"),
        (("http://gateway.lab", "--model", "a b"), 2, "--model takes"),
        (("http://gateway.lab", "--weight", "0"), 2, "--weight is above 0"),
        (("http://gateway.lab", "laptop"), 2, "give the name with --name"),
        (("ftp://gateway.lab", "--no-detect"), 2, "is no address of a gateway"),
        (("http://gateway.lab", "--key-file", "nowhere"), 2, "cannot be read"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    result = told(tmp_path, *arguments)
    assert (result.exit_code, words in result.stderr) == (code, True), result.stderr


def test_name_that_runs_here_is_refused(folder: Path, tmp_path: Path) -> None:
    control(folder)
    result = told(tmp_path, "http://gateway.lab", "--name", "laptop", "--no-detect")
    assert result.exit_code == 1
    assert "runs here already" in result.stderr
