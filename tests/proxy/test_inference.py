"""How a request is carried to an answer: attempts, names, keys, and what a server may ask for."""

import msgspec
import pytest
import trio
from quiver.proxy.remote.backend import RemoteServer
from quiver.proxy.testing import RecordingDownstream, ScriptedBackend, request
from quiver.schemas import errors
from quiver.schemas.config import Config, Limits, Policy, Retries, Routing
from trio.testing import MockClock

from .conftest import Start, records
from .scripts import (
    ALICE,
    ANSWER,
    BOB,
    BODY,
    KEYS,
    LAST,
    OK,
    STREAM,
    WHOLE,
    WORDS,
    ask,
    code_of,
    failing,
    forever,
    saying,
    whole,
)
from .servers import Asked, Farm, Said, events, response

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
