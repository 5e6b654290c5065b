"""A join from its start to its exit code: the joiner, and everything its owner can tell it meanwhile."""

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

import trio
from quiver.proxy.seams import World
from quiver.proxy.tunnel.joiner import Joiner, JoinRefused
from quiver.schemas.join import Offer

from .control import Control
from .keys import pressed_keys
from .screen import Screen

# How often the owner's wishes are looked for, and how often it is written how the join stands.
LOOK, POST = 0.5, 1.0
STOPS = (signal.SIGINT, signal.SIGTERM)
# Not on Windows; there the other ways have to do.
TOGGLE: signal.Signals | None = getattr(signal, "SIGUSR1", None)


class Join:
    """One `quiver join`. Raises `JoinRefused` out of `run`."""

    def __init__(
        self, gateway: str, offer: Offer, key: str | None, drain: float, control: Control, screen: Screen
    ) -> None:
        self._control, self._screen = control, screen
        self._joiner = Joiner(gateway, offer, World(), key=key, drain=drain, told=self._told)
        self._code = 0

    async def run(self) -> int:
        """Stay joined until a signal, a key or a file says otherwise; the exit code."""
        signals = STOPS if TOGGLE is None else (*STOPS, TOGGLE)
        refusal: JoinRefused | None = None
        with trio.open_signal_receiver(*signals) as received:
            async with pressed_keys() as keys, trio.open_nursery() as nursery:
                nursery.start_soon(self._mind_signals, received, nursery.cancel_scope)
                nursery.start_soon(self._mind_keys, keys)
                nursery.start_soon(self._mind_files)
                nursery.start_soon(self._post)
                try:
                    await self._joiner.run()
                except JoinRefused as error:
                    refusal = error
                nursery.cancel_scope.cancel()
        self._screen.end()
        if refusal is not None:
            raise refusal
        return self._code

    def _told(self, joiner: Joiner) -> None:
        status = joiner.status()
        self._screen.show(status)
        with suppress(OSError):  # a full disk is no reason to leave
            self._control.post(status)

    async def _mind_signals(self, received: AsyncIterator[int], everything: trio.CancelScope) -> None:
        """A first signal leaves, a second one at once. SIGUSR1 pauses and resumes."""
        async for number in received:
            if number == TOGGLE:
                self._pause(not self._joiner.paused)
                continue
            if self._code:
                everything.cancel()
            self._code = 128 + number
            self._joiner.leave()

    async def _mind_keys(self, keys: AsyncIterator[str]) -> None:
        async for key in keys:
            match key.lower():
                case "p":
                    self._pause(True)
                case "r":
                    self._pause(False)
                case "q":
                    self._joiner.leave()

    async def _mind_files(self) -> None:
        seen = self._joiner.paused
        while True:
            if self._control.leaving:
                self._joiner.leave()
            if (paused := self._control.paused) != seen:
                seen = paused
                self._joiner.pause(paused)
            await trio.sleep(LOOK)

    def _pause(self, paused: bool) -> None:
        with suppress(OSError):
            self._control.paused = paused
        self._joiner.pause(paused)

    async def _post(self) -> None:
        while True:
            self._told(self._joiner)
            await trio.sleep(POST)


def run(join: Join) -> int:
    """`Join.run` with a Trio of its own."""
    try:
        return trio.run(join.run)
    except KeyboardInterrupt:  # before signals were minded
        return 130
    finally:
        sys.stderr.flush()
