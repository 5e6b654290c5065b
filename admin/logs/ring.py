"""The last lines, in memory: what is asked for most, and all there is when no file is written."""

import threading
from collections import deque
from collections.abc import Iterator

import msgspec

from .file import Position

HELD = 8 * 1024 * 1024


class Block(msgspec.Struct, frozen=True):
    """Lines that were written together. `first`: the number of the first one; `position`: where they begin in the file."""

    first: int
    count: int
    lines: bytes
    position: Position | None


class Found(msgspec.Struct, frozen=True):
    """One line, its number since the process began, and where it is in the file."""

    number: int
    line: bytes
    position: Position | None


class Ring:
    """Holds the last `held` bytes of lines. May be used in any thread."""

    def __init__(self, held: int = HELD) -> None:
        self._most, self._held = held, 0
        self._blocks: deque[Block] = deque()
        self._next = 1
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Ring: {self._held} bytes in {len(self._blocks)} blocks>"

    def append(self, lines: bytes, position: Position | None) -> None:
        """Keep whole lines, and forget the oldest."""
        with self._lock:
            block = Block(self._next, lines.count(b"\n"), lines, position)
            self._next += block.count
            self._blocks.append(block)
            self._held += len(lines)
            while self._held > self._most and len(self._blocks) > 1:
                self._held -= len(self._blocks.popleft().lines)

    @property
    def first(self) -> int:
        """The number of the oldest line that is held."""
        with self._lock:
            return self._blocks[0].first if self._blocks else self._next

    def beginning(self) -> Position | None:
        """Where in the file the oldest of these lines is that is in a file at all."""
        with self._lock:
            return next((block.position for block in self._blocks if block.position is not None), None)

    def backwards(self, before: int | None = None) -> Iterator[Found]:
        """The lines before number `before`, the newest first."""
        with self._lock:
            blocks = list(self._blocks)
        for block in reversed(blocks):
            if before is not None and block.first >= before:
                continue
            lines = block.lines.splitlines(keepends=True)
            offset = len(block.lines)
            for index in range(len(lines) - 1, -1, -1):
                offset -= len(lines[index])
                number = block.first + index
                if before is None or number < before:
                    place = block.position and Position(block.position.file, block.position.offset + offset)
                    yield Found(number, lines[index], place)
