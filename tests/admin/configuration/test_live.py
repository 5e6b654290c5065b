"""A running gateway's configuration: files that change, vanish, come back and are half written, on a virtual clock."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio
from quiver.admin.configuration.complaint import SettingsError
from quiver.admin.configuration.live import POLL, LiveConfiguration
from quiver.admin.configuration.settings import Sources
from quiver.proxy.gateway import Gateway
from quiver.proxy.reconfigure import Refused
from quiver.proxy.seams import offload_runner
from quiver.proxy.testing import fixed_world
from quiver.schemas.events import Event
from trio.testing import MockClock

FILE = "[engine]\nbolt = false\n[limits]\nrequest = {}\n"
# A change is seen by one look, confirmed by the next, and the first may be a whole pause away.
SOON = 3 * POLL + 0.1


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def _at_once(fn: Any, *args: object) -> object:
    await trio.lowlevel.checkpoint()
    return fn(*args)


def put(text: str, name: str = "quiver.toml") -> None:
    """Write a file as careful editors do; the clock that files have may be too coarse to tell two versions apart."""
    new = Path(f"{name}.new")
    new.write_text(text)
    new.rename(name)


def drop(name: str) -> None:
    Path(name).unlink()


class Live:
    """A gateway with its configuration, and the events it notes."""

    def __init__(self, sources: Sources) -> None:
        loaded = sources.read()
        self.gateway = Gateway(loaded.config, fixed_world(), lambda batch: None, on_loopback=True)
        self.events: list[Event] = []
        self.gateway.journal.keep = self.events.append
        self.configuration = LiveConfiguration(self.gateway, loaded, sources)

    @property
    def request(self) -> float:
        return self.gateway.config.limits.request

    def noted(self) -> list[tuple[str, str]]:
        return [(event.kind, event.subject) for event in self.events]


@pytest.fixture
async def live(nursery: trio.Nursery) -> Live:
    offload_runner.set(_at_once)
    put(FILE.format(300))
    live = Live(Sources(environ={}))
    nursery.start_soon(live.configuration.watch)
    await trio.sleep(POLL / 2)
    return live


async def test_changed_file_takes_effect(live: Live, autojump_clock: MockClock) -> None:
    put(FILE.format(200))
    await trio.sleep(SOON)
    assert live.request == 200
    (event,) = live.events
    assert (event.kind, event.subject, event.details) == (
        "config.changed",
        "limits.request",
        {"before": 300.0, "after": 200.0},
    )


async def test_bad_file_changes_nothing(live: Live, autojump_clock: MockClock) -> None:
    put(FILE.format(-1))
    await trio.sleep(SOON)
    assert (live.request, live.noted()) == (300, [("config.refused", "configuration")])
    report = live.configuration.report()
    assert report.refused == "quiver.toml, line 4: `limits.request`: expected a number > 0.0"
    await trio.sleep(100)
    assert len(live.events) == 1  # told once, not at every look
    put(FILE.format(200))
    await trio.sleep(SOON)
    assert (live.request, live.configuration.report().refused) == (200, None)


async def test_vanished_file_is_waited_for(live: Live, autojump_clock: MockClock) -> None:
    drop("quiver.toml")
    await trio.sleep(SOON)
    assert (live.request, live.noted()) == (300, [("config.refused", "configuration")])
    put(FILE.format(200))
    await trio.sleep(SOON)
    assert live.request == 200


async def test_file_is_read_once_it_rests(live: Live, autojump_clock: MockClock) -> None:
    """Written in pieces, each of which would be a configuration of its own."""
    for text in ("", "[engine]\n", "[engine]\nbolt = false\n", "[engine]\nbolt = false\n[limits]\n"):
        put(text)
        await trio.sleep(POLL)
    put(FILE.format(200))
    await trio.sleep(SOON)
    assert live.request == 200
    assert live.noted() == [("config.changed", "limits.request")]


async def test_empty_file_is_no_configuration(live: Live, autojump_clock: MockClock) -> None:
    put("")
    await trio.sleep(SOON)
    assert live.request == 300
    assert live.configuration.report().refused == "`quiver.toml` is empty"


async def test_secret_in_a_file_is_followed(live: Live, autojump_clock: MockClock) -> None:
    put("first-admin-key\n", "admin.key")
    put(FILE.format(300) + "[auth]\nadmin_key_file = 'admin.key'\n")
    await trio.sleep(SOON)
    assert live.gateway.config.auth.admin_key == "first-admin-key"
    put("second-admin-key\n", "admin.key")
    await trio.sleep(SOON)
    assert live.gateway.config.auth.admin_key == "second-admin-key"
    assert "admin-key" not in str(live.events)
    assert "admin-key" not in str(live.configuration.report())


async def test_missing_secret_is_waited_for(live: Live, autojump_clock: MockClock) -> None:
    put(FILE.format(300) + "[auth]\nadmin_key_file = 'admin.key'\n")
    await trio.sleep(SOON)
    assert live.gateway.config.auth.admin_key is None
    put("the-admin-key\n", "admin.key")
    await trio.sleep(SOON)
    assert live.gateway.config.auth.admin_key == "the-admin-key"


async def test_dotenv_is_followed(live: Live, autojump_clock: MockClock) -> None:
    put("QUIVER_LIMITS__REQUEST=100\n", ".env")
    await trio.sleep(SOON)
    assert live.request == 100
    drop(".env")
    await trio.sleep(SOON)
    assert (live.request, live.configuration.report().refused) == (100, "`.env` is gone")


async def test_what_waits_is_told_once(live: Live, autojump_clock: MockClock) -> None:
    put(FILE.format(200) + "[server]\nport = 9999\n")
    await trio.sleep(SOON)
    assert (live.request, live.gateway.config.server.port) == (200, 8080)
    setting = next(one for one in live.configuration.report().settings if one.path == "server.port")
    assert (setting.value, setting.pending, setting.live) == (8080, 9999, False)
    put(FILE.format(100))
    await trio.sleep(SOON)
    assert live.configuration.report().pending == []


async def test_sources_are_told(live: Live, autojump_clock: MockClock) -> None:
    put(FILE.format(200))
    await trio.sleep(SOON)
    sources = {one.path: one.source for one in live.configuration.report().settings}
    assert (sources["limits.request"], sources["limits.idle"]) == ("quiver.toml:4", "default")


async def test_failure_midway_is_told_and_undone(live: Live, autojump_clock: MockClock) -> None:
    def broken(config: object) -> None:
        if live.request == 200:
            raise RuntimeError("out of order")

    live.gateway.appliers.append(broken)
    put(FILE.format(200))
    await trio.sleep(SOON)
    assert (live.request, live.noted()) == (300, [("config.refused", "configuration")])


async def test_reload_on_demand_says_what_changed(live: Live, autojump_clock: MockClock) -> None:
    put(FILE.format(200))
    reloaded = await live.configuration.reload("ada")
    assert [str(change) for change in reloaded.changed] == ["limits.request: 300.0 -> 200.0"]
    assert live.events[0].actor == "ada"
    put("[limits]\nrequest = 'x'")
    with pytest.raises(SettingsError):
        await live.configuration.reload("ada")


async def test_hangup_reloads(live: Live, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    nursery.start_soon(live.configuration.mind_hangups)
    await trio.testing.wait_all_tasks_blocked()
    put(FILE.format(200))
    os.kill(os.getpid(), signal.SIGHUP)
    await trio.sleep(POLL / 4)
    assert live.request == 200
    assert live.events[0].actor == "SIGHUP"


async def test_without_sources_there_is_nothing_to_read() -> None:
    gateway = Gateway(Sources(environ={}).read().config, fixed_world(), lambda batch: None, on_loopback=True)
    with pytest.raises(Refused):
        await LiveConfiguration(gateway).reload()
