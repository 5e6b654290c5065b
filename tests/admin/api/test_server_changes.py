"""What operators change of servers over the admin API: in part, under a version, paused, drained; and what the journal says."""

from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest
import trio
from quiver.proxy.remote.backend import RemoteServer
from quiver.schemas.config import Health, RemoteBackend
from quiver.schemas.events import Event
from quiver.schemas.saved import SavedServer

from ..conftest import Speak, reply
from .conftest import Asked, Run

SECRET = "sk-planted-0123456789"
MODELS = reply("200 OK", b'{"object": "list", "data": [{"id": "qwen3"}]}')
BROKEN = reply("500 Internal Server Error", b"out of memory")
LAB = {
    "name": "lab",
    "api_key": SECRET,
    "max_concurrency": 4,
    "capabilities": {"context_length": 4096},
    "metadata": {"owner": "anna", "tags": ["gpu"]},
}


async def headers_of(ask: Asked, method: str, path: str, **headers: str) -> tuple[int, dict[str, str]]:
    """A reply's status and headers, in lower case."""

    def send() -> tuple[int, dict[str, str]]:
        connection = HTTPConnection(ask.netloc, timeout=10)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            response: HTTPResponse = connection.getresponse()
            response.read()
            return response.status, {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()

    return await trio.to_thread.run_sync(send)


def noted(ask: Asked) -> list[Event]:
    """What is noted from now on."""
    events: list[Event] = []
    keep = ask.gateway.journal.keep

    def both(event: Event) -> None:
        events.append(event)
        keep(event)

    ask.gateway.journal.keep = both
    return events


SPELLINGS = ["{url}", "{url}/", "{url}/v1", "{url}/v1/"]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_address_is_recognised(run_gateway: Run, speak: Speak, spelling: str) -> None:
    """Without a name, a registration is of the server at its address, whatever that is called."""
    ask, lab = await run_gateway(), speak(MODELS)
    assert (await ask("POST", "/admin/register", {"endpoint_url": lab.url, **LAB}))[0] == 201
    status, told = await ask("POST", "/admin/register", {"endpoint_url": spelling.format(url=lab.url), "weight": 2})
    assert (status, told["registration_id"]) == (200, "lab")
    assert await ask.ids() == ["lab"]


async def test_which_of_two_is_asked(run_gateway: Run, speak: Speak) -> None:
    ask, lab = await run_gateway(), speak(MODELS)
    for name in ("one", "two"):
        assert (await ask("POST", "/admin/register", {"endpoint_url": lab.url, "name": name}))[0] == 201
    status, body = await ask("POST", "/admin/register", {"endpoint_url": lab.url})
    assert (status, body["error"]["param"]) == (400, "name")
    assert "`one`, `two`" in body["error"]["message"]


async def test_same_registration_changes_nothing(run_gateway: Run, speak: Speak) -> None:
    ask, lab = await run_gateway(), speak(MODELS)
    wanted = {"endpoint_url": lab.url, **LAB}
    await ask("POST", "/admin/register", wanted)
    events = noted(ask)
    assert (await ask("POST", "/admin/register", wanted))[0] == 200
    _, details = await ask("GET", "/admin/servers/lab")
    assert (details["version"], events) == (1, [])


async def test_patch_changes_what_is_given(run_gateway: Run, speak: Speak) -> None:
    ask, lab = await run_gateway(), speak(MODELS)
    await ask("POST", "/admin/register", {"endpoint_url": lab.url, **LAB})
    asked = len(lab.requests)
    lab.reply = BROKEN  # an owner's name needs no check
    events = noted(ask)
    patch = {"max_concurrency": None, "capabilities": {"max_tokens": 512}, "metadata": {"owner": "ben", "tags": None}}
    status, details = await ask("PATCH", "/admin/servers/lab", patch)
    assert (status, details["version"], details["metadata"]) == (200, 2, {"owner": "ben"})
    assert (details["max_concurrency"], details["has_key"]) == (None, True)
    assert details["capabilities"]["context_length"] == 4096
    assert details["capabilities"]["max_tokens"] == 512
    (event,) = (each for each in events if each.kind != "server.state")
    assert (event.kind, event.subject, event.actor) == ("server.changed", "lab", "127.0.0.1")
    assert event.details["changes"]["metadata"] == {
        "before": {"owner": "anna", "tags": ("gpu",)},
        "after": {"owner": "ben"},
    }
    assert event.details["changes"]["max_concurrency"] == {"before": 4, "after": None}
    assert SECRET not in str(event)
    assert len(lab.requests) - asked <= 2  # the gateway's own watch, at once


async def test_patch_of_an_address_is_checked(run_gateway: Run, speak: Speak) -> None:
    ask, lab, moved = await run_gateway(), speak(MODELS), speak(BROKEN)
    await ask("POST", "/admin/register", {"endpoint_url": lab.url, **LAB})
    status, body = await ask("PATCH", "/admin/servers/lab", {"endpoint_url": moved.url})
    assert (status, body["error"]["code"]) == (503, "check_failed")
    assert (await ask("GET", "/admin/servers/lab"))[1]["url"] == f"{lab.url}/v1"
    moved.reply = MODELS
    status, details = await ask("PATCH", "/admin/servers/lab", {"endpoint_url": moved.url})
    assert (status, details["url"], details["has_key"]) == (200, f"{moved.url}/v1", True)


PATCHES: list[tuple[object, str | None]] = [
    ({"name": "other"}, "name"),
    ({"model_name": "a", "models": ["b"]}, "model_name"),
    ({"weight": 0}, "weight"),
    ({"metadata": {"tags": [""]}}, "metadata.tags[0]"),
    ({"colour": "red"}, None),
    ([], None),
]


@pytest.mark.parametrize(("patch", "param"), PATCHES)
async def test_bad_patch_is_refused(run_gateway: Run, speak: Speak, patch: object, param: str | None) -> None:
    ask, lab = await run_gateway(), speak(MODELS)
    await ask("POST", "/admin/register", {"endpoint_url": lab.url, **LAB})
    status, body = await ask("PATCH", "/admin/servers/lab", patch)
    assert (status, body["error"]["param"]) == (400, param)
    assert (await ask("GET", "/admin/servers/lab"))[1]["version"] == 1


CHANGES: list[tuple[str, str, object]] = [
    ("PUT", "/admin/register/lab", {"endpoint_url": "{url}", "weight": 2}),
    ("PATCH", "/admin/servers/lab", {"weight": 2}),
    ("DELETE", "/admin/register/lab", None),
    ("POST", "/admin/servers/lab/pause", None),
    ("POST", "/admin/servers/lab/resume", None),
    ("POST", "/admin/servers/lab/drain", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
async def test_change_of_another_version_is_refused(
    run_gateway: Run, speak: Speak, method: str, path: str, body: Any
) -> None:
    ask, lab = await run_gateway(), speak(MODELS)
    await ask("POST", "/admin/register", {"endpoint_url": lab.url, **LAB})
    _, headers = await headers_of(ask, "GET", "/admin/servers/lab")
    old = headers["etag"]
    await ask("PATCH", "/admin/servers/lab", {"weight": 3})
    wanted = {**body, "endpoint_url": lab.url} if body and "endpoint_url" in body else body
    status, told = await ask(method, path, wanted, If_Match=old)
    assert (status, told["error"]["code"]) == (412, "version_mismatch")
    assert (await ask(method, path, wanted, If_Match='"", "other"'))[0] == 412
    _, details = await ask("GET", "/admin/servers/lab")
    assert (details["version"], details["mode"], details["weight"]) == (2, "serving", 3)
    _, headers = await headers_of(ask, "GET", "/admin/servers/lab")
    assert (await ask(method, path, wanted, If_Match=headers["etag"]))[0] == 200


async def test_known_version_is_not_sent_again(run_gateway: Run, speak: Speak) -> None:
    ask, lab = await run_gateway(health=Health(interval=300)), speak(MODELS)
    await ask("POST", "/admin/register", {"endpoint_url": lab.url, **LAB})
    for _ in range(20):  # its first checks change what is told
        _, headers = await headers_of(ask, "GET", "/admin/servers/lab")
        status, _ = await headers_of(ask, "GET", "/admin/servers/lab", If_None_Match=headers["etag"])
        if status == 304:
            break
    assert status == 304
    await ask("POST", "/admin/servers/lab/pause")
    status, changed = await headers_of(ask, "GET", "/admin/servers/lab", If_None_Match=headers["etag"])
    assert status == 200
    assert changed["etag"].partition(".")[0] == headers["etag"].partition(".")[0]


async def test_file_owns_its_servers(run_gateway: Run, speak: Speak) -> None:
    lab = speak(MODELS)
    ask = await run_gateway(backends=(RemoteBackend(url=lab.url, name="lab"),))
    for method, path, body in (
        ("POST", "/admin/register", {"endpoint_url": lab.url}),
        ("PUT", "/admin/register/lab", {"endpoint_url": lab.url}),
        ("PATCH", "/admin/servers/lab", {"weight": 2}),
        ("DELETE", "/admin/register/lab", None),
    ):
        status, told = await ask(method, path, body)
        assert (status, told["error"]["code"]) == (409, "configured_server")
    assert (await ask("POST", "/admin/servers/lab/pause"))[1]["mode"] == "paused"
    _, details = await ask("GET", "/admin/servers/lab")
    assert (details["mode"], details["origin"], details["version"]) == ("paused", "configuration", 1)


async def test_every_change_is_noted_and_kept(run_gateway: Run, speak: Speak) -> None:
    ask, lab = await run_gateway(), speak(MODELS)
    events, saved = noted(ask), dict[str, SavedServer]()
    save = ask.gateway.store.save_server

    async def remember(server: SavedServer) -> None:
        await save(server)
        saved[server.id] = server

    ask.gateway.store.save_server = remember  # type: ignore[method-assign]  # the real one is behind it
    await ask("POST", "/admin/register", {"endpoint_url": lab.url, **LAB})
    assert (saved["lab"].version, saved["lab"].metadata.owner, saved["lab"].backend.api_key) == (1, "anna", SECRET)
    await ask("POST", "/admin/servers/lab/pause")
    await ask("POST", "/admin/servers/lab/pause")
    await ask("POST", "/admin/servers/lab/resume")
    await ask("DELETE", "/admin/register/lab")
    kinds = [event.kind for event in events if event.kind != "server.state"]
    assert kinds == ["server.registered", "server.paused", "server.resumed", "server.deregistered"]
    assert SECRET not in str(events)


async def test_registrations_at_the_same_time(run_gateway: Run, speak: Speak) -> None:
    """One of them is the first, and none minds that another one, or a removal, came before it."""
    ask, lab = await run_gateway(), speak(MODELS)
    wanted, statuses = {"endpoint_url": lab.url, **LAB}, list[int]()

    async def register() -> None:
        statuses.append((await ask("POST", "/admin/register", wanted))[0])

    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(register)
        assert sorted(statuses) == [200] * 7 + [201]
        statuses.clear()
        assert (await ask("DELETE", "/admin/register/lab"))[0] == 200

    await register()
    candidate = ask.gateway.candidate

    def once_gone(*args: Any, **kwargs: Any) -> RemoteServer:
        ask.gateway.deregister("lab")  # the request has seen the server that goes now
        return candidate(*args, **kwargs)

    ask.gateway.candidate = once_gone  # type: ignore[method-assign]
    await register()
    assert statuses == [201, 201]


async def test_what_a_watch_finds_is_no_part_of_the_registration(run_gateway: Run, speak: Speak) -> None:
    ask, lab = await run_gateway(), speak(MODELS)
    await ask("POST", "/admin/register", {"endpoint_url": lab.url, **LAB})
    events, server = noted(ask), ask.gateway.registry.get("lab")
    assert isinstance(server, RemoteServer)
    lab.reply = BROKEN
    with trio.fail_after(20):
        while not any(event.kind == "server.state" for event in events):
            server.bell.ring()
            await trio.sleep(0.05)
    assert [event.request_id for event in events if event.kind == "server.state"] == [None]


async def test_drain_is_followed(run_gateway: Run, speak: Speak) -> None:
    ask, lab = await run_gateway(), speak(MODELS)
    await ask("POST", "/admin/register", {"endpoint_url": lab.url, **LAB})
    status, told = await ask("POST", "/admin/servers/lab/drain?wait=5")
    assert (status, told) == (200, {"registration_id": "lab", "mode": "paused", "in_flight": 0})
    assert (await ask("POST", "/admin/servers/lab/drain?wait=-1"))[0] == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "ends"),
    [
        ("PATCH", "/admin/servers/lab", {"weight": 2}, b'"mode":"paused"'),
        ("DELETE", "/admin/register/lab", None, b'"code":"not_found"'),
    ],
    ids=["changed", "taken out"],
)
async def test_followed_drain_of_a_server_that_is_another_by_then(
    run_gateway: Run, speak: Speak, method: str, path: str, body: object, ends: bytes
) -> None:
    ask, lab = await run_gateway(), speak(MODELS)
    await ask("POST", "/admin/register", {"endpoint_url": lab.url, **LAB})
    server = ask.gateway.registry.get("lab")
    assert isinstance(server, RemoteServer)
    server.load.taken()
    host, _, port = ask.netloc.partition(":")
    head = f"POST /admin/servers/lab/drain?wait=2 HTTP/1.1\r\nHost: {ask.netloc}\r\nAccept: text/event-stream\r\n\r\n"
    with trio.fail_after(20):
        async with await trio.open_tcp_stream(host, int(port)) as client:
            await client.send_all(head.encode())
            received = b""
            while b"data: " not in received:
                received += await client.receive_some()
            assert (await ask(method, path, body, Content_Type="application/merge-patch+json"))[0] == 200
            server.load.returned()
            while b"data: [DONE]" not in received:
                data = await client.receive_some()
                assert data, received[-300:]
                received += data
    assert received.count(b"data: ") < 20
    assert ends in received.rpartition(b"data: [DONE]")[0].rpartition(b"data: ")[2]


async def test_trial_keeps_nothing(run_gateway: Run, speak: Speak) -> None:
    ask, lab = await run_gateway(), speak(MODELS)
    events = noted(ask)
    status, report = await ask("POST", "/admin/servers/test", {"endpoint_url": lab.url, "api_key": SECRET})
    assert (status, report["url"], report["passed"], report["reason"]) == (200, f"{lab.url}/v1", True, None)
    assert [model["id"] for model in report["detected"]["models"]] == ["qwen3"]
    lab.reply = BROKEN
    _, report = await ask("POST", "/admin/servers/test", {"endpoint_url": lab.url})
    assert (report["passed"], report["reason"]) == (False, "`/v1/models` answered 500")
    assert (await ask.ids(), events) == ([], [])


@pytest.mark.parametrize("kind", ["json", "csv", "ndjson"])
async def test_bad_cursor_is_refused_before_a_download(run_gateway: Run, kind: str) -> None:
    ask = await run_gateway()
    status, body = await ask("GET", f"/admin/history?cursor=0&format={kind}")
    assert (status, body["error"]["param"]) == (400, "cursor")


async def test_body_that_was_not_read_harms_nobody(run_gateway: Run) -> None:
    """Most clients send head and body one after the other; the reply to a head may be quicker."""
    ask = await run_gateway()
    host, _, port = ask.netloc.partition(":")
    head = f"HTTP/1.1\r\nHost: {ask.netloc}\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n".encode()
    with trio.fail_after(10):
        async with await trio.open_tcp_stream(host, int(port)) as client:
            for _ in range(3):
                await client.send_all(b"POST /admin/register " + head)
                assert await answered(client) == b"415"
                await client.send_all(b"body")
            await client.send_all(b"POST /admin/register " + head)
            assert await answered(client) == b"415"
            assert await client.receive_some() == b""  # a body that never comes is not waited for


async def answered(client: trio.SocketStream) -> bytes:
    """The status of one reply with an envelope."""
    received = b""
    while not received.endswith(b"}}"):
        data = await client.receive_some()
        assert data
        received += data
    return received[9:12]
