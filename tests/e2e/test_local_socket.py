"""The gateway's Unix socket as its own user uses it: commands without a key, where the address asks for one."""

import json
import stat
from pathlib import Path

import pytest
from quiver.admin.cli.app import app
from typer.testing import CliRunner

from bench.running import gateway

from .conftest import KEY


def quiver(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments, env={"QUIVER_ADMIN_KEY": "", "QUIVER_URL": ""})
    return result.exit_code, result.stdout


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("q")  # a socket's path has to be short


def test_own_user_needs_no_admin_key(folder: Path) -> None:
    with gateway(f'[engine]\nbolt = false\n[auth]\nadmin_key = "{KEY}"\n', folder=folder) as running:
        path = running.data / "quiver.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        code, listed = quiver("servers", "--json", "--url", f"unix:{path}")
        assert code == 0
        assert json.loads(listed)["servers"] == []
        assert quiver("servers", "--json", "--url", running.url)[0] == 1
        assert running.stop() == 130
        assert not path.exists()
