"""What a simulated run borrows of its process, and gives back: Trio's scheduler, and the log."""

from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR

import structlog
from trio._core import _run as trio_scheduler


@contextmanager
def repeatable_scheduling(seed: int) -> Iterator[None]:
    """Trio runs tasks that are ready in random order: let that order follow from the seed."""
    allowed, state = trio_scheduler._ALLOW_DETERMINISTIC_SCHEDULING, trio_scheduler._r.getstate()
    trio_scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc] # Trio has no public switch
    trio_scheduler._r.seed(seed)
    try:
        yield
    finally:
        trio_scheduler._ALLOW_DETERMINISTIC_SCHEDULING = allowed  # type: ignore[misc] # as above
        trio_scheduler._r.setstate(state)


@contextmanager
def listening_to_log(noticed: list[str]) -> Iterator[None]:
    """Say nothing, and note what is logged as an error: the gateway's own faults are told there."""

    def note(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        noticed.append(f"logged as {method}: {event}")
        raise structlog.DropEvent

    configured, before = structlog.is_configured(), structlog.get_config()
    structlog.configure(
        processors=[structlog.processors.format_exc_info, note],
        wrapper_class=structlog.make_filtering_bound_logger(ERROR),
    )
    try:
        yield
    finally:
        structlog.reset_defaults()
        if configured:
            structlog.configure(**before)
