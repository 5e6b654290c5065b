"""A remote server behind a scripted connection: what is sent to it, and what becomes of everything it may answer."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import inf
from random import Random

import msgspec
import pytest
import trio
from quiver.proxy.network import Acceptor, Address, Wire
from quiver.proxy.registry import Call
from quiver.proxy.remote.backend import MAX_LIST, RemoteServer
from quiver.proxy.remote.health import check
from quiver.proxy.reply import Reply
from quiver.proxy.testing import RecordingDownstream, SimulatedNetwork, fixed_world
from quiver.proxy.watch import Watch
from quiver.schemas.config import Capabilities, Health, Limits
from quiver.schemas.config import RemoteBackend as RemoteConfig
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import MOST_MODELS, Usage
from trio.testing import MockClock

from ..servers import events, response

BODY = b'{"model": "m",  "messages": [], "unknown": {"kept": 1e3}}'
JSON_REPLY = b'{"id": "x", "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}'


class ScriptedServer:
    """Reads a request, answers the next bytes of its script, and closes after an answer that ends in `None`."""

    def __init__(self, script: Sequence[bytes | None]) -> None:
        self._script = list(script)
        self.requests: list[bytes] = []
        self.connections = 0
        self.departed = trio.Event()

    async def run(self, acceptor: Acceptor) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                for wire in await acceptor.accept():
                    nursery.start_soon(self._serve, wire)

    async def _serve(self, wire: Wire) -> None:
        self.connections += 1
        async with wire:
            while await self._read_request(wire):
                answer = self._script.pop(0)
                if answer is None:
                    return
                await wire.send_all(answer)
                if self._script and self._script[0] is None:
                    self._script.pop(0)
                    break
        self.departed.set()

    async def _read_request(self, wire: Wire) -> bool:
        received = b""
        while b"\r\n\r\n" not in received or not received.endswith((b"}", b"\r\n\r\n")):
            data = await wire.receive_some()
            if not data:
                self.departed.set()
                return False
            received += data
        self.requests.append(received)
        return True


@asynccontextmanager
async def serving(
    *script: bytes | None, limits: Limits | None = None, models: tuple[str, ...] = ("m",)
) -> AsyncIterator[tuple[ScriptedServer, RemoteServer]]:
    """A scripted server and the backend that talks to it."""
    server, network = ScriptedServer(script), SimulatedNetwork(Random(1))
    (acceptor,) = await network.listen("10.0.0.1", 9000)

    async def open_wire(host: str, port: int) -> Wire:
        return await network.connect(Address(host, port))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, acceptor)
        config = RemoteConfig(url="http://10.0.0.1:9000", name="remote", models=models, api_key="upstream-key")
        remote = RemoteServer(config, limits or Limits(), Health(), fixed_world(), open_wire)
        yield server, remote
        remote.close()
        nursery.cancel_scope.cancel()
    acceptor.close()


def call(*headers: tuple[bytes, bytes], stream: bool = False, tokens: int = 0, reply_tokens: int = 0) -> Call:
    return Call("chat/completions", "m", stream, BODY, headers, "req_1", "", tokens, reply_tokens)


async def forward(
    remote: RemoteServer, what: Call | None = None, downstream: RecordingDownstream | None = None
) -> tuple[RecordingDownstream, Usage | None]:
    """Forward a call, guarded as an exchange is, so that its time limits are minded."""
    downstream = downstream or RecordingDownstream()
    reply, watch = Reply(downstream, "req_1"), Watch(trio.current_time(), inf)
    failure: ApiError | None = None
    async with trio.open_nursery() as nursery:
        watch.begin_guard(nursery, downstream, reply)
        try:
            await remote.forward(what or call(), reply, watch)
        except ApiError as error:
            failure = error
        finally:
            await watch.close()
    if failure is not None:
        raise failure
    return downstream, reply.usage


async def test_body_travels_untouched(autojump_clock: MockClock) -> None:
    async with serving(response(b"200 OK", JSON_REPLY)) as (server, remote):
        headers = [(b"content-type", b"application/json"), (b"x-custom", b"yes"), (b"traceparent", b"00-ab")]
        private = [(b"authorization", b"Bearer client-key"), (b"cookie", b"c=1"), (b"x-forwarded-for", b"10.0.0.1")]
        downstream, usage = await forward(remote, call(*headers, *private, (b"connection", b"x-hop"), (b"x-hop", b"1")))
    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert body == BODY
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    lowered = head.lower()
    assert b"authorization: bearer upstream-key" in lowered
    assert b"x-custom: yes" in lowered
    assert b"traceparent: 00-ab" in lowered
    assert [word for word in (b"client-key", b"cookie", b"forwarded", b"x-hop") if word in lowered] == []
    assert (downstream.status, downstream.body, usage) == (200, JSON_REPLY, Usage(1, 2, 3))
    assert remote.health == "healthy"


@pytest.mark.parametrize(
    ("request_id", "told"),
    [("6f1c2d3e-0000-4000-8000-0123456789ab", True), ("mine", False), ("req_" + "0" * 32, False)],
)
async def test_only_uuids_are_told(request_id: str, told: bool, autojump_clock: MockClock) -> None:
    """llama-cpp-python's server answers 400 to an `X-Request-ID` that is no UUID."""
    async with serving(response(b"200 OK", JSON_REPLY)) as (server, remote):
        await forward(remote, Call("chat/completions", "m", False, BODY, [], request_id, ""))
    assert (b"x-request-id: " + request_id.encode() in server.requests[0].lower()) == told


async def test_connection_is_reused(autojump_clock: MockClock) -> None:
    reply = response(b"200 OK", JSON_REPLY)
    async with serving(reply, reply, reply) as (server, remote):
        for _ in range(3):
            await forward(remote)
        assert (server.connections, len(server.requests)) == (1, 3)


async def test_stale_connection_is_replaced(autojump_clock: MockClock) -> None:
    reply = response(b"200 OK", JSON_REPLY)
    async with serving(reply, None, reply) as (server, remote):
        await forward(remote)
        await server.departed.wait()
        downstream, _ = await forward(remote)
        assert (downstream.status, server.connections) == (200, 2)


async def test_stream_is_relayed_with_usage(autojump_clock: MockClock) -> None:
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}\n\n'
    pieces = (b"data: on", b"e\n\n", usage, b"data: [DONE]\n\n")
    async with serving(events(*pieces)) as (_, remote):
        downstream, found = await forward(remote, call(stream=True))
    assert downstream.body == b"".join(pieces)
    assert found == Usage(1, 2, 3)
    assert downstream.ended


@pytest.mark.parametrize("tokens", [10**10, 10**30, -5])
async def test_figures_that_cannot_be_are_none(tokens: int, autojump_clock: MockClock) -> None:
    """Budgets, sums and the database are made of them."""
    body = b'{"usage": {"prompt_tokens": 1, "completion_tokens": %d, "total_tokens": 3}}' % tokens
    async with serving(response(b"200 OK", body), events(b"data: " + body + b"\n\n", b"data: [DONE]\n\n")) as (
        _,
        remote,
    ):
        downstream, usage = await forward(remote)
        assert (downstream.body, usage) == (body, None)
        _, counted = await forward(remote, call(stream=True))
    assert counted is not None
    assert 0 < counted.completion_tokens < 10


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (b"400 Bad Request", b'{"error": {"message": "too long", "type": "t", "code": "c"}}', "too long"),
        (b"404 Not Found", b"<html>nope</html>", "answered 404: <html>nope</html>"),
    ],
)
async def test_refusals_are_passed_on(status: bytes, body: bytes, message: str, autojump_clock: MockClock) -> None:
    async with serving(response(status, body)) as (_, remote):
        downstream, _usage = await forward(remote)
    assert downstream.status == int(status[:3])
    assert message in msgspec.json.decode(downstream.body)["error"]["message"]
    assert remote.health == "healthy", "a server that finds a client's mistake is there and works"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], 1),
        ([b"Retry-After: 7"], 7),
        ([b"Retry-After: 0.5"], 1),
        ([b"Retry-After: Sat, 21 Nov 2026 10:00:00 GMT"], 1),
    ],
)
async def test_busy_server_gets_its_pause(headers: list[bytes], seconds: int, autojump_clock: MockClock) -> None:
    async with serving(response(b"429 Too Many Requests", b"", *headers)) as (_, remote):
        with pytest.raises(ApiError) as caught:
            await forward(remote)
        now = trio.current_time()
    assert caught.value.kind.code == "upstream_busy"
    assert remote.paused_until("m") - now == seconds
    assert remote.paused_until("other") == 0, "only the model that was asked for is paused"
    assert remote.health == "unknown", "being busy is no failure, and no success"


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden"])
async def test_refused_credential_disables(status: bytes, autojump_clock: MockClock) -> None:
    body = b'{"error": {"message": "bad key sk-secret", "type": "t", "code": "c"}}'
    async with serving(response(status, body)) as (_, remote):
        with pytest.raises(ApiError) as caught:
            await forward(remote)
        assert remote.tier(trio.current_time()) == 3
    assert caught.value.kind.code == "upstream_unauthorized"
    assert "sk-secret" not in caught.value.message
    assert remote.circuit.state == "disabled"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ([response(b"500 Oops", b"boom")], "upstream_error"),
        ([None], "upstream_truncated"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", None], "upstream_truncated"),
        ([b"garbage\r\n\r\n"], "upstream_malformed"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"], "upstream_malformed"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"], "upstream_malformed"),
    ],
)
async def test_faults_are_the_servers(script: list[bytes | None], code: str, autojump_clock: MockClock) -> None:
    async with serving(*script) as (_, remote):
        with pytest.raises(ApiError) as caught:
            await forward(remote)
    assert (caught.value.kind.code, caught.value.kind.fault) == (code, "upstream")
    assert remote.health == "unhealthy"


async def test_cut_stream_is_an_error_after_whole_events(autojump_clock: MockClock) -> None:
    script = events(b"data: one\n\n", b"data: tw").removesuffix(b"0\r\n\r\n")
    async with serving(script, None) as (_, remote):
        downstream = RecordingDownstream()
        with pytest.raises(ApiError) as caught:
            await forward(remote, call(stream=True), downstream)
    assert downstream.body == b"data: one\n\n"
    assert caught.value.kind.code == "upstream_truncated"


async def test_refused_connection_is_unreachable(autojump_clock: MockClock) -> None:
    async with serving() as (_, remote):
        pass
    with pytest.raises(ApiError) as caught:
        await forward(remote)
    assert caught.value.kind.code == "upstream_unreachable"
    assert caught.value.message.endswith("connection refused")


@pytest.mark.parametrize("limits", [Limits(first_byte=5), Limits(idle=5)])
async def test_silence_times_out(limits: Limits, autojump_clock: MockClock) -> None:
    answer = b"" if limits.first_byte == 5 else b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"
    async with serving(answer or b"HT", limits=limits) as (_, remote):
        with pytest.raises(ApiError) as caught:
            await forward(remote)
    assert caught.value.kind.code == "upstream_timeout"
    assert trio.current_time() == pytest.approx(5, abs=0.1)
    assert remote.statistics().busy == 0


async def test_cancellation_closes_upstream(autojump_clock: MockClock) -> None:
    async with serving(events(b"data: one\n\n").removesuffix(b"0\r\n\r\n")) as (server, remote):
        with trio.move_on_after(1):
            await forward(remote, call(stream=True))
        with trio.fail_after(5):
            await server.departed.wait()


@pytest.mark.parametrize(
    ("reply", "state", "models"),
    [
        (
            response(b"200 OK", b'{"object": "list", "data": [{"id": "a"}, {"id": "bad name"}, {"id": "a"}]}'),
            "healthy",
            ("a",),
        ),
        (response(b"200 OK", b'{"data": "no"}'), "suspect", ()),
        (response(b"200 OK", b"not json"), "suspect", ()),
        (response(b"500 Oops", b""), "suspect", ()),
        (response(b"404 Not Found", b""), "suspect", ()),
        (response(b"401 Unauthorized", b""), "disabled", ()),
        pytest.param(
            response(b"200 OK", b'{"data": [' + b",".join([b'{"id": "x"}'] * (MOST_MODELS + 1)) + b"]}"),
            "suspect",
            (),
            id="too many",
        ),
        pytest.param(response(b"200 OK", b'{"data": [{"id": "x"}]}'.ljust(MAX_LIST + 1)), "suspect", (), id="too long"),
    ],
)
async def test_check_finds_models(reply: bytes, state: str, models: tuple[str, ...], autojump_clock: MockClock) -> None:
    found: list[tuple[str, ...]] = []
    async with serving(reply, response(b"404 Not Found", b""), models=()) as (server, remote):
        remote.found = lambda: found.append(remote.models)
        passed = await check(remote, Health())
    assert (remote.circuit.state, remote.models, passed) == (state, models, state == "healthy")
    assert server.requests[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"authorization: Bearer upstream-key\r\n" in server.requests[0]
    assert found[-1:] == [models]


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"no HTTP"], ids=["silent", "broken"]
)
async def test_figures_do_not_fail_a_check(autojump_clock: MockClock, answer: bytes) -> None:
    listed, figures = response(b"200 OK", b'{"data": []}'), response(b"200 OK", b"vllm:num_requests_running 3\n")
    async with serving(listed, figures, listed, answer, listed) as (_, remote):
        assert await check(remote, Health(timeout=3))
        told = [remote.load.reported]
        for _ in range(2):
            assert await check(remote, Health(timeout=3))
            told.append(remote.load.reported)
        assert told == [3, None, None], "what it said before is old"
        assert remote.health == "healthy"


async def test_check_asks_for_load(autojump_clock: MockClock) -> None:
    listed, figures = response(b"200 OK", b'{"data": []}'), response(b"200 OK", b"vllm:num_requests_running 3\n")
    async with serving(listed, figures, listed, response(b"404 Not Found", b""), listed, listed) as (server, remote):
        await remote.probe()
        assert remote.load.reported == 3
        await remote.probe()
        assert remote.load.reported is None
        for _ in range(2):
            await remote.probe()
    asked = [request.split()[1] for request in server.requests]
    assert asked == [b"/v1/models", b"/metrics"] * 2 + [b"/v1/models"] * 2, "who once does not tell is not asked again"


@pytest.mark.parametrize(
    ("capabilities", "wanted", "takes", "fits"),
    [
        (Capabilities(), call(stream=True), True, True),
        (Capabilities(streaming=False), call(), True, True),
        (Capabilities(streaming=False), call(stream=True), False, True),
        (Capabilities(endpoints=("embeddings",)), call(), False, True),
        (Capabilities(context_length=100), call(tokens=100), True, True),
        (Capabilities(context_length=100), call(tokens=101), True, False),
        (Capabilities(max_tokens=10), call(reply_tokens=10), True, True),
        (Capabilities(max_tokens=10), call(reply_tokens=11), True, False),
    ],
)
async def test_capabilities_bound_calls(capabilities: Capabilities, wanted: Call, takes: bool, fits: bool) -> None:
    async def open_wire(host: str, port: int) -> Wire:
        raise AssertionError("nothing is sent")

    config = RemoteConfig(url="http://10.0.0.1:9000", models=("m",), capabilities=capabilities)
    remote = RemoteServer(config, Limits(), Health(), fixed_world(), open_wire)
    assert (remote.takes(wanted), remote.fits(wanted)) == (takes, fits)
