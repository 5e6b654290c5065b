"""The seams between the data plane and the outside world: blocking work, the network, the wall clock, randomness.

Nothing else in the data plane calls a thread, opens a socket, reads a clock other than Trio's, or draws a random number. A
simulation replaces all four.
"""

import time
from collections.abc import Awaitable, Callable
from itertools import count
from random import Random
from typing import Protocol, TypeVar, TypeVarTuple, cast

import trio

from .network import KernelNetwork, Network

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Offload(Protocol):
    """Runs a blocking function somewhere it does not block the event loop."""

    def __call__(self, fn: Callable[..., object], *args: object) -> Awaitable[object]: ...


async def _in_thread(fn: Callable[..., object], *args: object) -> object:
    return await trio.to_thread.run_sync(fn, *args)


offload_runner: trio.lowlevel.RunVar[Offload] = trio.lowlevel.RunVar("offload", default=_in_thread)


async def offload(fn: Callable[[*Ts], T], *args: *Ts) -> T:
    """`fn(*args)`, run off the event loop. Not cancellable once started; exceptions propagate."""
    return cast(T, await offload_runner.get()(fn, *args))


class World:
    """What the data plane may know of the world."""

    def __init__(
        self,
        wall_clock: Callable[[], float] = time.time,
        random: Random | None = None,
        network: Network | None = None,
    ) -> None:
        self.wall_clock = wall_clock
        self.random = random or Random()  # noqa: S311 - no secrets are drawn from it
        self.network = network or KernelNetwork()
        digits = f"{self.random.getrandbits(72):018x}"
        self._run = f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-a{digits[15:]}-"
        self._requests = count(1)

    def unique_id(self, prefix: str) -> str:
        """`prefix` and 32 random hexadecimal digits."""
        return f"{prefix}{self.random.getrandbits(128):032x}"

    def request_id(self) -> str:
        """An id in the form of a UUID (version 4): some servers refuse a request whose `X-Request-ID` is anything else. Its
        first half is random for this run, its second counts.
        """
        return f"{self._run}{next(self._requests):012x}"
