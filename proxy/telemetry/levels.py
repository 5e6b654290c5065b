"""How much each component logs. It can be changed while the gateway runs, also for a while only.

Everything that logs in a process shares `LEVELS`. A call site on a hot path looks at `LEVELS.least` before it puts a line
together: that is one attribute.
"""

from collections.abc import Callable, Mapping
from typing import get_args

import msgspec
import trio
from quiver.schemas.config import Level

from .journal import Journal

TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL = 5, 10, 20, 30, 40, 50
NUMBERS: dict[Level, int] = dict(zip(get_args(Level), (TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL), strict=True))
NAMES: dict[int, Level] = {number: name for name, number in NUMBERS.items()}
# Stands for every component that has no level of its own.
ALL = "all"


class Change(msgspec.Struct, frozen=True):
    """A level that was changed for a while: what it was before (None: that of all), and until when on Trio's clock."""

    before: Level | None
    until: float


class Levels:
    """The least level that each component logs. `least` is the least of all; `changed` is called after each change."""

    def __init__(self) -> None:
        self.least = INFO
        self.changed: Callable[[], None] = lambda: None
        self._common = INFO
        self._own: dict[str, int] = {}
        self._configured: tuple[Level, dict[str, Level]] = ("info", {})
        self._passing: dict[str, Change] = {}
        self._more = trio.Event()

    def __repr__(self) -> str:
        return f"<Levels: {self.common}, {self.own()}>"

    @property
    def common(self) -> Level:
        """The level of components that have none of their own."""
        return NAMES[self._common]

    def of(self, component: str) -> int:
        """The number of a component's level."""
        return self._own.get(component, self._common)

    def own(self) -> dict[str, Level]:
        """The components that have a level of their own."""
        return {component: NAMES[number] for component, number in self._own.items()}

    def passing(self) -> dict[str, Change]:
        """Levels that go back by themselves; `ALL` may be among them."""
        return dict(self._passing)

    def configure(self, level: Level, own: Mapping[str, Level]) -> None:
        """Begin anew with what the configuration says."""
        self._common, self._own = NUMBERS[level], {component: NUMBERS[name] for component, name in own.items()}
        self._passing = {}
        self._configured = (level, dict(own))
        self._settle()

    def reconfigure(self, level: Level, own: Mapping[str, Level]) -> None:
        """As `configure`, if that is not what was configured before."""
        if (level, dict(own)) != self._configured:
            self.configure(level, own)

    def change(self, component: str, level: Level | None, seconds: float | None = None) -> None:
        """Set a component's level, or that of all others (`ALL`); None: no level of its own. `seconds`: go back then, to what
        it was before the first such change.
        """
        before = self._passing.pop(component, None)
        if seconds is not None:
            was = before.before if before is not None else self._told(component)
            self._passing[component] = Change(was, trio.current_time() + seconds)
        self._set(component, level)
        self._more.set()

    async def go_back(self, journal: Journal) -> None:
        """End changes whose time is over, until cancelled."""
        while True:
            self._more = trio.Event()
            with trio.move_on_at(min((change.until for change in self._passing.values()), default=float("inf"))):
                await self._more.wait()
            now = trio.current_time()
            for component, change in list(self._passing.items()):
                if change.until <= now:
                    del self._passing[component]
                    self._set(component, change.before)
                    journal.note("log.level", component, to=change.before, reason="its time is over")

    def _told(self, component: str) -> Level | None:
        if component == ALL:
            return self.common
        return NAMES[self._own[component]] if component in self._own else None

    def _set(self, component: str, level: Level | None) -> None:
        if component == ALL:
            self._common = NUMBERS[level or "info"]
        elif level is None:
            self._own.pop(component, None)
        else:
            self._own[component] = NUMBERS[level]
        self._settle()

    def _settle(self) -> None:
        self.least = min(self._common, *self._own.values()) if self._own else self._common
        self.changed()


LEVELS = Levels()
