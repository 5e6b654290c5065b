"""Writing to stderr so that a reader who stopped reading holds up nobody: not the gateway, and not the log file."""

import contextlib
import os
import select
import stat
import sys
from typing import IO

# What a pipe that is ready surely takes (POSIX: PIPE_BUF is 512 at least; Linux and macOS: 4096 and 512).
_SURE = 512 if not hasattr(select, "PIPE_BUF") else select.PIPE_BUF
# Seconds a reader may keep us waiting; after that it is asked again only now and then.
PATIENCE = 0.5


class Stream:
    """Writes text to `stream`. `lost` counts lines that nobody took."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._fd = _descriptor(stream)
        self._waits = self._fd is not None and not stat.S_ISREG(os.fstat(self._fd).st_mode)
        self._patience = PATIENCE
        self.lost = 0

    def __repr__(self) -> str:
        return f"<Stream: {self.lost} lines lost>"

    def write(self, text: str) -> None:
        """Never raises: nobody may be there to read."""
        try:
            if self._fd is None:
                self._stream.write(text)
                self._stream.flush()
            else:
                with contextlib.suppress(ValueError):  # what others printed before; the stream may be closed
                    self._stream.flush()
                self._write(self._fd, text.encode("utf-8", "backslashreplace"))
        except (OSError, ValueError):
            self.lost += text.count("\n")

    def _write(self, fd: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._waits and not self._ready(fd):
                self.lost += bytes(view).count(b"\n")
                return
            view = view[os.write(fd, view[:_SURE] if self._waits else view) :]

    def _ready(self, fd: int) -> bool:
        if sys.platform == "win32":
            return True  # where only sockets can be asked
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        ready = bool(poll.poll(1000 * self._patience))
        self._patience = PATIENCE if ready else 0.0  # once is enough
        return ready


def _descriptor(stream: IO[str]) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None
