"""What was spent of a budget before now, from what is kept of finished requests: at start, and when a budget is new.

A process that is killed forgets what its last moments' requests spent, as far as their records were not written.
"""

from collections.abc import Callable

import structlog
from quiver.schemas.errors import ApiError
from quiver.schemas.periods import bounds
from quiver.schemas.saved import SavedKey

from ..store.history import History
from .keys import KeyRing


async def spent_by(key: SavedKey, history: History, wall_clock: Callable[[], float]) -> int:
    """Tokens that are gone of the present period of the key's budget. They stay with its name, whichever key had it. Raises
    `ApiError` (503).
    """
    begins, _ = bounds(key.budget_period, wall_clock())
    return await history.spent(key.name, max(0.0, begins))


async def restore_budgets(keys: KeyRing, history: History, wall_clock: Callable[[], float]) -> None:
    """Count what was spent before the last stop. To be done ahead of the first request."""
    for issued in keys:
        budget = issued.client.budget
        if budget is None:
            continue
        try:
            budget.settle(0, await spent_by(issued.key, history, wall_clock))
        except ApiError as error:
            log = structlog.get_logger(component="keys")
            log.error("a budget begins at nothing", key=issued.key.name, reason=error.message)
