"""The history over the admin API: what a gateway's requests left, as JSON, CSV and lines; and what cannot be asked."""

import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from quart_trio import QuartTrio
from quiver.admin.api.app import create_app
from quiver.proxy.gateway import Gateway

from ...proxy.samples import record
from ..conftest import BuildGateway

LOCAL = {"Host": "127.0.0.1"}


@asynccontextmanager
async def filled(build_gateway: BuildGateway, count: int = 30) -> AsyncIterator[tuple[QuartTrio, Gateway]]:
    """The application over a gateway that has answered some requests; every third failed."""
    gateway = build_gateway("healthy")
    now = gateway.world.wall_clock()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.store.write)
        gateway.store.keep_records(
            [
                record(
                    request_id=f"r{number}",
                    at=now - number * 60,
                    model=f"m{number % 2}",
                    client="=SUM(A1)" if number == 0 else "alice",
                    outcome="failed" if number % 3 == 0 else "completed",
                    status=502 if number % 3 == 0 else 200,
                    error="upstream_timeout" if number % 3 == 0 else None,
                )
                for number in range(count)
            ]
        )
        gateway.journal.note("server.paused", "lab", actor="me", request_id="r3", why="cleaning")
        await gateway.store.wait_written()
        yield create_app(gateway), gateway
        gateway.store.close()


async def ask(app: QuartTrio, path: str, method: str = "GET", **headers: str) -> tuple[int, Any]:
    client = app.test_client()
    reply = await (client.get if method == "GET" else client.delete)(
        path, headers=LOCAL | headers, scope_base={"client": ("127.0.0.1", 1)}
    )
    body = await reply.get_data()
    return reply.status_code, msgspec.json.decode(body) if reply.mimetype == "application/json" else body


async def test_pages_follow_each_other(build_gateway: BuildGateway) -> None:
    async with filled(build_gateway) as (app, _):
        found, path = [], "/admin/history?limit=12"
        while True:
            status, page = await ask(app, path)
            assert status == 200
            found += [entry["request_id"] for entry in page["requests"]]
            if page["next"] is None:
                break
            path = f"/admin/history?limit=12&cursor={page['next']}"
        assert found == [f"r{number}" for number in range(30)]


async def test_one_request_is_told_whole(build_gateway: BuildGateway) -> None:
    async with filled(build_gateway) as (app, _):
        status, found = await ask(app, "/admin/history/r3")
        assert (status, found["error"], found["meaning"]["code"]) == (200, "upstream_timeout", "upstream_timeout")
        assert [(event["kind"], event["details"]) for event in found["events"]] == [
            ("server.paused", {"why": "cleaning"})
        ]
        status, envelope = await ask(app, "/admin/history/nobody")
        assert (status, envelope["error"]["code"]) == (404, "not_found")


async def test_requests_add_up(build_gateway: BuildGateway) -> None:
    async with filled(build_gateway) as (app, _):
        _, report = await ask(app, "/admin/history/aggregate?by=model&by=outcome")
        sums = {(each["group"]["model"], each["group"]["outcome"]): each["requests"] for each in report["groups"]}
        assert sums == {("m0", "failed"): 5, ("m1", "failed"): 5, ("m0", "completed"): 10, ("m1", "completed"): 10}
        assert report["groups"][0]["duration"]["p50"] == pytest.approx(2.0, rel=0.25)


async def test_csv_has_all_and_no_formulas(build_gateway: BuildGateway) -> None:
    async with filled(build_gateway, 450) as (app, _):
        status, body = await ask(app, "/admin/history?format=csv")
        rows = list(csv.DictReader(io.StringIO(body.decode())))
        assert (status, len(rows)) == (200, 450)
        assert rows[0]["client"] == "'=SUM(A1)"
        _, body = await ask(app, "/admin/history?format=csv&limit=210")
        assert len(body.splitlines()) == 211


async def test_lines_are_asked_for_by_name(build_gateway: BuildGateway) -> None:
    async with filled(build_gateway) as (app, _):
        _, body = await ask(app, "/admin/history?model=m1", Accept="application/x-ndjson")
        lines = [msgspec.json.decode(line) for line in body.splitlines()]
        assert {line["model"] for line in lines} == {"m1"}
        assert len(lines) == 15


async def test_counts_are_told(build_gateway: BuildGateway) -> None:
    async with filled(build_gateway) as (app, gateway):
        _, report = await ask(app, "/admin/errors")
        assert [(each["code"], each["count"]) for each in report["errors"]] == [("upstream_timeout", 10)]
        for wrong in ("/admin/history/gone", "/admin/history/gone", "/admin/events?limit=0"):
            await ask(app, wrong)
        await gateway.store.wait_written()
        _, report = await ask(app, "/admin/errors")
        counts = {each["code"]: each["count"] for each in report["errors"]}
        assert counts == {"upstream_timeout": 10, "not_found": 2, "invalid_request": 1}
        _, page = await ask(app, "/admin/events?kind=server.")
        assert [event["subject"] for event in page["events"]] == ["lab"]
        gateway.store.keep_sample({"memory_bytes": 5.0})
        await gateway.store.wait_written()
        _, report = await ask(app, "/admin/metrics/history?name=memory_bytes")
        assert report["series"][0]["points"][0]["mean"] == 5.0
        _, report = await ask(app, "/admin/store")
        assert (report["written"], report["dropped"], report["degraded"]) == (35, 0, None)
        _, stats = await ask(app, "/admin/stats")
        assert sum(each["requests"] for each in stats["today"]) > 0
        assert stats["store"]["written"] == 35


async def test_deletion_is_noted(build_gateway: BuildGateway) -> None:
    async with filled(build_gateway) as (app, gateway):
        before = gateway.world.wall_clock() - 10.5 * 60
        assert await ask(app, f"/admin/history?before={before}", "DELETE") == (200, {"deleted": 19})
        _, page = await ask(app, "/admin/history?limit=100")
        assert len(page["requests"]) == 11
        await gateway.store.wait_written()
        _, events = await ask(app, "/admin/events?kind=history.deleted")
        assert events["events"][0]["details"] == {"before": before}


REFUSED = [
    ("/admin/history?modell=m", "modell", "did you mean `model`?"),
    ("/admin/history?limit=0", "limit", "a whole number"),
    ("/admin/history?cursor=zzz", "cursor", "`next` of a page"),
    ("/admin/history?outcome=fine", "outcome", "one of"),
    ("/admin/history/aggregate?by=colour", "by", "one of"),
    ("/admin/history/aggregate?by=model&by=hour&by=day", "by", "at most"),
    ("/admin/metrics/history?step=1", "step", "a whole number"),
    ("/admin/events?since=yesterday", "since", "a number"),
]


@pytest.mark.parametrize(("path", "param", "words"), REFUSED)
async def test_strange_questions_are_refused(path: str, param: str, words: str, build_gateway: BuildGateway) -> None:
    async with filled(build_gateway, 1) as (app, _):
        status, envelope = await ask(app, path)
        assert (status, envelope["error"]["param"]) == (400, param)
        assert words in envelope["error"]["message"]


async def test_deletion_needs_its_moment(build_gateway: BuildGateway) -> None:
    async with filled(build_gateway, 1) as (app, _):
        status, envelope = await ask(app, "/admin/history", "DELETE")
        assert (status, envelope["error"]["param"]) == (400, "before")
