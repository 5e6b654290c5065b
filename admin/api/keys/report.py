"""What the admin API tells of one client key: what it may do, what is left of that, and how it stands. Never the key."""

from math import inf
from typing import Any

from quiver.proxy.access.buckets import TokenBucket
from quiver.proxy.access.client import Client
from quiver.proxy.access.keys import Issued
from quiver.proxy.gateway import Gateway
from quiver.proxy.seams import World
from quiver.schemas.keys import BudgetReport, KeyReport, KeyState, LimitReport
from quiver.schemas.saved import SavedKey


def reports(gateway: Gateway, now: float) -> list[KeyReport]:
    """All keys, at `now` on Trio's clock."""
    written = [_configured(client, gateway.world, now) for client in gateway.keys.configured.values()]
    return written + [issued(each, gateway.world, now) for each in gateway.keys]


def configured(gateway: Gateway, name: str, now: float) -> KeyReport | None:
    """The key of the configuration file with this name, at `now` on Trio's clock."""
    client = gateway.keys.configured.get(name)
    return None if client is None else _configured(client, gateway.world, now)


def issued(found: Issued, world: World, now: float) -> KeyReport:
    """A key that was made while the gateway ran."""
    key, wall = found.key, world.wall_clock()
    grace = key.previous_until
    return KeyReport(
        id=key.id,
        origin="issued",
        state=state_of(key, found.client, wall),
        hint=key.hint,
        created=key.created,
        changed=key.changed,
        version=key.version,
        expires=key.expires,
        revoked=key.revoked,
        previous_until=grace if grace is not None and grace > wall and key.revoked is None else None,
        **_of_client(found.client, wall, now),
    )


def state_of(key: SavedKey, client: Client, wall: float) -> KeyState:
    """How the key stands at `wall` (Unix time)."""
    if key.revoked is not None:
        return "revoked"
    if key.expires is not None and key.expires <= wall:
        return "expired"
    return "exhausted" if client.budget is not None and client.budget.exhausted else "active"


def _configured(client: Client, world: World, now: float) -> KeyReport:
    return KeyReport(
        id=client.name,
        origin="configuration",
        state="active",
        hint=None,
        created=None,
        changed=None,
        version=1,
        expires=None,
        revoked=None,
        previous_until=None,
        **_of_client(client, world.wall_clock(), now),
    )


def _of_client(client: Client, wall: float, now: float) -> dict[str, Any]:
    return {
        "name": client.name,
        "models": sorted(client.models),
        "priority": client.priority,
        "keep_content": client.keep_content,
        "requests": None if client.requests is None else _limit(client.requests, now),
        "tokens": None if client.tokens is None else _limit(client.tokens.bucket, now),
        "budget": _budget(client),
        "last_used": client.used_before if client.used_at == -inf else round(client.used_at + wall - now, 3),
    }


def _limit(bucket: TokenBucket, now: float) -> LimitReport:
    level = bucket.level(now)
    return LimitReport(round(bucket.capacity), max(0, int(level)), round(bucket.wait(bucket.capacity, now), 3))


def _budget(client: Client) -> BudgetReport | None:
    budget = client.budget
    if budget is None:
        return None
    ends = budget.ends
    return BudgetReport(
        tokens=budget.limit,
        period=budget.period,
        spent=budget.spent,
        reserved=budget.reserved,
        left=budget.left,
        ends=None if ends == inf else ends,
    )
