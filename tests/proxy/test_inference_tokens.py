"""Token limits: reserved before, and settled however a request ends."""

from typing import Any

import pytest
import trio
from quiver.proxy.registry import Call
from quiver.proxy.reply import Reply
from quiver.proxy.testing import ScriptedBackend
from quiver.schemas import errors
from quiver.schemas.config import Config, Key, Limits
from quiver.schemas.errors import ApiError
from trio.testing import MockClock, wait_all_tasks_blocked

from .conftest import Exchanges, Start, records
from .scripts import (
    ALICE,
    BOB,
    SHARED,
    STREAM,
    WORDS,
    ask,
    ask_and_leave,
    code_of,
    counted,
    failing,
    forever,
    streamed,
    uncounted,
)

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
