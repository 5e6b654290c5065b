"""The control plane over a gateway that does not run: every path, open and closed, and its errors."""

import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import quiver.admin.api
import trio.testing
from quart.testing.connections import WebsocketResponseError
from quart_trio import QuartTrio
from quiver.admin.api.app import create_app, kind_of
from quiver.admin.api.operations import OPERATIONS
from quiver.proxy.gateway import Gateway
from quiver.proxy.registry import BackendStatus
from quiver.schemas import errors

from ..conftest import KEY, BuildGateway

STATIC = Path(quiver.admin.api.__file__).parent / "static"


async def get(app: QuartTrio, path: str, **headers: str) -> tuple[int, Any, Any]:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = await app.test_client().get(path, headers=told, scope_base={"client": ("127.0.0.1", 50_000)})
    body = await reply.get_data()
    json = msgspec.json.decode(body) if reply.content_type == "application/json" else body
    return reply.status_code, json, reply.headers


async def served(app: QuartTrio, path: str) -> int:
    """The status of a reply whose body may be larger than the test client's `get` can take."""
    async with app.test_client().request(path) as connection:
        await connection.send_complete()
        return (await connection.as_response()).status_code


async def code_of(app: QuartTrio, path: str, **headers: str) -> tuple[int, str | None]:
    status, body, _ = await get(app, path, **headers)
    return status, body["error"]["code"] if isinstance(body, dict) and "error" in body else None


@pytest.mark.parametrize(
    ("state", "health", "told"), [("starting", "starting", 200), ("ready", "ok", 200), ("draining", "draining", 200)]
)
async def test_health_tells_state(build_gateway: BuildGateway, state: Any, health: str, told: int) -> None:
    gateway = build_gateway("healthy")
    gateway.state = state
    app = create_app(gateway)
    status, body, _ = await get(app, "/health")
    assert (status, body) == (told, {"status": health, "version": quiver.__version__})
    assert (await get(app, "/healthz"))[0] == 200


READINESS = [
    ("ready", ["healthy"], 200, None),
    ("ready", ["unknown"], 200, None),
    ("ready", ["unhealthy", "healthy"], 200, None),
    ("ready", ["unhealthy", "unhealthy"], 503, "no_healthy_backend"),
    ("ready", [], 503, "no_healthy_backend"),
    ("starting", ["healthy"], 503, "no_healthy_backend"),
    ("draining", ["healthy"], 503, "shutting_down"),
]


@pytest.mark.parametrize(("state", "health", "status", "code"), READINESS)
async def test_readiness(
    build_gateway: BuildGateway, state: Any, health: list[Any], status: int, code: str | None
) -> None:
    gateway = build_gateway(*health)
    gateway.state = state
    assert await code_of(create_app(gateway), "/readyz") == (status, code)


async def test_status_describes_backends(build_gateway: BuildGateway, autojump_clock: trio.testing.MockClock) -> None:
    app = create_app(build_gateway("healthy", "unhealthy"))
    await trio.sleep(90)
    _, body, _ = await get(app, "/status")
    assert body == {
        "state": "ready",
        "version": quiver.__version__,
        "uptime": 90.0,
        "keys_required": False,
        "in_flight": 0,
        "backends": [
            {
                "id": f"b{number}",
                "kind": "remote",
                "address": "scripted",
                "models": [f"model-{number}"],
                "health": health,
                "reason": None,
                "in_flight": 0,
            }
            for number, health in enumerate(["healthy", "unhealthy"])
        ],
    }


class IllModel:
    """A model whose file could not be loaded."""

    id, models, health = "engine:m", ("m",), "unhealthy"
    endpoints = ("chat/completions",)

    def status(self) -> BackendStatus:
        reason = "/home/Ada Lovelace/models/m.gguf: metadata key `x` is missing"
        return BackendStatus(self.id, "engine", "m.gguf", self.models, "unhealthy", reason, 0)


async def test_status_hides_folders(build_gateway: BuildGateway) -> None:
    gateway = build_gateway()
    gateway.registry.add(IllModel())  # type: ignore[arg-type]  # it is never asked to forward
    _, body, _ = await get(create_app(gateway), "/status")
    assert body["backends"][0]["reason"] == "m.gguf: metadata key `x` is missing"


async def test_version_and_metrics(build_gateway: BuildGateway) -> None:
    app = create_app(build_gateway())
    assert (await get(app, "/version"))[1] == {"version": quiver.__version__}
    status, body, headers = await get(app, "/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"quiver_in_flight 0.0" in body


OPEN = ["/health", "/healthz", "/readyz", "/version", "/docs", "/openapi.json"]
LOCKED = ["/status", "/metrics"]


@pytest.mark.parametrize("path", [*OPEN, *LOCKED])
async def test_loopback_needs_no_key(build_gateway: BuildGateway, path: str) -> None:
    assert (await get(create_app(build_gateway("healthy", keys=(KEY,))), path))[0] == 200


@pytest.mark.parametrize("path", OPEN)
async def test_public_address_keeps_some_open(build_gateway: BuildGateway, path: str) -> None:
    assert (await get(create_app(build_gateway("healthy", host="0.0.0.0", keys=(KEY,))), path))[0] == 200


@pytest.mark.parametrize("path", LOCKED)
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (401, "invalid_api_key")),
        ({"Authorization": "Bearer wrong-key"}, (401, "invalid_api_key")),
        ({"Authorization": f"Bearer {KEY}"}, (200, None)),
        ({"X_API_Key": KEY}, (200, None)),
    ],
)
async def test_public_address_locks_figures(
    build_gateway: BuildGateway, path: str, headers: dict[str, str], expected: tuple[int, str | None]
) -> None:
    app = create_app(build_gateway(host="0.0.0.0", keys=(KEY,)))
    assert await code_of(app, path, **headers) == expected


async def test_refusal_names_scheme(build_gateway: BuildGateway) -> None:
    _, _, headers = await get(create_app(build_gateway(host="0.0.0.0", keys=(KEY,))), "/status")
    assert headers["www-authenticate"] == "Bearer"


async def test_unknown_path_gets_envelope(build_gateway: BuildGateway) -> None:
    status, body, _ = await get(create_app(build_gateway()), "/nowhere")
    assert status == 404
    assert body["error"] == {
        "message": "No such path: `/nowhere`; see `/docs`",
        "type": "invalid_request_error",
        "param": None,
        "code": "not_found",
    }


async def test_wrong_method_gets_envelope(build_gateway: BuildGateway) -> None:
    reply = await create_app(build_gateway()).test_client().post("/health")
    assert reply.status_code == 405
    assert "GET" in reply.headers["allow"]
    assert (await reply.get_json())["error"]["code"] == "method_not_allowed"


class BrokenGateway(Gateway):
    def backends(self) -> list[BackendStatus]:
        raise ZeroDivisionError("inner workings")


async def test_own_fault_tells_no_details(build_gateway: BuildGateway) -> None:
    sound = build_gateway()
    gateway = BrokenGateway(sound.config, sound.world, lambda batch: None, on_loopback=True)
    status, body, _ = await get(create_app(gateway), "/status")
    assert (status, body["error"]["code"]) == (500, "internal_error")
    assert "inner workings" not in str(body)
    assert "Traceback" not in str(body)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, errors.NOT_FOUND),
        (405, errors.METHOD_NOT_ALLOWED),
        (413, errors.BODY_TOO_LARGE),
        (418, errors.MALFORMED_REQUEST),
        (500, errors.INTERNAL_ERROR),
        (507, errors.INTERNAL_ERROR),
    ],
)
def test_refusals_are_in_catalogue(status: int, kind: errors.ErrorKind) -> None:
    assert kind_of(status) is kind


async def test_start_page_is_docs(build_gateway: BuildGateway) -> None:
    status, _, headers = await get(create_app(build_gateway()), "/")
    assert (status, headers["location"]) == (302, "/docs")


async def test_docs_page_obeys_its_policy(build_gateway: BuildGateway) -> None:
    """Everything the page loads is served from here, and nothing on it is inline."""
    app = create_app(build_gateway())
    _, page, headers = await get(app, "/docs")
    text = page.decode()
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", text) is None
    loaded = [path for path in re.findall(r"(?:src|href)=\"([^\"]+)\"", text) if not path.startswith("data:")]
    assert len(loaded) == 4
    for path in loaded:
        assert await served(app, f"/{path}") == 200


async def test_every_reply_is_hardened(build_gateway: BuildGateway) -> None:
    app = create_app(build_gateway())
    for path in ("/health", "/nowhere", "/docs", "/static/docs.js"):
        _, _, headers = await get(app, path)
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-request-id"].startswith("req_")


async def test_browsers_revalidate_files(build_gateway: BuildGateway) -> None:
    app = create_app(build_gateway())
    _, _, headers = await get(app, "/static/docs.js")
    assert "max-age=0" in headers["cache-control"]
    assert (await get(app, "/static/docs.js", If_None_Match=headers["etag"]))[0] == 304


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f..%2fapp.py"])
async def test_static_files_end_at_their_folder(build_gateway: BuildGateway, path: str) -> None:
    assert (await get(create_app(build_gateway()), path))[0] == 404


async def test_described_paths_exist(build_gateway: BuildGateway) -> None:
    """The control plane's own; the inference paths are the data plane's."""
    app = create_app(build_gateway("healthy"))
    _, document, _ = await get(app, "/openapi.json")
    assert set(document["paths"]) == {operation.path for operation in OPERATIONS}
    served = {
        (rule.rule.replace("<path:id>", "<id>").replace("<id>", "{id}"), method)
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
    }
    for operation in OPERATIONS:
        if not operation.path.startswith("/v1/"):
            assert (operation.path, operation.method.upper()) in served


def test_swagger_ui_is_unchanged() -> None:
    folder = STATIC / "swagger"
    listed = dict(re.findall(r"\| `([^`]+)` \| `([0-9a-f]{64})` \|", (folder / "README.md").read_text()))
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    found.pop("README.md")
    assert found == listed


@pytest.mark.parametrize("path", ["/admin/servers", "/v1/models", "/nowhere"])
async def test_websocket_that_nobody_serves_is_refused(build_gateway: BuildGateway, path: str) -> None:
    app = create_app(build_gateway(host="0.0.0.0", keys=(KEY,)))
    async with app.test_client().websocket(path) as socket:
        with pytest.raises(WebsocketResponseError) as caught:
            await socket.receive()
    reply = caught.value.response
    assert reply.status_code == 404
    assert msgspec.json.decode(await reply.get_data())["error"]["code"] == "not_found"
