"""One engine in memory: the requests on it, when it will have been idle for long enough, and how it is retired.

Time is Trio's. Nothing here loads or frees; the task that holds the engine does, when the waits below are over.
"""

from math import inf

import trio
from quiver.schemas.models import MemoryReport

from .budget import Claim
from .embedding import LocalEncoder
from .engine import LocalEngine
from .loading import Wanted


class Instance:
    """One engine in memory, and the requests on it."""

    def __init__(self, engine: LocalEngine | LocalEncoder, wanted: Wanted, memory: MemoryReport) -> None:
        self.engine, self.wanted, self.memory = engine, wanted, memory
        self.users = 0
        self.last_used = trio.current_time()
        # Retired: gets no new requests. What still runs at the deadline is ended.
        self.retired, self.deadline = False, inf
        self._changed = trio.Event()

    def __repr__(self) -> str:
        return f"<Instance {self.wanted.source}: {self.users} users{', retired' * self.retired}>"

    def enter(self) -> None:
        """A request begins on it."""
        self.users += 1

    def leave(self) -> None:
        """A request on it is over."""
        self.users -= 1
        if not self.users:
            self.last_used = trio.current_time()
            self._change()

    def retire(self, deadline: float = inf) -> None:
        """Let it finish what it has, until `deadline` on Trio's clock."""
        self.retired, self.deadline = True, min(self.deadline, deadline)
        self._change()

    @property
    def idle_at(self) -> float:
        """When it will have been idle for long enough, on Trio's clock; never while it is used."""
        idle = self.wanted.settings.idle
        return self.last_used + idle if idle and not self.users else inf

    async def wait_unwanted(self) -> bool:
        """Until it is retired, or idle; whether it was idle."""
        while not self.retired:
            due = self.idle_at
            if trio.current_time() >= due:
                return True
            with trio.move_on_at(due):
                await self._changed.wait()
        return False

    async def wait_finished(self) -> None:
        """Until the last request is over, or the deadline of its retirement."""
        while self.users and trio.current_time() < self.deadline:
            with trio.move_on_at(self.deadline):
                await self._changed.wait()

    def claim(self) -> Claim:
        """What it may still take: its cache grows as it is used."""
        return Claim(self.memory.total, max(0, self.memory.kv - self.engine.kv_bytes))

    def _change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()
