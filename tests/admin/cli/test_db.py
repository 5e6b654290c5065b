"""`quiver db` over a folder that a store has filled."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio
from quiver.admin.cli.app import app
from quiver.proxy.store.folder import Folder
from typer.testing import CliRunner, Result

from tests.proxy.store.stores import fill, look, registered, running, server


def db(*arguments: object, folder: Path) -> Result:
    return CliRunner().invoke(app, ["db", *map(str, arguments), "--data-dir", str(folder)])


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    trio.run(fill, folder)
    return folder


def test_check_tells_what_is_there(filled: Path) -> None:
    told = db("check", folder=filled)
    assert told.exit_code == 0
    lines = {line.split("  ")[0]: line.split()[-1] for line in told.stdout.splitlines()}
    assert (lines["sound"], lines["at the next start"], lines["rows of servers"]) == ("yes", "nothing", "39")
    found = json.loads(db("check", "--json", folder=filled).stdout)
    assert (found["sound"], found["in_use"], found["rows"]["keys"]) == (True, False, 5)
    assert found["revision"] == found["exported"] > 45


CHECKS = [
    (
        "header",
        "the database is set aside and rebuilt (the file is no database): 39 servers and 5 keys come from the export",
    ),
    ("gone", "the database is gone and made anew: 39 servers and 5 keys come from the export"),
    ("behind", "lost changes are put back: 39 servers and 5 keys come from the export"),
    ("newer", "it is refused: `quiver.db` was written by a newer version of Quiver: this one does not know `warp`"),
]


@pytest.mark.parametrize(("damage", "words"), CHECKS)
def test_check_says_what_a_start_would_do(filled: Path, damage: str, words: str) -> None:
    file = filled / "quiver.db"
    match damage:
        case "header":
            file.write_bytes(b"nothing" * 1000)
        case "gone":
            file.unlink()
        case "behind":
            _execute(file, "UPDATE meta SET value = 1 WHERE name = 'revision'")
        case "newer":
            _execute(
                file, "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('quiver', 'warp', '')"
            )
    before = {path.name: path.read_bytes() for path in filled.iterdir()}
    told = db("check", folder=filled)
    assert told.exit_code == 1
    assert f"error: not sound: {words}\nhint: start the gateway" in told.stderr
    after = {path.name: path.read_bytes() for path in filled.iterdir() if not path.name.endswith(("-wal", "-shm"))}
    assert after == {name: content for name, content in before.items() if not name.endswith(("-wal", "-shm"))}


def _execute(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(statement)


async def test_backup_while_the_gateway_runs(tmp_path: Path) -> None:
    """It is one moment's state, and holds up nobody."""
    async with running(tmp_path / "data") as store:
        await store.save_server(server("before"))
        told = await trio.to_thread.run_sync(
            lambda: db("backup", tmp_path / "copy.db", "--json", folder=tmp_path / "data")
        )
        assert told.exit_code == 0
        await store.save_server(server("after"))
        refused = db("restore", tmp_path / "copy.db", folder=tmp_path / "data")
        assert refused.exit_code == 1
        assert "uses the data folder" in refused.stderr
        assert "hint: stop that gateway" in refused.stderr
    made = json.loads(told.stdout)
    assert (made["rows"]["servers"], made["bytes"]) == (1, (tmp_path / "copy.db").stat().st_size)
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    told = db("restore", tmp_path / "copy.db", folder=tmp_path / "data")
    assert told.stdout.splitlines()[0].endswith("copy.db`: 1 servers, 0 keys")
    saved, _, reason = await look(tmp_path / "data")
    assert ([row.id for row in saved.servers], reason) == (["before"], None)
    [kept] = [path for path in (tmp_path / "data").glob("*before-restore*") if not path.name.endswith(("-wal", "-shm"))]
    assert f"what was there before is `{kept}`" in told.stdout


def test_bad_backups_change_nothing(filled: Path, tmp_path: Path) -> None:
    before = (filled / "quiver.db").read_bytes()
    cases = {
        "missing": "there is no such backup",
        "noise": "it is damaged: the file is no database",
        "empty": "it is damaged",
    }
    (tmp_path / "noise").write_bytes(b"noise" * 1000)
    (tmp_path / "empty").write_bytes(b"")
    for name, words in cases.items():
        told = db("restore", tmp_path / name, folder=filled)
        assert (told.exit_code, words in told.stderr) == (1, True), told.stderr
    assert (filled / "quiver.db").read_bytes() == before
    Folder(filled).lock()


async def test_export_moves_to_another_folder(filled: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert db("export", file, folder=filled).exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(db("export", folder=filled).stdout) == json.loads(file.read_text())
    told = json.loads(db("import", file, "--json", folder=tmp_path / "new").stdout)["imported"]
    assert {row["outcome"] for row in told if row["table"] != "modes"} == {"added"}
    saved, secret, _ = await look(tmp_path / "new")
    wanted, wanted_secret, _ = await look(filled)
    assert (registered(saved), secret) == (registered(wanted), wanted_secret)


async def test_import_says_what_it_does(filled: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    db("export", file, folder=filled)
    content = json.loads(file.read_text())
    content["registry"]["servers"]["s0"]["backend"]["weight"] = 7
    content["registry"]["secret"] = "00" * 32
    del content["registry"]["servers"]["s1"]
    file.write_text(json.dumps(content))
    told = db("import", file, "--json", folder=filled)
    outcomes = {(row["table"], row["id"]): row["outcome"] for row in json.loads(told.stdout)["imported"]}
    assert outcomes["servers", "s0"] == "changed"
    assert outcomes["servers", "s2"] == "unchanged"
    assert outcomes["keys", "k0"] == "skipped"
    saved, _, _ = await look(filled)
    assert saved.servers[0].backend.weight == 7
    assert [row.id for row in saved.servers][:2] == ["s0", "s1"], "an import removes nothing"


BAD = [
    ({"kind": "else"}, "it is no export of this version of Quiver"),
    ({"servers": {"s0": {"id": "s0"}}}, "`registry.servers.s0`: Object missing required field `backend`"),
    (
        {"servers": {"s0": {"id": "s0", "created": 1, "changed": 1, "backend": {"url": "ftp://x"}}}},
        "`registry.servers.s0.backend.url`: Expected `str` matching regex",
    ),
    ({"servers": {"s0": {"id": "s1", "created": 1, "changed": 1, "backend": {"url": "http://x"}}}}, "it says `s1`"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
async def test_bad_exports_are_refused_whole(
    filled: Path, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    content = json.loads(db("export", folder=filled).stdout)
    if "kind" in change:
        content |= change
    else:
        content["registry"] |= change
    (tmp_path / "bad.json").write_text(json.dumps(content))
    told = db("import", tmp_path / "bad.json", folder=filled)
    assert (told.exit_code, words in told.stderr) == (1, True), told.stderr
    assert len((await look(filled))[0].servers) == 39


def test_folder_without_a_database(tmp_path: Path) -> None:
    for command in ("backup", "export"):
        told = db(command, tmp_path / "out", folder=tmp_path / "none")
        assert (told.exit_code, "there is nothing to" in told.stderr) == (1, True)
    told = db("check", folder=tmp_path / "none")
    assert (told.exit_code, "a new database is made" in told.stdout) == (0, True)
    assert not (tmp_path / "none").exists()
