"""Making, changing, replacing and revoking client keys: what a request asks for, and how it comes into effect.

Every change is saved before it counts, and counts before it is told of. A new key stands in one reply and nowhere else.
"""

import hmac
from collections.abc import Callable
from typing import Any

import msgspec
import trio
from quiver.proxy.access.keys import Issued
from quiver.proxy.access.minting import mint
from quiver.proxy.access.spending import spent_by
from quiver.proxy.gateway import Gateway
from quiver.schemas import errors
from quiver.schemas.errors import ApiError
from quiver.schemas.events import EventKind
from quiver.schemas.keys import KeyPatch, KeyWanted, Rotation
from quiver.schemas.saved import SavedKey

from ...logs.redactor import REDACTOR
from ..bodies import explained_body

# Raises `ApiError` when the key is not in the state that the request was meant for.
Guard = Callable[[SavedKey], None]
HINT = 4

# What a field's pattern and length ask for, in words.
_FORMS = {
    "name": "1 to 64 letters, digits, dots, hyphens, underscores or `@`",
    "key": "24 to 256 printable ASCII characters without blanks",
    "models": "printable characters without blanks, 255 at most",
}

_decode_wanted = msgspec.json.Decoder(KeyWanted).decode
_decode_patch = msgspec.json.Decoder(KeyPatch).decode
_decode_rotation = msgspec.json.Decoder(Rotation).decode


def decoded(body: bytes) -> KeyWanted:
    """The key that a request asks for. Raises `ApiError` (400) with the field at fault; what stands in it is not repeated."""
    return explained_body(body, _decode_wanted, _FORMS)


def decoded_patch(body: bytes) -> KeyPatch:
    """What a request asks to change. Raises as `decoded`."""
    return explained_body(body, _decode_patch, _FORMS)


def decoded_rotation(body: bytes) -> Rotation:
    """How a key is to be replaced. Raises as `decoded`."""
    return explained_body(body, _decode_rotation, _FORMS)


def issued(gateway: Gateway, id: str) -> Issued:
    """The key with this id, or in use by this name. Raises `ApiError`: 404, and 409 for one of the configuration file."""
    found = gateway.keys.get(id) or gateway.keys.in_use(id)
    if found is not None:
        return found
    if id in gateway.keys.configured:
        raise ApiError(errors.CONFIGURED_KEY, f"`{id}` is written in the configuration file; change it there")
    raise ApiError(errors.NOT_FOUND, f"There is no key `{id[:64]}`; `GET /admin/keys` lists them")


async def create(gateway: Gateway, wanted: KeyWanted, actor: str) -> tuple[Issued, str | None]:
    """Make a key, and the key itself unless it was brought. Raises `ApiError`: 400, 409 when its name or itself is taken,
    503 when it cannot be saved.
    """
    text = wanted.key or mint()
    REDACTOR.learn(text)
    now = round(gateway.world.wall_clock(), 3)
    _refuse_past(wanted.expires, now)
    key = SavedKey(
        id=gateway.world.unique_id("key_"),
        name=wanted.name,
        digest=gateway.keys.digest_of(text),
        hint=text[-HINT:],
        requests_per_minute=wanted.requests_per_minute,
        tokens_per_minute=wanted.tokens_per_minute,
        models=wanted.models,
        priority=wanted.priority,
        budget_tokens=wanted.budget_tokens,
        budget_period=wanted.budget_period,
        keep_content=wanted.keep_content,
        created=now,
        changed=now,
        expires=wanted.expires,
    )
    async with gateway.changes:
        if gateway.keys.named(key.name):
            raise ApiError(
                errors.KEY_EXISTS, f"`{key.name}` is another key's name; choose one of its own", param="name"
            )
        _refuse_known(gateway, text)
        made = await _put(gateway, key)
    _note(gateway, "key.created", key, actor, imported=wanted.key is not None, terms=_terms(key))
    return made, None if wanted.key is not None else text


async def change(gateway: Gateway, id: str, wanted: KeyPatch, actor: str, guard: Guard) -> Issued:
    """Change what a key may do, from the next request on. Raises `ApiError`: 400, 404, 409, 412, 503."""
    changes = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not msgspec.UNSET}
    if "models" in changes:
        changes["models"] = changes["models"] or ()
    _refuse_past(changes.get("expires"), gateway.world.wall_clock())
    async with gateway.changes:
        before = _current(gateway, id, guard)
        changes = {name: value for name, value in changes.items() if value != getattr(before.key, name)}
        if not changes:
            return before
        key = msgspec.structs.replace(before.key, **changes, **_next(gateway, before.key))
        made = await _put(gateway, key)
    told = {name: {"before": getattr(before.key, name), "after": value} for name, value in changes.items()}
    _note(gateway, "key.changed", key, actor, changes=told)
    return made


async def rotate(gateway: Gateway, id: str, wanted: Rotation, actor: str, guard: Guard) -> tuple[Issued, str]:
    """Replace a key by a new one, which is told; the old one opens for the grace period. What is left of its limits and its
    budget stays. Raises `ApiError`: 404, 409, 412, 503.
    """
    text = mint()
    REDACTOR.learn(text)
    async with gateway.changes:
        before = _current(gateway, id, guard).key
        key = msgspec.structs.replace(
            before,
            digest=gateway.keys.digest_of(text),
            hint=text[-HINT:],
            previous=before.digest,
            previous_until=gateway.world.wall_clock() + wanted.grace,
            **_next(gateway, before),
        )
        made = await _put(gateway, key)
    _note(gateway, "key.rotated", key, actor, grace=wanted.grace)
    return made, text


async def revoke(gateway: Gateway, id: str, actor: str, guard: Guard) -> Issued:
    """Let a key in no more; requests under way go on. One that is revoked stays so. Raises `ApiError`: 404, 409, 412, 503."""
    async with gateway.changes:
        before = issued(gateway, id)
        if before.key.revoked is not None:
            return before
        guard(before.key)
        now = round(gateway.world.wall_clock(), 3)
        key = msgspec.structs.replace(before.key, revoked=now, **_next(gateway, before.key))
        made = await _put(gateway, key)
    _note(gateway, "key.revoked", key, actor)
    return made


def _current(gateway: Gateway, id: str, guard: Guard) -> Issued:
    found = issued(gateway, id)
    if found.key.revoked is not None:
        raise ApiError(errors.KEY_REVOKED, f"`{found.key.name}` is revoked, and stays so; make a new key")
    guard(found.key)
    return found


def _next(gateway: Gateway, key: SavedKey) -> dict[str, Any]:
    return {"changed": round(gateway.world.wall_clock(), 3), "version": key.version + 1}


async def _put(gateway: Gateway, key: SavedKey) -> Issued:
    """Save `key`, and let it count. A client that leaves now must not leave the store and the ring apart; the store has time
    limits.
    """
    before = gateway.keys.get(key.id)
    spent = 0
    counts = None if before is None or before.key.budget_tokens is None else before.key.budget_period
    if key.budget_tokens is not None and key.budget_period != counts:
        spent = await spent_by(key, gateway.store, gateway.world.wall_clock())
    with trio.CancelScope(shield=True):
        await gateway.store.save_key(key)
    gateway.keys.put(key, trio.current_time(), spent)
    return issued(gateway, key.id)


def _refuse_known(gateway: Gateway, text: str) -> None:
    """The admin key must not open the inference paths, nor one key stand for two clients."""
    admin_key = gateway.config.auth.admin_key
    same = admin_key is not None and hmac.compare_digest(admin_key.encode(), text.encode())
    if same or gateway.keys.owner(gateway.keys.digest_of(text)) is not None:
        raise ApiError(errors.KEY_EXISTS, "The key is known here already; bring another, or have one made", param="key")


def _refuse_past(expires: float | None, now: float) -> None:
    if expires is not None and expires <= now:
        text = "`expires`: expected a moment to come, as Unix time in seconds; to close a key now, revoke it"
        raise ApiError(errors.INVALID_REQUEST, text, param="expires")


def _note(gateway: Gateway, kind: EventKind, key: SavedKey, actor: str, **details: Any) -> None:
    gateway.journal.note(kind, key.id, actor=actor, name=key.name, version=key.version, **details)


def _terms(key: SavedKey) -> dict[str, Any]:
    """What the key may do, where that is not everything."""
    names = ("requests_per_minute", "tokens_per_minute", "models", "priority", "expires", "budget_tokens")
    return {name: value for name in names if (value := getattr(key, name)) not in (None, ())}
