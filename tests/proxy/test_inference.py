"""How a request is carried to an answer: attempts, fallbacks, pauses, priorities, queues, token limits, shared answers."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
from quiver.proxy.registry import Call
from quiver.proxy.remote.backend import RemoteServer
from quiver.proxy.reply import DownstreamGone, Reply
from quiver.proxy.testing import RecordingDownstream, ScriptedBackend, request
from quiver.schemas import errors
from quiver.schemas.config import Admission, Config, Key, Limits, Policy, Retries, Reuse, Routing
from quiver.schemas.errors import ApiError, ErrorKind
from quiver.schemas.openai import Usage
from trio.testing import MockClock, wait_all_tasks_blocked

from .conftest import Exchanges, Start, records
from .servers import Asked, Farm, Said, events, response

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
STREAM = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
SHARED = b'{"model": "m", "stream": true, "temperature": 0, "messages": [{"role": "user", "content": "hi"}]}'
SHARED_JSON = SHARED.replace(b'"stream": true, ', b"")
WORDS = [b'data: {"n": %d}\n\n' % number for number in range(5)]
LAST = b"data: [DONE]\n\n"
ANSWER = b"".join(WORDS) + LAST
WHOLE = response(b"200 OK", b'{"ok": true}')
OK = Said(WHOLE)
ALICE, BOB = (b"authorization", b"Bearer sk-alice-key"), (b"authorization", b"Bearer sk-bob-key")


async def whole(call: Call, reply: Reply) -> None:
    await reply.complete(200, b'{"ok": true}')
    reply.usage = Usage(3, 4, 7)


async def streamed(call: Call, reply: Reply) -> None:
    """Five words, one a second, and the end."""
    for word in WORDS:
        await trio.sleep(1)
        await reply.send_events(word)
    reply.usage = Usage(3, 5, 8)
    await reply.end_stream(LAST)


async def forever(call: Call, reply: Reply) -> None:
    await trio.sleep_forever()


def failing(kind: ErrorKind, after: float = 0.0) -> Any:
    async def script(call: Call, reply: Reply) -> None:
        await trio.sleep(after)
        raise ApiError(kind, "scripted failure")

    return script


def lasting(seconds: float) -> Any:
    async def script(call: Call, reply: Reply) -> None:
        await trio.sleep(seconds)
        await whole(call, reply)

    return script


def saying(said: Said) -> Any:
    return lambda asked: said


def code_of(downstream: RecordingDownstream) -> str:
    found: str = msgspec.json.decode(downstream.body)["error"]["code"]
    return found


async def ask(
    handler: Exchanges,
    body: bytes = BODY,
    *headers: tuple[bytes, bytes],
    downstream: RecordingDownstream | None = None,
    path: str = "/v1/chat/completions",
) -> RecordingDownstream:
    downstream = downstream or RecordingDownstream()
    await handler.handle(request("POST", path, body, headers), downstream)
    return downstream


async def ask_and_leave(handler: Exchanges, body: bytes, after: float, *headers: tuple[bytes, bytes]) -> None:
    """A client that leaves while it waits."""
    downstream = RecordingDownstream()

    async def leave() -> None:
        await trio.sleep(after)
        downstream.left.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        with pytest.raises(DownstreamGone):
            await ask(handler, body, *headers, downstream=downstream)


# Attempts.

CUT_EVENTS = events(*WORDS[:1]).removesuffix(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (Said(b"", cut=True), BODY),
        (Said(b"", cut=True), STREAM),
        (Said(b"HTTP/1.1 200 O", cut=True), BODY),
        (Said(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", cut=True), BODY),
        (Said(events(b"data: half").removesuffix(b"0\r\n\r\n"), cut=True), STREAM),
        (Said(response(b"500 Oops", b"boom")), BODY),
        (Said(response(b"503 Loading", b'{"error": {"message": "loading"}}')), STREAM),
        (Said(b"nonsense\r\n\r\n"), BODY),
    ],
)
async def test_failure_before_content_is_retried(
    start: Start, farm: Farm, said: Said, body: bytes, autojump_clock: MockClock
) -> None:
    good = OK if body is BODY else Said(events(*WORDS, LAST))
    (bad, _), (other, _) = await farm.add(saying(said)), await farm.add(saying(good))
    handler = await start([bad, other])
    downstream = await ask(handler, body)
    assert downstream.body == (b'{"ok": true}' if body is BODY else ANSWER)
    assert downstream.headers[b"x-gateway-server-id"] == b"b2"
    (record,) = records(handler)
    assert (record.attempts, record.outcome, record.server_id) == (2, "completed", "b2")
    assert bad.health == "unhealthy"


async def test_failure_after_content_is_told(start: Start, farm: Farm, autojump_clock: MockClock) -> None:
    (bad, _), (other, untouched) = await farm.add(saying(Said(CUT_EVENTS, cut=True))), await farm.add(saying(OK))
    handler = await start([bad, other])
    downstream = await ask(handler, STREAM)
    assert downstream.body.startswith(WORDS[0] + b'data: {"error":')
    assert b"upstream_truncated" in downstream.body
    assert (untouched.asked, downstream.ended) == ([], True)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(Said(WHOLE, after=1000), 5), (Said([WHOLE[:-5], WHOLE[-5:]], after=4), 4 + 3)],
    ids=["before the reply", "inside it"],
)
async def test_silence_before_content_is_retried(
    start: Start, farm: Farm, said: Said, seconds: float, autojump_clock: MockClock
) -> None:
    (silent, _), (good, _) = (
        await farm.add(saying(said), limits=Limits(first_byte=5, idle=3)),
        await farm.add(saying(OK)),
    )
    handler = await start([silent, good])
    began = trio.current_time()
    downstream = await ask(handler)
    assert (downstream.body, downstream.headers[b"x-gateway-server-id"]) == (b'{"ok": true}', b"b2")
    assert trio.current_time() - began == pytest.approx(seconds, abs=0.1)
    assert silent.health == "unhealthy"


async def test_silence_of_all_is_a_timeout(start: Start, farm: Farm, autojump_clock: MockClock) -> None:
    backends = [(await farm.add(saying(Said(OK.data, after=1000)), limits=Limits(first_byte=5)))[0] for _ in range(2)]
    downstream = await ask(await start(backends))
    assert (downstream.status, code_of(downstream)) == (504, "upstream_timeout")


async def test_deadline_is_no_failure_to_retry(start: Start, autojump_clock: MockClock) -> None:
    backends = [ScriptedBackend(f"b{number}", ["m"], forever) for number in range(2)]
    handler = await start(backends, Config(limits=Limits(request=10)))
    downstream = await ask(handler)
    assert (downstream.status, code_of(downstream)) == (504, "deadline_exceeded")
    assert trio.current_time() == 10
    assert sum(len(backend.calls) for backend in backends) == 1


async def test_unreachable_servers_are_told_so(start: Start, farm: Farm, autojump_clock: MockClock) -> None:
    backends = [(await farm.add(saying(OK)))[0] for _ in range(2)]
    await farm.close()
    downstream = await ask(await start(backends))
    assert (downstream.status, code_of(downstream)) == (503, "no_healthy_backend")
    assert downstream.headers[b"retry-after"] == b"5"
    assert b"10.0.0" not in downstream.body, "clients are told no addresses"


@pytest.mark.parametrize("policy", ["session_affinity", "prefix_affinity"])
async def test_affinity_keeps_conversations_together(start: Start, policy: Policy) -> None:
    backends = [ScriptedBackend(f"b{number}", ["m"], whole) for number in range(4)]
    handler = await start(backends, Config(routing=Routing(policy=policy)))
    for number in list(range(12)) * 3:
        headers = [(b"x-session-id", b"%d" % number)] if policy == "session_affinity" else []
        content = b"the same" if policy == "session_affinity" else b"conversation %d" % number
        await ask(handler, BODY.replace(b"hi", content), *headers)
    kept = [
        {call.body if policy == "prefix_affinity" else dict(call.headers)[b"x-session-id"] for call in backend.calls}
        for backend in backends
    ]
    assert sum(len(conversations) for conversations in kept) == 12, "each is with one server"
    assert sum(len(conversations) > 0 for conversations in kept) > 1


@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_attempts_are_as_configured(start: Start, attempts: int) -> None:
    backends = [ScriptedBackend(f"b{number}", ["m"], failing(errors.UPSTREAM_TRUNCATED)) for number in range(5)]
    handler = await start(backends, config=Config(retries=Retries(attempts=attempts)))
    downstream = await ask(handler)
    assert sorted(len(backend.calls) for backend in backends) == [0] * (5 - attempts) + [1] * attempts
    assert (downstream.status, code_of(downstream)) == (502, "upstream_truncated")


async def test_budget_bounds_retries(start: Start, autojump_clock: MockClock) -> None:
    backends = [ScriptedBackend(f"b{number}", ["m"], failing(errors.UPSTREAM_TRUNCATED)) for number in range(3)]
    handler = await start(backends, config=Config(retries=Retries(attempts=3, budget=0, budget_floor=3)))
    for _ in range(4):
        assert code_of(await ask(handler)) == "upstream_truncated"
    assert [record.attempts for record in records(handler)] == [3, 2, 1, 1]
    await trio.sleep(11)
    await ask(handler)
    assert records(handler)[-1].attempts == 3, "the budget is of the last ten seconds"


async def test_one_model_is_not_tried_twice_on_a_server(start: Start) -> None:
    backend = ScriptedBackend("b", ["m"], failing(errors.UPSTREAM_TRUNCATED))
    await ask(await start([backend]))
    assert len(backend.calls) == 1


async def test_endpoint_decides_who_can(start: Start) -> None:
    chat, embedder = ScriptedBackend("b1", ["m"], whole), ScriptedBackend("b2", ["m"], whole)
    chat.endpoints, embedder.endpoints = ("chat/completions",), ("embeddings",)
    handler = await start([chat, embedder])
    for _ in range(3):
        await ask(handler)
        await ask(handler, b'{"model": "m", "input": "x"}', path="/v1/embeddings")
    assert [call.endpoint for call in chat.calls] == ["chat/completions"] * 3
    assert [call.endpoint for call in embedder.calls] == ["embeddings"] * 3
    refused = await ask(handler, b'{"model": "m", "prompt": "x"}', path="/v1/completions")
    assert (refused.status, code_of(refused)) == (400, "invalid_request")


async def test_healthy_servers_go_first(start: Start) -> None:
    sick, unknown, healthy = (ScriptedBackend(f"b{number}", ["m"], whole) for number in range(3))
    sick.health, unknown.health = "unhealthy", "unknown"
    handler = await start([sick, unknown, healthy])
    for _ in range(3):
        await ask(handler)
    assert [len(backend.calls) for backend in (sick, unknown, healthy)] == [0, 0, 3]


async def test_last_server_is_never_given_up(start: Start) -> None:
    sick = ScriptedBackend("b", ["m"], whole)
    sick.health = "unhealthy"
    assert (await ask(await start([sick]))).status == 200


# Aliases and fallbacks.

ALIASED = Config(routing=Routing(aliases={"gpt": "m"}, fallbacks={"m": ("n",)}))
ODD_BODY = (
    b'{"a":1e3,"model":"gpt",  "messages":[{"role":"user","content":"\\u00e9 \\/"}],"b":{ "model" : "gpt"},"c":1.0}'
)


async def test_alias_asks_for_its_model(start: Start) -> None:
    backend = ScriptedBackend("b", ["m"], whole)
    handler = await start([backend], config=ALIASED)
    await ask(handler, ODD_BODY)
    (call,) = backend.calls
    before, after = (msgspec.json.decode(body, type=dict[str, msgspec.Raw]) for body in (ODD_BODY, call.body))
    assert bytes(after.pop("model")) == b'"m"'
    del before["model"]
    assert {name: bytes(value) for name, value in after.items()} == {
        name: bytes(value) for name, value in before.items()
    }
    assert call.model == "m"
    assert records(handler)[0].model == "gpt", "the record says what the client asked for"


@pytest.mark.parametrize(
    ("model", "first", "second"), [("m", "m", "n"), ("gpt", "m", "n")], ids=["by name", "by alias"]
)
async def test_fallback_follows_failure(start: Start, model: str, first: str, second: str) -> None:
    broken = ScriptedBackend("b1", ["m"], failing(errors.UPSTREAM_TRUNCATED))
    other = ScriptedBackend("b2", ["n"], whole)
    handler = await start([broken, other], config=ALIASED)
    downstream = await ask(handler, BODY.replace(b'"m"', b'"%b"' % model.encode()))
    assert (downstream.status, downstream.headers[b"x-gateway-server-id"]) == (200, b"b2")
    assert [call.model for call in (*broken.calls, *other.calls)] == [first, second]
    assert msgspec.json.decode(other.calls[0].body)["model"] == "n"


async def test_fallback_serves_absent_model(start: Start) -> None:
    other = ScriptedBackend("b", ["n"], whole)
    assert (await ask(await start([other], config=ALIASED))).status == 200
    assert other.calls[0].model == "n"


async def test_fallback_serves_paused_model(start: Start, farm: Farm, autojump_clock: MockClock) -> None:
    busy = Said(response(b"429 Too Many Requests", b"", b"Retry-After: 60"))
    (first, server), (second, _) = await farm.add(saying(busy)), await farm.add(saying(OK), models=("n",))
    handler = await start([first, second], config=ALIASED)
    assert [(await ask(handler)).status for _ in range(3)] == [200] * 3
    assert len(server.asked) == 1


async def test_client_fault_meets_no_fallback(start: Start) -> None:
    refusing = ScriptedBackend("b1", ["m"], failing(errors.CONTEXT_LENGTH_EXCEEDED))
    other = ScriptedBackend("b2", ["n"], whole)
    assert (await ask(await start([refusing, other], config=ALIASED))).status == 400
    assert other.calls == []


# Keys.

KEYS = (
    Key(name="alice", key="sk-alice-key", models=("m", "gpt")),
    Key(name="bob", key="sk-bob-key"),
)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "secret", "model": "m", "messages": []}',
        b'{"mod\\u0065l": "secret", "messages": [], "model": "m"}',
        b'{"model": "m", "messages": [], "Model": "secret"}',
        b'{"MODEL": "secret", "model": "m", "messages": []}',
        b'{"model": "m", "messages": [], "mod\\u0045l": "secret"}',
    ],
)
async def test_restricted_key_smuggles_no_model(start: Start, body: bytes) -> None:
    """Servers differ in which of two members counts, and some do not tell `Model` from `model`."""
    backend = ScriptedBackend("b", ["m", "secret"], whole)
    await ask(await start([backend], config=Config(keys=KEYS)), body, ALICE)
    for call in backend.calls:
        assert call.body.lower().count(b'"model"') == 1
        assert b"secret" not in call.body


async def test_unrestricted_body_is_untouched(start: Start) -> None:
    backend = ScriptedBackend("b", ["gpt"], whole)
    await ask(await start([backend], config=Config(keys=KEYS)), ODD_BODY, BOB)
    assert backend.calls[0].body is ODD_BODY


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        (b"n", 403, "model_not_allowed"),
        (b"unheard-of", 403, "model_not_allowed"),
    ],
)
async def test_model_must_be_allowed(start: Start, model: bytes, status: int, code: str) -> None:
    backend = ScriptedBackend("b", ["m", "n"], whole)
    handler = await start([backend], config=Config(keys=KEYS))
    downstream = await ask(handler, BODY.replace(b'"m"', b'"%b"' % model), ALICE)
    assert (downstream.status, code_of(downstream)) == (status, code)
    assert msgspec.json.decode(downstream.body)["error"]["param"] == "model"
    assert backend.calls == []
    assert (await ask(handler, BODY, ALICE)).status == 200
    assert (await ask(handler, BODY.replace(b'"m"', b'"n"'), BOB)).status == 200


async def test_fallback_must_be_allowed(start: Start) -> None:
    broken = ScriptedBackend("b1", ["m"], failing(errors.UPSTREAM_TRUNCATED))
    other = ScriptedBackend("b2", ["n"], whole)
    handler = await start([broken, other], config=msgspec.structs.replace(ALIASED, keys=KEYS))
    assert (await ask(handler, BODY, ALICE)).status == 502
    assert other.calls == []
    assert (await ask(handler, BODY, BOB)).status == 200


async def test_models_are_listed_by_key(start: Start) -> None:
    handler = await start([ScriptedBackend("b", ["m", "n"], whole)], config=msgspec.structs.replace(ALIASED, keys=KEYS))
    for key, models in ((ALICE, {"m", "gpt"}), (BOB, {"m", "n", "gpt"})):
        downstream = RecordingDownstream()
        await handler.handle(request("GET", "/v1/models", headers=[key]), downstream)
        assert {card["id"] for card in msgspec.json.decode(downstream.body)["data"]} == models
        for model in ("m", "n"):
            shown = RecordingDownstream()
            await handler.handle(request("GET", f"/v1/models/{model}", headers=[key]), shown)
            assert (shown.status == 200) == (model in models)


# Pauses and refused credentials.


async def test_pause_is_for_one_model_of_one_server(start: Start, farm: Farm, autojump_clock: MockClock) -> None:
    def answer(asked: Asked) -> Said:
        if asked.model == "m" and trio.current_time() < 7:
            return Said(response(b"429 Too Many Requests", b"", b"Retry-After: 7"))
        return OK

    (first, busy), (second, other) = (
        await farm.add(answer, models=("m", "n")),
        await farm.add(saying(OK)),
    )
    handler = await start([first, second])
    for _ in range(4):
        assert (await ask(handler)).status == 200
    assert (len(busy.asked), len(other.asked)) == (1, 4)
    assert (await ask(handler, BODY.replace(b'"m"', b'"n"'))).status == 200, "another model is not paused"
    assert first.health == "healthy", "a pause is no failure"
    await trio.sleep(8)
    for _ in range(4):
        await ask(handler)
    assert (len(busy.asked), len(other.asked)) == (4, 6)


async def test_all_paused_is_told_with_the_time(start: Start, farm: Farm, autojump_clock: MockClock) -> None:
    backends, servers = [], []
    for seconds in (30, 12):
        said = Said(response(b"429 Too Many Requests", b"", b"Retry-After: %d" % seconds))
        backend, server = await farm.add(saying(said))
        backends.append(backend)
        servers.append(server)
    handler = await start(backends)
    first = await ask(handler)
    assert (first.status, code_of(first)) == (429, "upstream_busy")
    began = trio.current_time()
    await trio.sleep(5)
    second = await ask(handler)
    assert (second.status, code_of(second), second.headers[b"retry-after"]) == (429, "upstream_busy", b"7")
    assert [len(server.asked) for server in servers] == [1, 1], "nobody is asked during its pause"
    assert trio.current_time() == began + 5, "the client is told at once"


async def test_end_of_pause_serves_the_queue(start: Start, farm: Farm, autojump_clock: MockClock) -> None:
    """One server is paused, the other one busy for long: who waits goes ahead when the pause is over."""
    replies = iter([Said(response(b"429 Too Many Requests", b"", b"Retry-After: 2"))])
    paused, _ = await farm.add(lambda asked: next(replies, OK))
    slow, _ = await farm.add(saying(Said(OK.data, after=100)), max_concurrency=1)
    handler = await start([paused, slow])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        downstream = await ask(handler)
        assert downstream.status == 200
        assert trio.current_time() < 5
        nursery.cancel_scope.cancel()


async def test_refused_credential_moves_on(start: Start, farm: Farm, autojump_clock: MockClock) -> None:
    refusing = Said(response(b"401 Unauthorized", b'{"error": {"message": "bad key sk-upstream"}}'))
    (first, server), (second, _) = await farm.add(saying(refusing)), await farm.add(saying(OK))
    handler = await start([first, second])
    assert [(await ask(handler)).status for _ in range(4)] == [200] * 4
    assert len(server.asked) == 1
    assert first.circuit.state == "disabled"


async def test_refused_credential_stays_inside(start: Start, farm: Farm, autojump_clock: MockClock) -> None:
    refusing = Said(response(b"403 Forbidden", b'{"error": {"message": "bad key sk-upstream"}}'))
    backend, _ = await farm.add(saying(refusing))
    downstream = await ask(await start([backend]))
    assert (downstream.status, code_of(downstream)) == (502, "upstream_unauthorized")
    assert b"sk-upstream" not in downstream.body


# Queues and priorities.


def one_at_a_time(script: Any) -> ScriptedBackend:
    backend = ScriptedBackend("b", ["m"], script)
    backend.load.limit = 1
    return backend


async def test_capacity_queues_and_grants(start: Start, autojump_clock: MockClock) -> None:
    backend = one_at_a_time(lasting(10))
    handler = await start([backend])
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask, handler)
            await trio.sleep(1)
        assert (backend.load.in_flight, len(backend.calls)) == (1, 1)
    assert trio.current_time() == 30
    assert [record.queued for record in records(handler)] == [0, 9, 18]
    assert [record.duration for record in records(handler)] == [10, 19, 28]
    assert (backend.load.in_flight, handler.admission.statistics().in_flight) == (0, 0)


async def test_full_queue_is_told(start: Start, autojump_clock: MockClock) -> None:
    handler = await start([one_at_a_time(lasting(10))], config=Config(admission=Admission(queue=1)))
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(ask, handler)
            await trio.sleep(1)
        downstream = await ask(handler)
    assert (downstream.status, code_of(downstream)) == (429, "queue_full")
    assert int(downstream.headers[b"retry-after"]) >= 1
    assert downstream.headers[b"x-queue-length"] == b"1"


async def test_long_wait_ends(start: Start, autojump_clock: MockClock) -> None:
    handler = await start([one_at_a_time(lasting(100))], config=Config(admission=Admission(max_wait=20)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        downstream = await ask(handler)
        assert trio.current_time() == 21
    assert (downstream.status, code_of(downstream)) == (503, "queue_timeout")
    assert records(handler)[0].queued == 20


async def test_new_server_serves_the_queue(start: Start, autojump_clock: MockClock) -> None:
    handler = await start([one_at_a_time(lasting(100))])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        handler.registry.add(ScriptedBackend("b2", ["m"], whole))
        await wait_all_tasks_blocked()
        assert [record.server_id for record in records(handler)] == ["b2"]


async def test_removed_server_gets_nothing_from_the_queue(start: Start, autojump_clock: MockClock) -> None:
    removed, other = one_at_a_time(lasting(10)), ScriptedBackend("b2", ["m"], lasting(30))
    other.load.limit = 1
    handler = await start([removed, other])
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask, handler)
            await trio.sleep(1)
        handler.registry.remove("b")
    assert [len(removed.calls), len(other.calls)] == [1, 2]
    assert [record.status for record in records(handler)] == [200] * 3


async def test_retry_waits_for_its_server_only(start: Start, autojump_clock: MockClock) -> None:
    """A request that failed on one server waits for the other, and keeps nobody from the first."""
    failures = iter([failing(errors.UPSTREAM_TRUNCATED)])

    async def once_failing(call: Call, reply: Reply) -> None:
        await next(failures, whole)(call, reply)

    first, second = ScriptedBackend("b1", ["m"], once_failing), ScriptedBackend("b2", ["m"], lasting(50))
    second.load.limit = 1
    handler = await start([second, first])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        assert [len(first.calls), len(second.calls)] == [1, 1]
        assert (await ask(handler)).headers[b"x-gateway-server-id"] == b"b1"
        assert trio.current_time() == 2
    assert [record.attempts for record in records(handler)] == [1, 1, 2]


async def test_wait_ends_with_its_last_server(start: Start, autojump_clock: MockClock) -> None:
    """A request that failed on one server waits for the other; when that one goes there is nothing left to wait for."""
    first, second = ScriptedBackend("b1", ["m"], failing(errors.UPSTREAM_TRUNCATED)), one_at_a_time(lasting(100))
    handler = await start([second, first])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        handler.registry.remove("b")
        await trio.sleep(1)
        assert [record.status for record in records(handler)] == [502]


async def test_queued_model_may_vanish(start: Start, autojump_clock: MockClock) -> None:
    handler = await start([one_at_a_time(lasting(100))])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        handler.registry.remove("b")
        await wait_all_tasks_blocked()
        assert [(record.status, record.error) for record in records(handler)] == [(503, "no_healthy_backend")]


@pytest.mark.parametrize(
    ("first", "second", "order"),
    [
        ((BOB, b"critical"), (ALICE, b""), ["alice", "bob"]),
        ((BOB, b""), (ALICE, b""), ["alice", "bob"]),
        ((ALICE, b"low"), (BOB, b""), ["bob", "alice"]),
    ],
    ids=["asking for more than the key has", "the key's own", "asking for less"],
)
async def test_priority_is_capped_by_key(
    start: Start,
    autojump_clock: MockClock,
    first: tuple[tuple[bytes, bytes], bytes],
    second: tuple[tuple[bytes, bytes], bytes],
    order: list[str],
) -> None:
    keys = (Key(name="alice", key="sk-alice-key", priority="high"), Key(name="bob", key="sk-bob-key"))
    handler = await start([one_at_a_time(lasting(5))], config=Config(keys=keys))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler, BODY, BOB)
        await trio.sleep(1)
        for key, priority in (first, second):
            headers = [key, (b"x-quiver-priority", priority)] if priority else [key]
            nursery.start_soon(partial(ask, handler, BODY, *headers))
            await trio.sleep(0.1)
    assert [record.client for record in records(handler)] == ["bob", *order]


async def test_unknown_priority_is_refused(start: Start) -> None:
    downstream = await ask(await start([ScriptedBackend("b", ["m"], whole)]), BODY, (b"x-quiver-priority", b"urgent"))
    assert (downstream.status, code_of(downstream)) == (400, "invalid_request")


# Token limits.

LIMITED = Config(
    keys=(Key(name="alice", key="sk-alice-key", tokens_per_minute=6000), Key(name="bob", key="sk-bob-key")),
    limits=Limits(request=50),
)
# Four bytes a token, and 256 for a reply that nobody bounded.
ESTIMATE = len(STREAM) // 4 + 256


def left_of(handler: Exchanges) -> float:
    """Tokens that Alice has now."""
    client = handler.keys.authenticate(dict([ALICE]).get, "", 0)
    assert client.tokens is not None
    return client.tokens.bucket.level(trio.current_time())


async def refused(call: Call, reply: Reply) -> None:
    await reply.complete(400, b'{"error": {"message": "no"}}')


async def uncounted(call: Call, reply: Reply) -> None:
    await reply.send_events(WORDS[0])
    await reply.end_stream(LAST)


async def counted(call: Call, reply: Reply) -> None:
    reply.usage = Usage(100, 900, 1000)
    await uncounted(call, reply)


async def breaking_off(call: Call, reply: Reply) -> None:
    await reply.send_events(WORDS[0])
    raise ApiError(errors.UPSTREAM_TRUNCATED, "cut")


@pytest.mark.parametrize(
    ("script", "charged"),
    [
        (counted, 1000),
        (uncounted, ESTIMATE),
        (failing(errors.UPSTREAM_TRUNCATED), 0),
        (failing(errors.CONTEXT_LENGTH_EXCEEDED), 0),
        (refused, 0),
        (breaking_off, 0),
    ],
    ids=["counted", "uncounted", "failed", "client's fault", "refused", "broken off"],
)
async def test_reservation_is_settled(start: Start, autojump_clock: MockClock, script: Any, charged: int) -> None:
    handler = await start([ScriptedBackend("b", ["m"], script)], config=LIMITED)
    await ask(handler, STREAM, ALICE)
    assert left_of(handler) == pytest.approx(6000 - charged)


async def test_tokens_are_reserved_meanwhile(start: Start, autojump_clock: MockClock) -> None:
    handler = await start([ScriptedBackend("b", ["m"], forever)], config=LIMITED)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler, STREAM, ALICE)
        await wait_all_tasks_blocked()
        assert left_of(handler) == pytest.approx(6000 - ESTIMATE)
    assert [record.error for record in records(handler)] == ["deadline_exceeded"]
    assert left_of(handler) == pytest.approx(6000)


@pytest.mark.parametrize(("script", "charged"), [(forever, 0), (streamed, 3000)], ids=["waiting", "reading"])
async def test_departed_client_is_settled(start: Start, autojump_clock: MockClock, script: Any, charged: int) -> None:
    handler = await start([ScriptedBackend("b", ["m"], script)], config=LIMITED)
    await ask_and_leave(handler, STREAM.replace(b'"m"', b'"m", "max_tokens": 3000'), 2.5, ALICE)
    assert left_of(handler) == pytest.approx(6000 - charged, abs=250), "the bucket fills up by 100 a second meanwhile"
    assert records(handler)[0].outcome == "client_gone"


async def test_reused_answer_costs_nothing(start: Start, autojump_clock: MockClock) -> None:
    handler = await start([ScriptedBackend("b", ["m"], counted)], config=LIMITED)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask, handler, SHARED, ALICE)
    assert left_of(handler) == pytest.approx(5000)
    await ask(handler, SHARED, ALICE)
    assert left_of(handler) == pytest.approx(5000)
    assert sorted(record.source for record in records(handler)) == ["cache", "server", *["shared"] * 4]


async def test_too_many_tokens_are_refused(start: Start, autojump_clock: MockClock) -> None:
    backend = ScriptedBackend("b", ["m"], counted)
    handler = await start([backend], config=LIMITED)
    body = STREAM.replace(b'"stream"', b'"max_tokens": 5900, "stream"')
    assert (await ask(handler, body, ALICE)).status == 200
    second = await ask(handler, body, ALICE)
    assert (second.status, code_of(second)) == (429, "token_limit_exceeded")
    await trio.sleep(int(second.headers[b"retry-after"]))
    assert (await ask(handler, body, ALICE)).status == 200
    huge = await ask(handler, body.replace(b"5900", b"59000"), ALICE)
    assert (huge.status, code_of(huge), b"retry-after" in huge.headers) == (429, "token_limit_exceeded", False)
    assert (await ask(handler, body, BOB)).status == 200
    assert len(backend.calls) == 3


# Shared answers.


async def test_twenty_share_one_call(start: Start, autojump_clock: MockClock) -> None:
    backend = ScriptedBackend("b", ["m"], streamed)
    handler = await start([backend])
    clients = [RecordingDownstream() for _ in range(20)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(partial(ask, handler, SHARED, downstream=client))
            await trio.sleep(0.2)
    assert len(backend.calls) == 1
    assert {client.body for client in clients} == {ANSWER}
    assert {client.headers[b"x-gateway-server-id"] for client in clients} == {b"b"}
    assert len({client.headers[b"x-request-id"] for client in clients}) == 20
    assert [client.headers[b"x-quiver-cache"] for client in clients] == [b"miss"] + [b"shared"] * 19
    assert [(record.usage, record.outcome) for record in records(handler)] == [(Usage(3, 5, 8), "completed")] * 20
    kept = await ask(handler, SHARED)
    assert (kept.body, kept.headers[b"x-quiver-cache"], len(backend.calls)) == (ANSWER, b"hit", 1)
    assert sum(record.attempts for record in records(handler)) == 1


async def test_leader_may_leave(start: Start, autojump_clock: MockClock) -> None:
    backend = ScriptedBackend("b", ["m"], streamed)
    handler = await start([backend])
    followers = [RecordingDownstream() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_and_leave, handler, SHARED, 2.5)
        await trio.sleep(1.5)
        for follower in followers:
            nursery.start_soon(partial(ask, handler, SHARED, downstream=follower))
    assert [follower.body for follower in followers] == [ANSWER] * 3
    assert len(backend.calls) == 1
    assert [record.outcome for record in records(handler)] == ["client_gone"] + ["completed"] * 3


async def test_last_leaver_ends_the_call(start: Start, autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def watched(call: Call, reply: Reply) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    backend = ScriptedBackend("b", ["m"], watched)
    handler = await start([backend])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_and_leave, handler, SHARED, 2)
        nursery.start_soon(ask_and_leave, handler, SHARED, 5)
    await wait_all_tasks_blocked()
    assert ended == pytest.approx([5], abs=0.1)
    assert (handler.reuse.statistics().in_flight, backend.load.in_flight) == (0, 0)


async def test_shared_failure_is_everyones(start: Start, autojump_clock: MockClock) -> None:
    backend = ScriptedBackend("b", ["m"], failing(errors.UPSTREAM_TRUNCATED, after=2))
    handler = await start([backend])
    clients = [RecordingDownstream() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(partial(ask, handler, SHARED, downstream=client))
    assert [(client.status, code_of(client)) for client in clients] == [(502, "upstream_truncated")] * 3
    backend_calls = len(backend.calls)
    await ask(handler, SHARED)
    assert len(backend.calls) == backend_calls + 1, "a failure is not kept"


async def test_shared_failure_is_retried_first(start: Start, autojump_clock: MockClock) -> None:
    broken, other = (
        ScriptedBackend("b1", ["m"], failing(errors.UPSTREAM_TRUNCATED, 1)),
        ScriptedBackend("b2", ["m"], streamed),
    )
    handler = await start([broken, other])
    clients = [RecordingDownstream() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(partial(ask, handler, SHARED, downstream=client))
    assert [client.body for client in clients] == [ANSWER] * 3
    assert {client.headers[b"x-gateway-server-id"] for client in clients} == {b"b2"}


async def test_shared_fault_tells_no_detail(start: Start) -> None:
    async def fault(call: Call, reply: Reply) -> None:
        raise ZeroDivisionError("the secret detail")

    downstream = await ask(await start([ScriptedBackend("b", ["m"], fault)]), SHARED_JSON)
    assert (downstream.status, code_of(downstream)) == (500, "internal_error")
    assert b"secret detail" not in downstream.body


async def test_shared_wait_has_heartbeats(start: Start, autojump_clock: MockClock) -> None:
    async def slow(call: Call, reply: Reply) -> None:
        await trio.sleep(40)
        await uncounted(call, reply)

    handler, clients = await start([ScriptedBackend("b", ["m"], slow)]), [RecordingDownstream() for _ in range(2)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(partial(ask, handler, SHARED, downstream=client))
    for client in clients:
        assert client.body == b": heartbeat\n\n" * 2 + WORDS[0] + LAST


@pytest.mark.parametrize(
    ("first", "second", "calls", "told"),
    [
        ([], [], 1, b"hit"),
        ([], [(b"cache-control", b"no-cache")], 2, b"miss"),
        ([], [(b"cache-control", b"max-age=5")], 2, b"miss"),
        ([], [(b"cache-control", b"max-age=50")], 1, b"hit"),
        ([], [(b"x-quiver-share", b"off")], 2, None),
        ([(b"cache-control", b"no-store")], [], 2, b"miss"),
        ([(b"x-quiver-share", b"off")], [], 2, b"miss"),
    ],
)
async def test_headers_rule_reuse(
    start: Start,
    autojump_clock: MockClock,
    first: Sequence[tuple[bytes, bytes]],
    second: Sequence[tuple[bytes, bytes]],
    calls: int,
    told: bytes | None,
) -> None:
    backend = ScriptedBackend("b", ["m"], whole)
    handler = await start([backend])
    await ask(handler, SHARED_JSON, *first)
    await trio.sleep(10)
    downstream = await ask(handler, SHARED_JSON, *second)
    assert (downstream.body, len(backend.calls)) == (b'{"ok": true}', calls)
    assert downstream.headers.get(b"x-quiver-cache") == told


@pytest.mark.parametrize(
    ("body", "other"),
    [
        (BODY, BODY),
        (SHARED_JSON, SHARED_JSON.replace(b"hi", b"ho")),
        (SHARED_JSON, SHARED),
        (SHARED_JSON, SHARED_JSON.replace(b'"temperature"', b'"top_p": 1, "temperature"')),
    ],
    ids=["not repeatable", "other words", "streamed or not", "other parameters"],
)
async def test_different_requests_share_nothing(start: Start, body: bytes, other: bytes) -> None:
    backend = ScriptedBackend("b", ["m"], whole)
    handler = await start([backend])
    for asked in (body, other):
        await ask(handler, asked)
    assert len(backend.calls) == 2


async def test_keys_share_nothing(start: Start, autojump_clock: MockClock) -> None:
    async def named(call: Call, reply: Reply) -> None:
        await trio.sleep(1)
        await reply.complete(200, b'{"n": %d}' % len(backend.calls))

    backend = ScriptedBackend("b", ["m"], named)
    handler = await start([backend], config=Config(keys=KEYS))
    async with trio.open_nursery() as nursery:
        for key in (ALICE, BOB):
            nursery.start_soon(ask, handler, SHARED_JSON, key)
    assert len(backend.calls) == 2, "nothing in flight is shared"
    scopes = {call.scope for call in backend.calls}
    assert len(scopes) == 2
    assert not any(b"key" in scope.encode() for scope in scopes)
    await ask(handler, SHARED_JSON, ALICE)
    assert len(backend.calls) == 2, "each has what was made for it"


async def test_sharing_may_be_off(start: Start, autojump_clock: MockClock) -> None:
    backend = ScriptedBackend("b", ["m"], lasting(1))
    handler = await start([backend], config=Config(reuse=Reuse(share=False, cache=False)))
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(ask, handler, SHARED_JSON)
    assert len(backend.calls) == 2


async def test_shared_request_may_queue(start: Start, autojump_clock: MockClock) -> None:
    handler = await start([one_at_a_time(lasting(10))])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        for _ in range(3):
            nursery.start_soon(ask, handler, SHARED_JSON)
    assert trio.current_time() == 20
    assert [record.status for record in records(handler)] == [200] * 4


async def test_slow_client_is_not_the_servers_fault(start: Start, farm: Farm, autojump_clock: MockClock) -> None:
    """While the client takes its time with what it got, the server is not being waited for."""

    class Slow(RecordingDownstream):
        async def send_data(self, data: bytes) -> None:
            await trio.sleep(400)
            await super().send_data(data)

    whole_reply = events(*WORDS, LAST)
    pieces = [whole_reply[place : place + 60] for place in range(0, len(whole_reply), 60)]
    backend, _ = await farm.add(saying(Said(pieces, after=1)))
    handler, downstream = await start([backend], config=Config(limits=Limits(request=3600))), Slow()
    await ask(handler, STREAM, downstream=downstream)
    assert downstream.body.count(b"data: {") == 5
    assert isinstance(backend, RemoteServer)
    assert backend.health == "healthy"
