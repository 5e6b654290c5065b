"""The log over the admin API: pages of it, levels, and the lines of the API's own requests."""

import io
import json
from contextlib import suppress
from typing import Any

import pytest
import structlog
import trio
import trio.testing
from quart_trio import QuartTrio
from quiver.admin.api.app import create_app
from quiver.admin.logs.pipeline import Pipeline
from quiver.admin.logs.setup import configure
from quiver.proxy.gateway import Gateway
from quiver.proxy.seams import offload_runner
from quiver.proxy.telemetry.levels import LEVELS
from quiver.schemas.config import Log

from ...proxy.conftest import at_once
from ..conftest import BuildGateway

pytestmark = pytest.mark.usefixtures("_logging_restored")
LOCAL: dict[str, Any] = {"scope_base": {"client": ("127.0.0.1", 1)}, "headers": {"Host": "localhost"}}
LOG = structlog.get_logger(component="x")


@pytest.fixture
def logs() -> Pipeline:
    return configure(Log(), io.StringIO())


@pytest.fixture
def gateway(build_gateway: BuildGateway) -> Gateway:
    return build_gateway("healthy")


async def ask(app: QuartTrio, path: str, method: str = "GET", **more: Any) -> tuple[int, Any, Any]:
    offload_runner.set(at_once)
    settings = {**LOCAL, **more, "headers": {**LOCAL["headers"], **more.get("headers", {})}}
    reply = await app.test_client().open(path, method=method, **settings)
    body = await reply.get_data()
    return reply.status_code, json.loads(body) if body else None, reply.headers


async def test_lines_newest_first(gateway: Gateway, logs: Pipeline) -> None:
    app = create_app(gateway, logs)
    for number in range(3):
        LOG.warning("said", number=number, request_id=f"r-{number}")
    status, page, _ = await ask(app, "/admin/logs?component=x&limit=2")
    assert status == 200
    assert [line["fields"] for line in page["lines"]] == [{"number": 2}, {"number": 1}]
    assert page["lines"][0]["request_id"] == "r-2"
    _, page, _ = await ask(app, f"/admin/logs?component=x&limit=2&cursor={page['next']}")
    assert [line["fields"] for line in page["lines"]] == [{"number": 0}]
    assert page["next"] is None


REFUSED = [
    "level=loud",
    "limit=0",
    "limit=2000",
    "cursor=x",
    "since=yesterday",
    "since=2026-05-01T12:00:00",
    "colour=red",
]


@pytest.mark.parametrize("query", REFUSED)
async def test_bad_query_is_refused(gateway: Gateway, logs: Pipeline, query: str) -> None:
    status, reply, _ = await ask(create_app(gateway, logs), f"/admin/logs?{query}")
    assert (status, reply["error"]["param"]) == (400, query.partition("=")[0])


async def test_level_changes_and_is_noted(gateway: Gateway, logs: Pipeline) -> None:
    app, kinds = create_app(gateway, logs), []
    gateway.journal.keep = lambda event: kinds.append((event.kind, event.subject, event.details, event.request_id))
    LOG.debug("before")
    change = {"component": "x", "level": "debug", "seconds": 60}
    status, report, _ = await ask(app, "/admin/logs/levels", "PUT", json=change, headers={"X-Request-ID": "mine"})
    LOG.debug("after")
    assert status == 200
    assert report["levels"] == [
        {"component": "all", "level": "info", "seconds_left": None},
        {"component": "x", "level": "debug", "seconds_left": 60.0},
    ]
    assert kinds == [("log.level", "x", {"to": "debug", "seconds": 60.0}, "mine")]
    _, page, _ = await ask(app, "/admin/logs?component=x")
    assert [line["message"] for line in page["lines"]] == ["after"]
    assert LEVELS.of("x") == 10
    _, report, _ = await ask(app, "/admin/logs/levels", "PUT", json={"component": "x", "level": None})
    assert [each["component"] for each in report["levels"]] == ["all"]


BAD_CHANGES: list[dict[str, Any]] = [
    {"component": "x"},
    {"component": "x", "level": "loud"},
    {"component": "all", "level": None},
    {"component": "", "level": "info"},
]


@pytest.mark.parametrize("change", BAD_CHANGES)
async def test_bad_level_is_refused(gateway: Gateway, logs: Pipeline, change: Any) -> None:
    status, _, _ = await ask(create_app(gateway, logs), "/admin/logs/levels", "PUT", json=change)
    assert status == 400
    assert LEVELS.own() == {}


async def test_api_request_is_one_line(gateway: Gateway, logs: Pipeline) -> None:
    app = create_app(gateway, logs)
    _, _, headers = await ask(app, "/admin/servers?filter=sk-planted-secret", headers={"X-Request-ID": "mine"})
    await ask(app, "/healthz")
    _, page, _ = await ask(app, "/admin/logs?component=api")
    (line,) = page["lines"]
    assert headers["X-Request-ID"] == line["request_id"] == "mine"
    told = {name: line["fields"][name] for name in ("method", "path", "status", "client")}
    assert told == {"method": "GET", "path": "/admin/servers", "status": 400, "client": "127.0.0.1"}
    assert line["level"] == "warning"
    assert line["fields"]["duration_ms"] >= 0
    assert "planted" not in json.dumps(page)


async def test_follower_hears_what_is_wanted(
    gateway: Gateway, logs: Pipeline, autojump_clock: trio.testing.MockClock
) -> None:
    app, received = create_app(gateway, logs), bytearray()
    headers = {"Host": "localhost", "Accept": "text/event-stream"}
    asked = app.test_client().request("/admin/logs?level=warning", headers=headers, scope_base=LOCAL["scope_base"])
    async with asked as connection:
        await connection.send_complete()

        async def read() -> None:
            with suppress(trio.EndOfChannel):
                while True:
                    received.extend(await connection.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.sleep(1)
            LOG.info("unheard")
            LOG.warning("heard", number=7)
            await trio.sleep(20)
            assert len(logs.followers) == 1
            gateway.state = "draining"
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
    events = [event for event in received.decode().split("\n\n") if event]
    assert events[0] == ": following"
    assert json.loads(events[1].removeprefix("data: "))["fields"] == {"number": 7}
    assert events[2:] == [": heartbeat", "data: [DONE]"]
    assert len(logs.followers) == 0
