"""Levels that an operator has set for good. They outlive restarts, until they are taken back or the configuration's own levels
change.
"""

from collections.abc import Callable

import msgspec
from quiver.proxy.store.store import Store
from quiver.proxy.telemetry.levels import LEVELS
from quiver.schemas.config import Level, Log

SETTING = "log.levels"


class Standing(msgspec.Struct, frozen=True):
    """The levels, and those of the configuration that they stand beside."""

    level: Level
    levels: dict[str, Level]
    changed: dict[str, Level | None]


class StandingLevels:
    """Keeps them in `store`. `configured`: what the configuration says now."""

    def __init__(self, store: Store, configured: Callable[[], Log]) -> None:
        self._store, self._configured = store, configured
        try:
            saved = msgspec.convert(store.saved.settings.get(SETTING), Standing | None)
        except msgspec.ValidationError:  # of another version
            saved = None
        self._known = self._with(saved.changed if saved is not None else {})
        if saved is not None and saved == self._known:
            for component, level in saved.changed.items():
                LEVELS.change(component, level)
        else:
            self._known = self._with({})

    def __repr__(self) -> str:
        return f"<StandingLevels: {self._known.changed}>"

    async def keep(self, component: str, level: Level | None) -> None:
        """Keep a component's level, or that of all; None takes it back. Raises `ApiError` (503)."""
        now = self._with(self._known.changed)
        before = now.changed if now == self._known else {}
        changed = {name: kept for name, kept in before.items() if name != component}
        if level is not None or component in now.levels:
            changed[component] = level
        known = self._with(changed)
        await self._store.save_setting(SETTING, known)
        self._known = known

    def _with(self, changed: dict[str, Level | None]) -> Standing:
        config = self._configured()
        return Standing(config.level, dict(config.levels), changed)
