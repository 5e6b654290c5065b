"""Those who read the log as it is written: each has a bounded heap of lines, and one who does not keep up is let go."""

import threading

import trio

# What may wait for one reader.
HELD = 1024 * 1024


class Follower:
    """One reader, on Trio's event loop. `late`: it did not keep up, and gets nothing more."""

    def __init__(self) -> None:
        self.late = False
        self._blocks: list[bytes] = []
        self._held = 0
        self._more = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Follower: {self._held} bytes waiting{', late' if self.late else ''}>"

    def push(self, lines: bytes) -> None:
        """Add lines; in any thread."""
        with self._lock:
            self._held += len(lines)
            self.late = self.late or self._held > HELD
            if not self.late:
                self._blocks.append(lines)
        try:
            self._token.run_sync_soon(self._wake, idempotent=True)
        except trio.RunFinishedError:
            self.late = True

    async def take(self, seconds: float) -> bytes:
        """What was logged since, waiting up to `seconds` for it; empty when there is nothing, or when it is late."""
        with trio.move_on_after(seconds):
            await self._more.wait()
        self._more = trio.Event()
        with self._lock:
            blocks, self._blocks, self._held = self._blocks, [], 0
        return b"".join(blocks)

    def _wake(self) -> None:
        self._more.set()


class Followers:
    """All readers."""

    def __init__(self) -> None:
        self._followers: list[Follower] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Followers: {len(self._followers)}>"

    def __len__(self) -> int:
        return len(self._followers)

    def add(self) -> Follower:
        """A reader of what is logged from now on; `remove` it when it leaves."""
        follower = Follower()
        with self._lock:
            self._followers = [*self._followers, follower]
        return follower

    def remove(self, follower: Follower) -> None:
        with self._lock:
            self._followers = [other for other in self._followers if other is not follower]

    def push(self, lines: bytes) -> None:
        """Give lines to all; in any thread."""
        for follower in self._followers:
            follower.push(lines)
