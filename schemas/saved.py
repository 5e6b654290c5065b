"""What outlives a restart: registered servers, how servers stood, client keys, the engine's loaded models.

These are the store's rows as the rest of the gateway sees them. Moments are Unix time.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from .config import LocalModel, Priority, RemoteBackend, ServerName
from .forms import whole
from .openai import ModelName

# Whether a server gets new requests: `paused` and `draining` get none; those on it go on.
Mode = Literal["serving", "paused", "draining"]
# When a budget begins anew, in UTC; `total` never does.
Period = Literal["day", "week", "month", "total"]


class Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What people want to know of a server; the gateway makes nothing of it."""

    owner: Annotated[str, Meta(max_length=200)] | None = None
    description: Annotated[str, Meta(max_length=2000)] | None = None
    tags: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(max_length=32)] = ()


class SavedServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that was registered while the gateway ran. `backend` has the key it wants. `version` counts changes."""

    id: ServerName
    backend: RemoteBackend
    metadata: Metadata = Metadata()
    created: float
    changed: float
    version: int = 1


class SavedState(msgspec.Struct, frozen=True, kw_only=True):
    """How a server stood, be it registered or configured: after a restart it offers what it offered, until it is checked."""

    id: str
    mode: Mode = "serving"
    models: tuple[str, ...] = ()
    state: str = "unknown"
    reason: str | None = None
    since: float | None = None


class SavedKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client's key without the key itself: `digest` is its keyed hash in hexadecimal, `hint` its last four characters.

    `budget_tokens` in each `budget_period`, prompts and replies together. After a rotation `previous` still opens until
    `previous_until`. `keep_content`: whether prompts and answers of this key may be kept.
    """

    id: str
    name: Annotated[str, Meta(pattern=whole(r"[A-Za-z0-9._@-]{1,64}"))]
    digest: str
    hint: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    models: tuple[ModelName, ...] = ()
    priority: Priority = "normal"
    budget_tokens: int | None = None
    budget_period: Period = "month"
    keep_content: bool = False
    created: float
    changed: float
    version: int = 1
    expires: float | None = None
    revoked: float | None = None
    previous: str | None = None
    previous_until: float | None = None


class SavedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was loaded while the gateway ran. `unloaded`: known, and not to be loaded at start."""

    id: ModelName
    model: LocalModel
    unloaded: bool = False


class CheckResult(msgspec.Struct, frozen=True):
    """How one check of a server, or one request to it, ended."""

    at: float
    ok: bool
    seconds: float
    reason: str | None
    source: Literal["check", "traffic"]


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What was there at start. `states` and `checks`, the last ones and oldest first, go by the server's id."""

    servers: tuple[SavedServer, ...] = ()
    states: dict[str, SavedState] = {}
    keys: tuple[SavedKey, ...] = ()
    models: tuple[SavedModel, ...] = ()
    settings: dict[str, Any] = {}
    checks: dict[str, tuple[CheckResult, ...]] = {}
