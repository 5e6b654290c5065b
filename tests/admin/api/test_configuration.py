"""The admin API's routes for the configuration, over a gateway whose configuration stands in a file."""

from pathlib import Path
from typing import Any

import pytest
from quiver.admin.api.app import create_app
from quiver.admin.configuration.live import LiveConfiguration
from quiver.admin.configuration.settings import Sources
from quiver.proxy.gateway import Gateway
from quiver.proxy.testing import fixed_world

KEY = "the-operators-key"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(request: str) -> None:
    text = f"[engine]\nbolt = false\n[auth]\nadmin_key = '{KEY}'\n[limits]\nrequest = {request}\n"
    Path("quiver.toml").write_text(text)


def started() -> Any:
    sources = Sources(environ={})
    loaded = sources.read()
    gateway = Gateway(loaded.config, fixed_world(), lambda batch: None, on_loopback=True)
    return create_app(gateway, live=LiveConfiguration(gateway, loaded, sources)).test_client()


async def test_configuration_is_shown_masked() -> None:
    write("200")
    client = started()
    assert (await client.get("/admin/config")).status_code == 401
    reply = await client.get("/admin/config", headers={"X-API-Key": KEY})
    settings = {setting["path"]: setting for setting in (await reply.get_json())["settings"]}
    assert settings["limits.request"] == {
        "path": "limits.request",
        "value": 200.0,
        "source": "quiver.toml:6",
        "live": True,
    }
    assert settings["auth.admin_key"]["value"] == "********"
    assert KEY not in (await reply.get_data()).decode()


async def test_reload_changes_or_refuses() -> None:
    write("200")
    client = started()
    write("100")
    reply = await client.post("/admin/config/reload", headers={"X-API-Key": KEY})
    assert (await reply.get_json())["changed"] == [
        {"path": "limits.request", "before": 200.0, "after": 100.0, "live": True}
    ]
    write("'x'")
    reply = await client.post("/admin/config/reload", headers={"X-API-Key": KEY})
    error = (await reply.get_json())["error"]
    assert (reply.status_code, error["code"]) == (422, "config_refused")
    assert error["message"] == "quiver.toml, line 6: `limits.request`: expected a number, got text"
