"""The models of a gateway that runs, over real sockets, through the admin API and the command line, with scripted loads."""

import json
import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import trio
from quiver.admin.api.app import create_app
from quiver.admin.cli.app import app
from quiver.proxy import server
from quiver.proxy.gateway import Gateway
from quiver.proxy.server import Listening
from quiver.proxy.testing.models import GIB, ScriptedFile, ScriptedLoader
from quiver.schemas.config import Auth, Config, Engine, LocalModel, Server
from typer.testing import CliRunner

from .conftest import Asked, NoSignals
from .test_servers import SECRET

Run = Callable[..., Awaitable[Asked]]


@pytest.fixture
async def run_gateway(nursery: trio.Nursery) -> Run:
    """Run a gateway that has loaded the model `a`, and can load `b`, until the test is over."""

    async def run(auth: Auth | None = None, **engine: Any) -> Asked:
        told, listening = trio.open_memory_channel[Listening](1)
        gateways: list[Gateway] = []
        files = {"a": ScriptedFile(0), "b": ScriptedFile(0.2), "large": ScriptedFile(bytes=100 * GIB)}
        files["bad"] = ScriptedFile(0, error="not a GGUF file")

        def control(gateway: Gateway) -> Any:
            gateways.append(gateway)
            return create_app(gateway)

        config = Config(
            server=Server(port=0),
            engine=Engine(bolt=False, **engine),
            models=(LocalModel(path="a", id="team/a:1"),),
            auth=auth or Auth(),
        )
        nursery.start_soon(
            partial(
                server.run,
                config,
                control=control,
                sink=lambda records: None,
                announce=told.send_nowait,
                signals=NoSignals(),
                loader=ScriptedLoader(files),
            )
        )
        url = (await listening.receive()).url
        return Asked(gateways[0], url)

    return run


async def quiver(ask: Asked, *arguments: str) -> tuple[int, str, str]:
    """What a command says of the gateway: its exit code and what it prints, as a process of its own."""
    command = [sys.executable, "-m", "quiver.admin", "models", *arguments, "--url", f"http://{ask.netloc}"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("QUIVER_")}
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, env=environ)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def states(ask: Asked) -> dict[str, str]:
    _, listed = await ask("GET", "/admin/models")
    return {model["id"]: model["state"] for model in listed["models"]}


async def test_models_are_loaded_and_unloaded(run_gateway: Run) -> None:
    ask = await run_gateway()
    status, told = await ask("POST", "/admin/models/load", {"path": "b", "options": {"idle_unload_s": 60}})
    assert (status, told["id"], told["state"], told["idle_unload_s"]) == (200, "b", "ready", 60)
    assert told["memory"]["total"] == GIB
    assert await states(ask) == {"team/a:1": "ready", "b": "ready"}
    assert (await ask("GET", "/admin/models/team/a:1"))[1]["source"] == "a"
    assert (await ask("POST", "/admin/models/team/a:1/unload"))[1]["state"] == "unloaded"
    assert await ask("DELETE", "/admin/models/b") == (200, {"id": "b", "status": "removed"})
    assert await states(ask) == {"team/a:1": "unloaded"}


async def test_load_without_waiting(run_gateway: Run) -> None:
    ask = await run_gateway()
    status, told = await ask("POST", "/admin/models/load", {"path": "b", "wait": False})
    assert (status, told["state"], told["loading"]["total"] in (0, GIB)) == (202, "loading", True)
    with trio.fail_after(10):
        while (await states(ask))["b"] != "ready":  # noqa: ASYNC110 - what clients see has no event
            await trio.sleep(0.02)


REFUSALS: list[tuple[str, str, object, int, str]] = [
    ("POST", "/admin/models/load", {}, 400, "invalid_request"),
    ("POST", "/admin/models/load", {"path": "a", "name": "b"}, 400, "invalid_request"),
    ("POST", "/admin/models/load", {"path": "a", "id": "two words"}, 400, "invalid_request"),
    ("POST", "/admin/models/load", {"path": "two words"}, 400, "invalid_request"),
    ("POST", "/admin/models/load", {"path": "a", "options": {"contxt_length": 8}}, 400, "invalid_request"),
    ("POST", "/admin/models/load", {"name": "b"}, 404, "not_found"),
    ("POST", "/admin/models/load", {"name": "ollama:../../x"}, 422, "model_unusable"),
    ("POST", "/admin/models/load", {"path": "nowhere"}, 422, "model_unusable"),
    ("POST", "/admin/models/load", {"path": "bad", "id": "team/a:1"}, 422, "model_unusable"),
    ("POST", "/admin/models/load", {"path": "large"}, 507, "insufficient_memory"),
    ("POST", "/admin/models/estimate", {"path": "nowhere"}, 422, "model_unusable"),
    ("GET", "/admin/models/b", None, 404, "not_found"),
    ("DELETE", "/admin/models/b", None, 404, "not_found"),
    ("POST", "/admin/models/b/unload", None, 404, "not_found"),
]


async def test_refusals_change_nothing(run_gateway: Run) -> None:
    ask = await run_gateway()
    for method, path, body, status, code in REFUSALS:
        found, told = await ask(method, path, body)
        assert (found, told["error"]["code"]) == (status, code), (path, body)
    await trio.sleep(0.05)
    assert await states(ask) == {"team/a:1": "ready"}


async def test_operators_only(run_gateway: Run) -> None:
    ask = await run_gateway(Auth(admin_key=SECRET))
    for method, path in [("GET", "/admin/models"), ("POST", "/admin/models/load"), ("DELETE", "/admin/models/b")]:
        status, _ = await ask(method, path, {"path": "b"} if method == "POST" else None)
        assert status == 401, path
    status, _ = await ask("GET", "/admin/models", None, X_API_Key=SECRET)
    assert status == 200


async def test_load_is_followed(run_gateway: Run) -> None:
    ask = await run_gateway()

    def follow(path: str) -> list[Any]:
        connection = HTTPConnection(ask.netloc, timeout=10)
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        connection.request("POST", "/admin/models/load", json.dumps({"path": path}), headers)
        lines = connection.getresponse().read().decode().strip().split("\n\n")
        connection.close()
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]

    events = await trio.to_thread.run_sync(follow, "b")
    assert set(events[0]["loading"]) == {"stage", "done", "total", "fraction", "seconds"}
    assert events[-1]["model"]["state"] == "ready"
    events = await trio.to_thread.run_sync(follow, "large")
    assert events[-1]["error"]["code"] == "insufficient_memory"


async def test_commands_do_the_same(run_gateway: Run, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "c.gguf").write_bytes(b"12345")
    ask = await run_gateway(models_dir=str(tmp_path))
    code, out, err = await quiver(ask, "load", "large", "--json")
    assert (code, out, "no model `large`" in err) == (1, "", True)
    _, out, _ = await quiver(ask, "list")
    assert out.splitlines()[1].split()[:2] == ["team/a:1", "ready"]
    assert (await quiver(ask, "unload", "team/a:1"))[1] == "unloaded `team/a:1`\n"


def test_models_still_lists_what_is_on_offer() -> None:
    help_text = CliRunner().invoke(app, ["models", "--help"]).stdout
    for command in ("list", "load", "unload", "remove", "available", "estimate"):
        assert f"\n  {command} " in help_text
