"""A computer that runs one model server: it may crash, and then starts the server again."""

import trio

from .knobs import ServerPlan
from .upstream import ModelServer


class Machine:
    """Keeps one model server running, but for its crashes."""

    def __init__(self, plan: ServerPlan, server: ModelServer) -> None:
        self.plan, self._server = plan, server
        self._process = trio.CancelScope()
        self._pause = 0.0

    def __repr__(self) -> str:
        return f"<Machine of {self._server!r}>"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the server again after each crash."""
        while True:
            with trio.CancelScope() as self._process:
                await self._server.run(task_status)
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(self._pause)

    def forgive_crowds(self) -> None:
        """Its calls go on, but a gateway that was told to forget it does not count them any more."""
        self._server.most = None

    async def crash(self, pause: float) -> None:
        """End the server in the middle of everything; it is back after `pause` seconds."""
        self._pause = pause
        self._process.cancel()
        await trio.sleep(pause)
