"""The last resort of a shutdown: a thread that ends the process when the event loop no longer can.

Cancelling ends everything that waits; a call that blocks, into a library or a dead file system, it does not.
"""

import logging
import os
import threading
from collections.abc import Callable

import structlog

# What the event loop gets to end by itself, once its own deadline is over.
GRACE = 2.0
FAILED = 1


def _end_process() -> None:
    structlog.get_logger(component="server").critical("the event loop hangs; the process ends without it")
    logging.shutdown()
    os._exit(FAILED)


class Watchdog:
    """Does nothing until `arm`, and after `GRACE` more seconds than it was armed for ends the process."""

    def __init__(self, end: Callable[[], None] = _end_process) -> None:
        self._end = end
        self._timer: threading.Timer | None = None

    def __repr__(self) -> str:
        return f"<Watchdog{'' if self._timer is None else ', armed'}>"

    def arm(self, seconds: float) -> None:
        """Bark in `seconds`, whatever was said before."""
        self.disarm()
        self._timer = threading.Timer(seconds + GRACE, self._end)
        self._timer.daemon = True
        self._timer.start()

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
