"""The admin API of a gateway that runs, over real sockets, against servers that say what they are told."""

import json
import socket
from functools import partial

import pytest
import trio
from quiver.schemas.config import Auth, Health, RemoteBackend

from ..conftest import Speak, Speaker, reply
from .conftest import Asked, Run

SECRET = "sk-planted-0123456789"
MODELS = reply("200 OK", b'{"object": "list", "data": [{"id": "qwen3"}, {"id": "gemma3"}]}')
BROKEN = reply("500 Internal Server Error", b"out of memory")


def closed_port() -> str:
    """An address on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


async def test_registered_server_answers(run_gateway: Run, speak: Speak) -> None:
    ask, lab = await run_gateway(), speak(MODELS)
    wanted = {"endpoint_url": f"{lab.url}/v1", "name": "lab", "api_key": SECRET}
    assert await ask("POST", "/admin/register", wanted) == (
        201,
        {"registration_id": "lab", "status": "registered", "health_status": "healthy"},
    )
    status, _ = await ask("POST", "/v1/chat/completions", {"model": "gemma3", "messages": []})
    assert status == 200
    assert f"Authorization: Bearer {SECRET}".lower().encode() in lab.requests[-1].lower()
    assert await ask("DELETE", "/admin/register/lab") == (200, {"registration_id": "lab", "status": "deregistered"})
    status, body = await ask("POST", "/v1/chat/completions", {"model": "gemma3", "messages": []})
    assert (status, body["error"]["code"]) == (404, "model_not_found")


async def test_same_server_is_changed(run_gateway: Run, speak: Speak) -> None:
    ask, lab = await run_gateway(), speak(MODELS)
    status, first = await ask("POST", "/admin/register", {"endpoint_url": lab.url, "model_name": "qwen3"})
    assert status == 201
    status, second = await ask(
        "POST", "/admin/register", {"endpoint_url": f"{lab.url}/v1/", "models": ["other"], "max_concurrency": 3}
    )
    assert (status, second["registration_id"]) == (200, first["registration_id"])
    _, listed = await ask("GET", "/admin/servers")
    assert [(each["models"], each["max_concurrency"]) for each in listed["servers"]] == [(["other"], 3)]


class Hesitant:
    """A server that lists its models once it is allowed to. `asked` and `left` count its visitors."""

    def __init__(self) -> None:
        self.allowed = trio.Event()
        self.asked, self.left = trio.Event(), trio.Event()
        self.url = ""

    async def run(self, nursery: trio.Nursery) -> "Hesitant":
        listeners = await nursery.start(partial(trio.serve_tcp, self._answer, 0, host="127.0.0.1"))
        self.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        return self

    async def _answer(self, stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            self.asked.set()
            async with trio.open_nursery() as waiting:
                waiting.start_soon(self._notice_departure, stream, waiting.cancel_scope)
                await self.allowed.wait()
                waiting.cancel_scope.cancel()
            if self.left.is_set():
                return
            await stream.send_all(MODELS)

    async def _notice_departure(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        if not await stream.receive_some():
            self.left.set()
            scope.cancel()


async def test_name_is_given_once(run_gateway: Run, nursery: trio.Nursery) -> None:
    """Of two registrations that are checked at the same time."""
    ask = await run_gateway()
    rivals = [await Hesitant().run(nursery) for _ in range(2)]
    statuses: list[int] = []

    async def register(rival: Hesitant) -> None:
        status, _ = await ask("POST", "/admin/register", {"endpoint_url": rival.url, "name": "lab"})
        statuses.append(status)

    async with trio.open_nursery() as requests:
        for rival in rivals:
            requests.start_soon(register, rival)
        for rival in rivals:
            await rival.asked.wait()
        for rival in rivals:
            rival.allowed.set()
    assert sorted(statuses) == [201, 400]
    assert await ask.ids() == ["lab"]


async def test_departed_client_registers_nothing(run_gateway: Run, nursery: trio.Nursery) -> None:
    ask, lab = await run_gateway(), await Hesitant().run(nursery)
    body = json.dumps({"endpoint_url": lab.url}).encode()
    head = f"POST /admin/register HTTP/1.1\r\nHost: {ask.netloc}\r\nContent-Type: application/json\r\n"
    host, _, port = ask.netloc.partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as client:
        await client.send_all(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await lab.asked.wait()
    with trio.fail_after(5):
        await lab.left.wait()
    assert await ask.ids() == []


async def test_change_of_removed_server(run_gateway: Run, nursery: trio.Nursery) -> None:
    """A server that is deregistered while its change is checked stays away."""
    lab = await Hesitant().run(nursery)
    ask = await run_gateway()
    ask.gateway.register(RemoteBackend(url=closed_port(), name="lab"))
    statuses: list[int] = []

    async def change() -> None:
        statuses.append((await ask("PUT", "/admin/register/lab", {"endpoint_url": lab.url}))[0])

    async with trio.open_nursery() as requests:
        requests.start_soon(change)
        await lab.asked.wait()
        assert (await ask("DELETE", "/admin/register/lab"))[0] == 200
        lab.allowed.set()
    assert statuses == [404]
    assert await ask.ids() == []


FAILING = [
    (BROKEN, "The server failed its first check: `/v1/models` answered 500"),
    (reply("401 Unauthorized", b"{}"), "The server failed its first check: `/v1/models` answered 401"),
    (reply("200 OK", b"<html>", "text/html"), "The server failed its first check: `/v1/models`: JSON is malformed"),
]


@pytest.mark.parametrize(("said", "message"), FAILING)
async def test_failed_check_stores_nothing(run_gateway: Run, speak: Speak, said: bytes, message: str) -> None:
    ask = await run_gateway()
    status, body = await ask("POST", "/admin/register", {"endpoint_url": speak(said).url})
    assert (status, body["error"]["code"]) == (503, "check_failed")
    assert body["error"]["message"].startswith(message)
    assert await ask.ids() == []


async def test_unreachable_server_is_refused(run_gateway: Run) -> None:
    ask = await run_gateway()
    status, body = await ask("POST", "/admin/register", {"endpoint_url": closed_port()})
    assert (status, body["error"]["code"]) == (503, "check_failed")
    assert await ask.ids() == []


async def test_failed_change_keeps_old(run_gateway: Run, speak: Speak) -> None:
    ask, lab = await run_gateway(), speak(MODELS)
    await ask("POST", "/admin/register", {"endpoint_url": lab.url, "name": "lab", "weight": 2})
    for method, path in [("POST", "/admin/register"), ("PUT", "/admin/register/lab")]:
        lab.reply = BROKEN
        status, _ = await ask(method, path, {"endpoint_url": lab.url, "name": "lab", "weight": 7})
        lab.reply = MODELS
        assert status == 503
        _, details = await ask("GET", "/admin/servers/lab")
        assert details["weight"] == 2


WRONG: list[tuple[object, str | None, str]] = [
    ({}, "endpoint_url", "missing required field `endpoint_url`"),
    ({"endpoint_url": "lab:8000"}, "endpoint_url", "`endpoint_url`: expected an address such as"),
    ({"endpoint_url": f"http://me:{SECRET}@h"}, "endpoint_url", "`endpoint_url`: expected an address such as"),
    ({"endpoint_url": "http://h:99999"}, "endpoint_url", "`endpoint_url`: Port out of range"),
    ({"endpoint_url": "http://h", "name": "a b"}, "name", "`name`: expected 1 to 64 letters"),
    ({"endpoint_url": "http://h", "models": ["a b"]}, "models[0]", "`models[0]`: expected printable characters"),
    ({"endpoint_url": "http://h", "api_key": f"{SECRET} x"}, "api_key", "`api_key`: expected printable ASCII"),
    ({"endpoint_url": "http://h", "weight": 0}, "weight", "Expected `float` > 0"),
    ({"endpoint_url": "http://h", "model_name": "a", "models": ["b"]}, "model_name", "Give `model_name` or `models`"),
    ({"endpoint_url": "http://h", "capabilities": {"x": 1}}, "capabilities", "Object contains unknown field `x`"),
    ({"endpoint_url": "http://h", "modles": ["b"]}, None, "Object contains unknown field `modles`"),
]


@pytest.mark.parametrize("path", ["/admin/register", "/admin/register/lab"])
@pytest.mark.parametrize(("body", "param", "message"), WRONG)
async def test_bad_field_is_named(run_gateway: Run, path: str, body: object, param: str | None, message: str) -> None:
    ask = await run_gateway()
    ask.gateway.register(RemoteBackend(url=closed_port(), name="lab"))
    status, told = await ask("PUT" if path.endswith("lab") else "POST", path, body)
    assert (status, told["error"]["param"]) == (400, param)
    assert message in told["error"]["message"]
    assert SECRET not in str(told)


async def test_body_must_be_declared(run_gateway: Run) -> None:
    """What a page of another site may send without asking is not taken."""
    ask = await run_gateway()
    status, body = await ask("POST", "/admin/register", {"endpoint_url": "http://h"}, Content_Type="text/plain")
    assert (status, body["error"]["code"]) == (415, "unsupported_media_type")


async def test_taken_name_is_refused(run_gateway: Run, speak: Speak) -> None:
    ask, one, two = await run_gateway(), speak(MODELS), speak(MODELS)
    await ask("POST", "/admin/register", {"endpoint_url": one.url, "name": "lab"})
    status, body = await ask("POST", "/admin/register", {"endpoint_url": two.url, "name": "lab"})
    assert (status, body["error"]["param"]) == (400, "name")
    assert one.url in body["error"]["message"]
    assert two.requests == []


async def test_change_may_move_server(run_gateway: Run, speak: Speak) -> None:
    ask, one, two = await run_gateway(), speak(MODELS), speak(MODELS)
    _, first = await ask("POST", "/admin/register", {"endpoint_url": one.url})
    path = f"/admin/register/{first['registration_id']}"
    assert await ask("PUT", path, {"endpoint_url": two.url, "name": "other"}) == (
        400,
        {
            "error": {
                "message": f"The server is `{first['registration_id']}`; its name stays as it is",
                "type": "invalid_request_error",
                "param": "name",
                "code": "invalid_request",
            }
        },
    )
    assert await ask("PUT", path, {"endpoint_url": two.url}) == (200, first)
    _, listed = await ask("GET", "/admin/servers")
    assert [each["url"] for each in listed["servers"]] == [f"{two.url}/v1"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/admin/register/gone"),
        ("DELETE", "/admin/register/gone"),
        ("GET", "/admin/servers/gone"),
        ("POST", "/admin/servers/gone/health-check"),
    ],
)
async def test_unknown_server_is_not_found(run_gateway: Run, method: str, path: str) -> None:
    ask = await run_gateway()
    status, body = await ask(method, path, {"endpoint_url": "http://h"} if method == "PUT" else None)
    assert (status, body["error"]["code"]) == (404, "not_found")
    assert "`gone`" in body["error"]["message"]


async def test_details_tell_standing(run_gateway: Run, speak: Speak) -> None:
    lab = speak(MODELS)
    entry = RemoteBackend(url=lab.url, name="lab", models=("qwen3",), api_key=SECRET, max_concurrency=4)
    ask = await run_gateway(backends=(entry,), health=Health(failures=2, ejection=60))
    await checked(ask, lab)
    lab.reply = BROKEN
    for state in ("suspect", "ejected"):
        status, outcome = await ask("POST", "/admin/servers/lab/health-check")
        assert (status, outcome["passed"], outcome["state"]) == (200, False, state)
        assert outcome["reason"] == "`/v1/models` answered 500"
    status, details = await ask("GET", "/admin/servers/lab")
    assert status == 200
    assert SECRET not in str(details)
    told = {name: details[name] for name in ("id", "url", "models", "health", "state", "reason", "failures")}
    assert told == {
        "id": "lab",
        "url": f"{lab.url}/v1",
        "models": ["qwen3"],
        "health": "unhealthy",
        "state": "ejected",
        "reason": "`/v1/models` answered 500",
        "failures": 2,
    }
    assert (details["in_flight"], details["max_concurrency"], details["has_key"]) == (0, 4, True)
    assert details["until"] - details["since"] == pytest.approx(60, rel=0.25)
    assert [(result["ok"], result["source"]) for result in details["history"][-3:]] == [
        (True, "check"),
        (False, "check"),
        (False, "check"),
    ]
    assert 0 < details["success_rate"] < 1


async def checked(ask: Asked, lab: Speaker) -> None:
    """Return once the gateway's own first check of `lab` is through, so that no other comes in between."""
    while (await ask("GET", "/admin/servers/lab"))[1]["state"] != "healthy":
        assert len(lab.requests) < 10
        await trio.sleep(0.01)


async def test_check_brings_server_back(run_gateway: Run, speak: Speak) -> None:
    lab = speak(MODELS)
    ask = await run_gateway(backends=(RemoteBackend(url=lab.url, name="lab"),), health=Health(failures=1, ejection=60))
    await checked(ask, lab)
    lab.reply = BROKEN
    assert (await ask("POST", "/admin/servers/lab/health-check"))[1]["state"] == "ejected"
    lab.reply = MODELS
    assert (await ask("POST", "/admin/servers/lab/health-check"))[1]["passed"] is True
    _, details = await ask("GET", "/admin/servers/lab")
    assert (details["state"], details["reason"], details["until"]) == ("healthy", None, None)


async def test_stats_count_requests(run_gateway: Run, speak: Speak) -> None:
    ask, lab = await run_gateway(), speak(MODELS)
    await ask("POST", "/admin/register", {"endpoint_url": lab.url, "name": "lab"})
    await ask("POST", "/v1/chat/completions", {"model": "qwen3", "messages": [], "temperature": 0})
    await ask("POST", "/v1/chat/completions", {"model": "qwen3", "messages": [], "temperature": 0})
    await ask("POST", "/v1/chat/completions", {"model": "nobody's", "messages": []})
    status, stats = await ask("GET", "/admin/stats")
    assert status == 200
    assert (stats["requests"]["total"], stats["requests"]["by_outcome"]) == (3, {"completed": 2, "failed": 1})
    assert stats["admission"]["queue"]["waiting"] == stats["admission"]["in_flight"] == stats["in_flight"] == 0
    assert (stats["reuse"]["hits"], stats["reuse"]["misses"]) == (1, 1)
    assert stats["clients"] == {"keys": 0, "addresses": 0}
    assert stats["upstream"]["busy"] == 0


@pytest.mark.parametrize("host", ["[::1", "evil.example", "127.0.0.1.evil.example:80"])
async def test_foreign_host_is_refused(run_gateway: Run, host: str) -> None:
    """A name of another site that resolves to 127.0.0.1."""
    ask = await run_gateway()
    status, _ = await ask("GET", "/admin/servers", Host=host)
    assert status in (400, 403)


async def test_admin_key_opens(run_gateway: Run) -> None:
    ask = await run_gateway(auth=Auth(admin_key=SECRET))
    assert (await ask("GET", "/admin/servers"))[0] == 401
    assert (await ask("GET", "/admin/servers", X_API_Key=SECRET))[0] == 200
    assert (await ask("GET", "/admin/servers", Authorization=f"Bearer {SECRET}"))[0] == 200
