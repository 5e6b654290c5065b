"""What was spent of a budget before now, from what is kept of finished requests: at start, and when a budget is new.

It stays with a key's name, whichever key had that. A process that is killed forgets what its last moments' requests spent,
as far as their records were not written.
"""

from quiver.schemas.periods import bounds
from quiver.schemas.saved import SavedKey

from ..store.store import Store


def spent_before(key: SavedKey, store: Store, now: float) -> int:
    """Tokens that are gone of the present period of the key's budget, at `now` (Unix time). Blocks: only for use before
    anything runs. Raises `sqlite3.Error`.
    """
    return store.spent(key.name, _begin(key, now)) if key.budget_tokens is not None else 0


async def spent_by(key: SavedKey, store: Store, now: float) -> int:
    """The same while the gateway runs. Raises `ApiError` (503)."""
    await store.wait_written()
    return await store.history.spent(key.name, _begin(key, now))


def _begin(key: SavedKey, now: float) -> float:
    return max(0.0, bounds(key.budget_period, now)[0])
