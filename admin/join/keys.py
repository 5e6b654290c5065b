"""Keys pressed on a terminal, one at a time: nothing where there is no terminal, or none that can be asked."""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

if sys.platform == "win32":
    import msvcrt
else:
    import os
    import termios
    import tty

# How often it is looked whether a key was pressed, where nobody tells, or whether keys are for us again.
LOOK = 0.1


@asynccontextmanager
async def pressed_keys() -> AsyncIterator[AsyncIterator[str]]:
    """The keys as they are pressed. The terminal is as it was after the block."""
    with _unbuffered():
        yield _keys()


async def _keys() -> AsyncIterator[str]:
    if not _foreground():
        await trio.sleep_forever()
    while True:
        if sys.platform == "win32":
            await trio.sleep(LOOK)
            if msvcrt.kbhit():
                yield msvcrt.getwch()
        else:
            await trio.lowlevel.wait_readable(sys.stdin)
            if not _foreground():  # sent to the background meanwhile: what is typed is for others
                await trio.sleep(LOOK)
                continue
            key = os.read(sys.stdin.fileno(), 1)
            if not key:
                await trio.sleep_forever()
            yield key.decode(errors="replace")


@contextmanager
def _unbuffered() -> Iterator[None]:
    if sys.platform == "win32" or not _foreground():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _foreground() -> bool:
    """Whether keys pressed on a terminal are for us: a background job that reads them would be stopped."""
    try:
        if not sys.stdin.isatty():
            return False
        return sys.platform == "win32" or os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False
