"""How much is logged, and that a change for a while goes back by itself."""

import pytest
import trio
from quiver.proxy.telemetry.journal import Journal
from quiver.proxy.telemetry.levels import ALL, DEBUG, ERROR, INFO, TRACE, WARNING, Levels
from quiver.proxy.testing import fixed_world
from quiver.schemas.events import Event


@pytest.fixture
def levels() -> Levels:
    found = Levels()
    found.configure("info", {"health": "debug", "request": "error"})
    return found


def test_own_level_comes_first(levels: Levels) -> None:
    assert [levels.of(name) for name in ("health", "request", "other")] == [DEBUG, ERROR, INFO]
    assert levels.least == DEBUG
    assert (levels.common, levels.own()) == ("info", {"health": "debug", "request": "error"})


def test_change_lasts(levels: Levels) -> None:
    told: list[int] = []
    levels.changed = lambda: told.append(levels.least)
    levels.change("health", None)
    levels.change(ALL, "warning")
    levels.change("x", "trace")
    assert [levels.of(name) for name in ("health", "request", "x")] == [WARNING, ERROR, TRACE]
    assert told == [INFO, WARNING, TRACE]


def test_same_configuration_leaves_changes(levels: Levels) -> None:
    levels.change("x", "trace")
    levels.reconfigure("info", {"health": "debug", "request": "error"})
    assert levels.of("x") == TRACE
    levels.reconfigure("warning", {})
    assert (levels.of("x"), levels.own()) == (WARNING, {})


async def test_passing_change_goes_back(levels: Levels, autojump_clock: trio.testing.MockClock) -> None:
    journal, events = Journal(fixed_world()), list[Event]()
    journal.keep = events.append
    async with trio.open_nursery() as nursery:
        nursery.start_soon(levels.go_back, journal)
        await trio.sleep(1)
        levels.change("health", "error", 10)
        levels.change(ALL, "debug", 20)
        levels.change("new", "trace", 30)
        assert levels.passing().keys() == {"health", ALL, "new"}
        await trio.sleep(5)
        levels.change("health", "warning", 10)  # the same again: it still goes back to what it was at first
        found = []
        for _ in range(4):
            found.append((levels.of("health"), levels.of("other"), levels.of("new")))
            await trio.sleep(10.5)
        found.append((levels.of("health"), levels.of("other"), levels.of("new")))
        nursery.cancel_scope.cancel()
    assert found == [
        (WARNING, DEBUG, TRACE),
        (DEBUG, DEBUG, TRACE),
        (DEBUG, INFO, TRACE),
        (DEBUG, INFO, INFO),
        (DEBUG, INFO, INFO),
    ]
    assert [(event.kind, event.subject) for event in events] == [
        ("log.level", "health"),
        ("log.level", ALL),
        ("log.level", "new"),
    ]
    assert (levels.least, levels.passing()) == (DEBUG, {})


async def test_lasting_change_ends_passing_one(levels: Levels, autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(levels.go_back, Journal(fixed_world()))
        await trio.sleep(1)
        levels.change("health", "error", 10)
        levels.change("health", "critical")
        await trio.sleep(100)
        assert levels.own()["health"] == "critical"
        nursery.cancel_scope.cancel()
