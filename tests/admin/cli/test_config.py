"""`quiver config`: what it prints, and the code it exits with."""

import json
import re
from pathlib import Path

import pytest
from quiver.admin.cli.app import app
from typer.testing import CliRunner, Result

from ..conftest import Speak, reply

SECRET = "s3cr3t-value-1234"


def quiver_command(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(app, ["config", *arguments], env={"QUIVER_URL": "", "QUIVER_ADMIN_KEY": "", **environ})


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_check_tells_every_error() -> None:
    Path("quiver.yaml").write_text(f"server:\n  prot: 1\nauth:\n  keys: {SECRET}\n")
    result = quiver_command("check", "quiver.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: quiver.yaml, line 2, column 9: `server.prot` is not a setting\nhint: did you mean `server.port`?\n"
        "error: quiver.yaml, line 4, column 9: `auth.keys`: expected a list, got text\n"
    )


def test_check_of_a_right_file() -> None:
    Path("quiver.toml").write_text("[auth]\nadmin_key_file = 'key'\n")
    Path("key").write_text(SECRET)
    Path("key").chmod(0o644)
    result = quiver_command("check")
    assert (result.exit_code, result.stdout) == (0, "the configuration is right (quiver.toml, key)\n")
    assert result.stderr.startswith("warning: `key` holds a secret")
    assert json.loads(quiver_command("check", "--json").stdout)["files"] == ["quiver.toml", "key"]


def test_show_tells_sources_and_no_secret() -> None:
    Path("quiver.toml").write_text(f"[server]\nport = 1\n[auth]\nkeys = ['{SECRET}']\n")
    result = quiver_command("show", "--sources", QUIVER_LOG__LEVEL="debug")
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["SETTING", "VALUE", "SOURCE"],
        ["server.port", "1", "quiver.toml:2"],
        ["auth.keys", '"********"', "quiver.toml:4"],
        ["log.level", '"debug"', "QUIVER_LOG__LEVEL"],
    ]
    assert SECRET not in quiver_command("show", "--all", "--json").stdout


def test_show_of_defaults_hints() -> None:
    result = quiver_command("show")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "hint: `--all` shows it" in result.stderr


def test_example_can_be_checked() -> None:
    Path("quiver.toml").write_text(re.sub(r"(?m)^#(\S)", r"\1", quiver_command("example").stdout))
    assert quiver_command("check").exit_code == 0


RELOADED = {
    "changed": [{"path": "limits.request", "before": 300.0, "after": 7.0, "live": True}],
    "pending": [{"path": "server.port", "before": 8080, "after": 1, "live": False}],
}


def test_reload_tells_what_changed(speak: Speak) -> None:
    speaker = speak(reply("200 OK", json.dumps(RELOADED).encode()))
    result = quiver_command("reload", "--url", speaker.url)
    assert result.stdout == "changed limits.request: 300.0 -> 7.0\nneeds a restart: server.port: 8080 -> 1\n"
    assert speaker.requests[0].startswith(b"POST /admin/config/reload ")


def test_running_configuration_is_asked_for(speak: Speak) -> None:
    setting = {"path": "server.port", "value": 8080, "source": "default", "live": False, "pending": 1}
    report = {"settings": [setting], "files": [], "loaded": 0.0, "pending": [], "refused": "line 1 is wrong"}
    result = quiver_command("show", "--running", "--url", speak(reply("200 OK", json.dumps(report).encode())).url)
    assert result.stdout.splitlines()[1].split() == ["server.port", "8080", "1"]
    assert result.stderr == "error: the last reload was refused: line 1 is wrong\n"
