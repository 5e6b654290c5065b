"""How late the event loop is: what holds it up holds up every stream."""

import trio

from .histogram import Histogram

# Often enough that a stall of some tenths of a second is rarely missed; it costs ten thousandths of a core.
INTERVAL = 0.25


async def watch_lag(lag: Histogram) -> None:
    """Sleep again and again, and note by how much each sleep was too long, until cancelled."""
    while True:
        due = trio.current_time() + INTERVAL
        await trio.sleep_until(due)
        lag.observe(max(0.0, trio.current_time() - due))
