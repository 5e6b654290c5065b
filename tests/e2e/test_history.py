"""What was asked of a real gateway is in its history, after a restart too, and its prompts are not."""

import json
from pathlib import Path

from quiver.admin.cli.app import app
from typer.testing import CliRunner

from bench.running import Running, gateway

from .test_process import chat, post


def told(running: Running, *arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(app, [*arguments, "--json", "--url", running.url])
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_history_outlives_the_process(tmp_path: Path) -> None:
    with gateway(folder=tmp_path) as running:
        assert post(running, chat(max_tokens=4))[0] == 200
        assert post(running, chat("nonsense"))[0] == 404
        running.stop()
    with gateway(folder=tmp_path) as running:
        page = told(running, "history")
        assert isinstance(page["requests"], list)
        assert [(entry["model"], entry["error"]) for entry in page["requests"]] == [
            (None, "model_not_found"),
            ("bolt", None),
        ]
        one = told(running, "history", "show", page["requests"][1]["request_id"])
        assert (one["completion_tokens"], one["prompt"], one["server"]) == (4, None, "engine:bolt")
        assert isinstance(one["engine"], dict)
        errors = told(running, "errors")
        assert errors["total"] == 1
        running.stop()
