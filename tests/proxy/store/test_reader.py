"""Questions end: with an answer, at their time limit, or when nobody waits for them any more."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from quiver.proxy.store.connection import Connection
from quiver.proxy.store.history import reader
from quiver.proxy.store.history.reader import CONNECTIONS, Reader
from quiver.schemas.errors import ApiError

# Some minutes' work for SQLite.
ENDLESS = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT json(count(*)) FROM n WHERE x < 0"
WAIT = 10


@pytest.fixture
async def questions(tmp_path: Path) -> AsyncIterator[Reader]:
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    found = Reader(path, Connection(sqlite3.connect(":memory:", check_same_thread=False)))
    yield found
    found.close()
    await found._shared.close()


async def test_answer_is_decoded(questions: Reader) -> None:
    assert await questions.ask("SELECT json_array(?, 2)", [1], list[int]) == [1, 2]


async def test_question_ends_with_its_asker(questions: Reader) -> None:
    with trio.fail_after(WAIT):
        with trio.move_on_after(0.1) as asker:
            await questions.ask(ENDLESS, [], int)
        assert asker.cancelled_caught
        assert await questions.ask("SELECT '1'", [], int) == 1


async def test_long_question_is_given_up(questions: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "TIMEOUT", 0.1)
    with trio.fail_after(WAIT), pytest.raises(ApiError) as caught:
        await questions.ask(ENDLESS, [], int)
    assert caught.value.kind.code == "query_timeout"


async def test_long_questions_leave_room(questions: Reader) -> None:
    with trio.fail_after(WAIT):
        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS - 1):
                nursery.start_soon(questions.ask, ENDLESS, [], int)
            await trio.sleep(0.05)
            assert await questions.ask("SELECT '1'", [], int) == 1
            nursery.cancel_scope.cancel()


async def test_nothing_can_be_written(questions: Reader) -> None:
    with pytest.raises(ApiError) as caught:
        await questions.ask("INSERT INTO t VALUES (1) RETURNING '1'", [], int)
    assert caught.value.kind.code == "store_unavailable"


async def test_failure_is_said(questions: Reader) -> None:
    assert await questions.ask("SELECT '1'", [], int) == 1
    with pytest.raises(ApiError, match="cannot be read"):
        await questions.ask("SELECT nonsense", [], int)
