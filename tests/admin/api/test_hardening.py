"""What every reply of the control plane says to browsers, to ours and to pages of other origins, and how much it takes."""

from typing import Any

import msgspec
import pytest
from quiver.admin.api.app import create_app
from quiver.proxy.gateway import Gateway
from quiver.proxy.testing import fixed_world
from quiver.schemas.config import Auth, Config, Cors, Engine, Server

ADMIN = "quiver-admin-key"
CHAT = "https://chat.lab"
BASE = Config(engine=Engine(bolt=False), auth=Auth(admin_key=ADMIN), cors=Cors(origins=(CHAT,)))


def client(config: Config = BASE) -> Any:
    return create_app(Gateway(config, fixed_world(), lambda batch: None, on_loopback=True)).test_client()


PATHS = [
    ("GET", "/health", 200),
    ("GET", "/docs", 200),
    ("GET", "/static/docs.js", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/admin/servers", 401),
    ("GET", "/nowhere", 404),
    ("DELETE", "/health", 405),
    ("GET", "/", 302),
]


@pytest.mark.parametrize(("method", "path", "status"), PATHS)
async def test_every_reply_is_hardened(method: str, path: str, status: int) -> None:
    async with client().request(path, method=method, headers={"Origin": CHAT}) as connection:
        await connection.send_complete()
        reply = await connection.as_response()
    if path.startswith("/static") and reply.status_code == 404:
        pytest.skip("the file has another name")
    headers = reply.headers
    assert reply.status_code == status
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "camera=()" in headers["Permissions-Policy"]
    assert headers["X-Request-ID"]
    assert headers["Access-Control-Allow-Origin"] == CHAT
    assert headers.getlist("Vary") == ["Origin"]
    assert "Strict-Transport-Security" not in headers
    assert "Server" not in headers


async def test_strangers_pages_are_told_nothing() -> None:
    for config, origin in ((BASE, "https://evil.lab"), (msgspec.structs.replace(BASE, cors=Cors()), CHAT)):
        reply = await client(config).get("/health", headers={"Origin": origin})
        assert not [name for name, _ in reply.headers if name.lower().startswith("access-control")]


PREFLIGHT = {"Origin": CHAT, "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "x-api-key"}


@pytest.mark.parametrize("path", ["/admin/keys", "/health", "/admin/keys/alice"])
async def test_preflight_needs_no_key(path: str) -> None:
    reply = await client().open(path, method="OPTIONS", headers=PREFLIGHT)
    assert reply.status_code == 200
    assert reply.headers["Access-Control-Allow-Origin"] == CHAT
    assert reply.headers["Access-Control-Allow-Headers"] == "x-api-key"
    assert "PATCH" in reply.headers["Access-Control-Allow-Methods"]
    stranger = await client().open(path, method="OPTIONS", headers=PREFLIGHT | {"Origin": "https://evil.lab"})
    assert "Access-Control-Allow-Origin" not in stranger.headers


async def test_listed_page_needs_the_admin_key_still() -> None:
    assert (await client().get("/admin/keys", headers={"Origin": CHAT})).status_code == 401
    own = msgspec.structs.replace(BASE, auth=Auth())
    told = {"headers": {"Origin": CHAT, "Host": "localhost"}, "scope_base": {"client": ("127.0.0.1", 1)}}
    assert (await client(own).get("/admin/keys", **told)).status_code == 403


@pytest.mark.parametrize(
    ("hsts", "scheme", "told"), [(60, "https", "max-age=60"), (60, "http", None), (0, "https", None)]
)
async def test_https_is_asked_for_where_it_is_spoken(hsts: int, scheme: str, told: str | None) -> None:
    config = msgspec.structs.replace(BASE, server=Server(hsts=hsts))
    reply = await client(config).get("/health", scheme=scheme)
    assert reply.headers.get("Strict-Transport-Security") == told


async def test_large_bodies_get_the_envelope() -> None:
    config = msgspec.structs.replace(BASE, server=Server(max_body=1024))
    headers = {"X-API-Key": ADMIN, "Content-Type": "application/json"}
    reply = await client(config).post("/admin/keys", data=b"x" * 1025, headers=headers)
    assert reply.status_code == 413
    assert msgspec.json.decode(await reply.get_data())["error"]["code"] == "body_too_large"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_bodies_are_declared_as_json(kind: str) -> None:
    headers = {"X-API-Key": ADMIN, "Content-Type": kind}
    reply = await client().post("/admin/keys", data=b'{"name": "a"}', headers=headers)
    assert reply.status_code == 415
