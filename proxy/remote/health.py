"""Active checks: every remote server has a task of its own that asks it for its models, at once and then for ever.

A check lists models and never loads one. It finds new models, and brings a server that was out back into service. A healthy
server is checked at a jittered interval; any other one when its circuit says that its time out is over, or soon.
"""

from collections.abc import Callable
from random import Random
from typing import Protocol

import msgspec
import structlog
import trio
from quiver.schemas.config import Health as HealthConfig
from quiver.schemas.errors import ApiError

from ..seams import World
from .circuit import Circuit, classify

JITTER = 0.1
# Traffic that fails asks for checks; however much of it there is, the server gets no more of them than this.
LEAST_PAUSE = 1.0

BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, msgspec.DecodeError)


class Bell:
    """Wakes a server's watcher ahead of time. A ring that nobody waits for is kept; many are one."""

    __slots__ = ("_rung",)

    def __init__(self) -> None:
        self._rung = trio.Event()

    def __repr__(self) -> str:
        return f"<Bell {'rung' if self._rung.is_set() else 'silent'}>"

    def ring(self) -> None:
        self._rung.set()

    def silence(self) -> None:
        """Forget rings up to now."""
        if self._rung.is_set():
            self._rung = trio.Event()

    async def wait_rung(self, until: float) -> bool:
        """Whether it rang before `until` (Trio's clock); it is silent again afterwards."""
        with trio.move_on_at(until):
            await self._rung.wait()
        rung = self._rung.is_set()
        self.silence()
        return rung


class Watched(Protocol):
    """What a check needs of a server. Ring `bell` for a check now, or when traffic changed the circuit."""

    @property
    def id(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def circuit(self) -> Circuit: ...

    @property
    def bell(self) -> Bell: ...

    async def probe(self) -> None:
        """Ask for the server's models. Raises `ApiError`, or what a broken connection or a bad list raises."""
        ...


async def watch(server: Watched, config: HealthConfig, world: World, turned: Callable[[], None] = lambda: None) -> None:
    """Check `server` at once, and then whenever it is due, until cancelled. `turned` is called when its state is another one;
    that a trial is under way is none worth telling.
    """
    circuit, told = server.circuit, server.circuit.state
    checked = due = trio.current_time()
    while True:
        if trio.current_time() >= due:
            checked = trio.current_time()
            await check(server, config)
            now = trio.current_time()
            server.bell.silence()  # who rang meanwhile has the check that was asked for
            due = next_check(circuit, config, now, world.random)
        elif await server.bell.wait_rung(due):
            due = max(circuit.until, checked + LEAST_PAUSE)
        if circuit.state not in (told, "half_open"):
            told = circuit.state
            turned()


def next_check(circuit: Circuit, config: HealthConfig, now: float, random: Random) -> float:
    """When a server that was checked just now is checked again, on Trio's clock."""
    if circuit.until > now:
        return circuit.until
    pause = config.interval if circuit.state == "healthy" else min(config.ejection, config.interval)
    return now + pause * random.uniform(1 - JITTER, 1 + JITTER)


async def check(server: Watched, config: HealthConfig) -> bool:
    """Check `server` now, tell its circuit, and return whether it passed. Raises nothing for what the server does.

    If an ejection is over this is the trial, and no traffic is let in beside it.
    """
    began = trio.current_time()
    passed = await _passes(server, config, began)
    seconds = trio.current_time() - began
    server.circuit.tally.checked(passed, seconds)
    log = structlog.get_logger(component="health", server=server.id, url=server.address)
    tell, result = (log.debug, "passed") if passed else (log.info, "failed")
    tell(
        "checked", result=result, response_ms=round(1000 * seconds, 3), error=None if passed else server.circuit.reason
    )
    return passed


async def _passes(server: Watched, config: HealthConfig, began: float) -> bool:
    circuit = server.circuit
    trial = circuit.begin_trial(began)
    try:
        with trio.fail_after(config.timeout):
            await server.probe()
    except trio.TooSlowError:
        reason = f"no answer to `/v1/models` within {config.timeout:g} s"
        circuit.failed(reason, trio.current_time(), began=began, source="check")
    except ApiError as error:
        _tell(circuit, error, began)
    except BROKEN as error:
        reason = f"`/v1/models`: {str(error) or type(error).__name__}"
        circuit.failed(reason, trio.current_time(), began=began, source="check")
    else:
        circuit.passed(trio.current_time(), began=began, source="check")
        return True
    finally:
        if trial:
            circuit.end_trial(began)
    return False


def _tell(circuit: Circuit, error: ApiError, began: float) -> None:
    # A check has no client: what would be the client's mistake elsewhere, like 404, is the server's here.
    match classify(error):
        case "credential":
            circuit.refused_credential(error.message, trio.current_time(), began=began, source="check")
        case "failure" | "none":
            circuit.failed(error.message, trio.current_time(), began=began, source="check")
        case "pause":
            return  # the server lives, and asks not to be asked: no verdict
