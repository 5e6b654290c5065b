"""Who may use the admin API: keys, addresses, and pages of other sites."""

from typing import Any

import pytest
from quart_trio import QuartTrio
from quiver.admin.api.app import create_app

from ..conftest import KEY, BuildGateway

ADMIN = "quiver-admin-key"
HERE, ELSEWHERE = "127.0.0.1", "192.168.1.9"
LOCAL: dict[str, Any] = {"extensions": {"quiver.local": {}}}

# What is set (client keys, admin key), the headers sent, and the answer.
WITH_ADMIN_KEY: list[tuple[tuple[str, ...], dict[str, str], int]] = [
    ((), {"X-API-Key": ADMIN}, 200),
    ((), {"Authorization": f"Bearer {ADMIN}"}, 200),
    ((), {"Authorization": f"Bearer {KEY}", "X-API-Key": ADMIN}, 200),
    ((), {}, 401),
    ((), {"X-API-Key": ADMIN[:-1]}, 401),
    ((), {"X-API-Key": f"{ADMIN}x"}, 401),
    ((), {"X-API-Key": "schl\u00fcssel"}, 401),
    ((KEY,), {"X-API-Key": ADMIN}, 200),
    ((KEY,), {}, 401),
    ((KEY,), {"X-API-Key": "unknown-key"}, 401),
    ((KEY,), {"X-API-Key": KEY}, 403),
]

# Where the gateway listens, where the request comes from, its headers, and the answer.
WITHOUT_ADMIN_KEY: list[tuple[str, str, dict[str, str], int]] = [
    (HERE, HERE, {}, 200),
    (HERE, "::1", {"Host": "[::1]:8080"}, 200),
    ("localhost", HERE, {"Host": "localhost:8080"}, 200),
    (HERE, HERE, {"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:8080"}, 200),
    (HERE, HERE, {"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:3000"}, 403),
    (HERE, HERE, {"Host": "127.0.0.1:8080", "Origin": "https://evil.example"}, 403),
    (HERE, HERE, {"Host": "127.0.0.1:8080", "Origin": "null"}, 403),
    (HERE, HERE, {"Host": "evil.example:8080"}, 403),
    (HERE, HERE, {"X-Forwarded-For": ELSEWHERE}, 403),
    (HERE, HERE, {"Forwarded": f"for={ELSEWHERE}"}, 403),
    (HERE, HERE, {"X-Real-IP": ELSEWHERE}, 403),
    (HERE, HERE, {"Host": "localhost.evil.example"}, 403),
    (HERE, ELSEWHERE, {}, 403),
    ("0.0.0.0", HERE, {}, 403),
    ("0.0.0.0", ELSEWHERE, {}, 403),
]


async def answer(app: QuartTrio, peer: str, headers: dict[str, str]) -> tuple[int, str]:
    reply = await app.test_client().get(
        "/admin/servers", headers={"Host": "localhost", **headers}, scope_base={"client": (peer, 50_000)}
    )
    return reply.status_code, await reply.get_data(as_text=True)


@pytest.mark.parametrize(("keys", "headers", "status"), WITH_ADMIN_KEY)
@pytest.mark.parametrize("peer", [HERE, ELSEWHERE])
async def test_admin_key_is_asked_for(
    build_gateway: BuildGateway, keys: tuple[str, ...], headers: dict[str, str], status: int, peer: str
) -> None:
    app = create_app(build_gateway(host="0.0.0.0", keys=keys, admin_key=ADMIN))
    found, body = await answer(app, peer, headers)
    assert found == status
    assert ADMIN not in body


@pytest.mark.parametrize(("listening", "peer", "headers", "status"), WITHOUT_ADMIN_KEY)
async def test_without_key_only_this_machine(
    build_gateway: BuildGateway, listening: str, peer: str, headers: dict[str, str], status: int
) -> None:
    found, body = await answer(create_app(build_gateway(host=listening)), peer, headers)
    assert found == status
    if status == 403:
        assert "`auth.admin_key`" in body
        assert "admin_forbidden" in body


@pytest.mark.parametrize(("headers", "status"), [({}, 200), ({"X-Forwarded-For": ELSEWHERE}, 401)])
async def test_socket_is_for_its_own_user(build_gateway: BuildGateway, headers: dict[str, str], status: int) -> None:
    """Not for whoever comes through a proxy that was put before it."""
    app = create_app(build_gateway(host="0.0.0.0", admin_key=ADMIN))
    reply = await app.test_client().get("/admin/servers", headers=headers, scope_base=LOCAL)
    assert reply.status_code == status


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_every_admin_path_is_locked(build_gateway: BuildGateway, method: str) -> None:
    app = create_app(build_gateway(admin_key=ADMIN))
    paths = [
        rule.rule.replace("<id>", "lab")
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/admin") and method in (rule.methods or ())
    ]
    assert paths
    for path in paths:
        async with app.test_client().request(path, method=method) as connection:
            await connection.send_complete()
            assert (await connection.as_response()).status_code == 401


# Where the gateway listens, where the request comes from, what its connection is, its headers, and the answer.
READERS: list[tuple[str, str, dict[str, Any], dict[str, str], int]] = [
    (HERE, HERE, {}, {}, 200),
    (HERE, HERE, {}, {"X-Forwarded-For": ELSEWHERE}, 401),
    (HERE, HERE, {}, {"Via": "1.1 proxy"}, 401),
    (HERE, HERE, {}, {"X-Forwarded-For": ELSEWHERE, "Authorization": f"Bearer {KEY}"}, 200),
    (HERE, ELSEWHERE, {}, {}, 401),
    ("0.0.0.0", HERE, {}, {}, 401),
    ("0.0.0.0", HERE, LOCAL, {}, 200),
    ("0.0.0.0", HERE, LOCAL, {"X-Forwarded-For": ELSEWHERE}, 401),
    ("0.0.0.0", ELSEWHERE, {}, {"X-API-Key": ADMIN}, 200),
    ("0.0.0.0", ELSEWHERE, {}, {"X-API-Key": ADMIN[:-1]}, 401),
]


@pytest.mark.parametrize(("listening", "peer", "scope", "headers", "status"), READERS)
@pytest.mark.parametrize("path", ["/status", "/metrics"])
async def test_who_sees_the_figures(
    build_gateway: BuildGateway,
    listening: str,
    peer: str,
    scope: dict[str, Any],
    headers: dict[str, str],
    status: int,
    path: str,
) -> None:
    app = create_app(build_gateway(host=listening, keys=(KEY,), admin_key=ADMIN))
    reply = await app.test_client().get(
        path, headers={"Host": "localhost", **headers}, scope_base={"client": (peer, 50_000), **scope}
    )
    assert reply.status_code == status
