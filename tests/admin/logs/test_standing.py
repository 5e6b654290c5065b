"""Levels that were set for good come back after a restart, unless the configuration has changed its own meanwhile."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from quiver.admin.logs.standing import StandingLevels
from quiver.proxy.store.store import Store
from quiver.proxy.telemetry.levels import LEVELS
from quiver.schemas.config import Level, Log
from quiver.schemas.config import Store as StoreConfig

CONFIGURED = Log(levels={"health": "warning"})


@pytest.fixture(autouse=True)
def _levels_restored() -> Iterator[None]:
    yield
    LEVELS.configure("info", {})


async def kept(folder: Path, *changes: tuple[str, Level | None]) -> None:
    store = Store.open(folder, StoreConfig(), time.time)
    standing = StandingLevels(store, lambda: CONFIGURED)
    for component, level in changes:
        await standing.keep(component, level)
    store.release()


def levels_after_restart(folder: Path, config: Log) -> dict[str, Level]:
    LEVELS.configure(config.level, config.levels)
    store = Store.open(folder, StoreConfig(), time.time)
    StandingLevels(store, lambda: config)
    store.release()
    return {"all": LEVELS.common, **LEVELS.own()}


async def test_changes_come_back(tmp_path: Path) -> None:
    await kept(tmp_path, ("audit", "debug"), ("health", None), ("all", "error"))
    assert levels_after_restart(tmp_path, CONFIGURED) == {"all": "error", "audit": "debug"}
    await kept(tmp_path, ("audit", None), ("all", "info"))
    assert levels_after_restart(tmp_path, CONFIGURED) == {"all": "info"}


async def test_configuration_that_changed_wins(tmp_path: Path) -> None:
    await kept(tmp_path, ("audit", "debug"))
    assert levels_after_restart(tmp_path, Log(level="warning")) == {"all": "warning"}
