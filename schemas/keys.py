"""The admin API's wire format for client keys. A key itself is told once, in the reply that makes it.

Moments are Unix time, durations seconds.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .config import Priority, said
from .forms import whole
from .openai import ModelName
from .saved import Period

KeyName = Annotated[str, Meta(pattern=whole(r"[A-Za-z0-9._@-]{1,64}"))]
# Longer than what the configuration takes: whoever brings a key of their own brings one that is worth keeping.
OwnKey = Annotated[str, Meta(pattern=whole(r"[!-~]+"), min_length=24, max_length=256)]
PerMinute = Annotated[int, Meta(ge=1, le=2**53)]
Tokens = Annotated[int, Meta(ge=1, le=2**53)]
# The end of the year 9999.
Moment = Annotated[float, Meta(gt=0, le=253_402_300_799)]
Models = Annotated[tuple[ModelName, ...], Meta(max_length=1000)]
KeyState = Literal["active", "expired", "revoked", "exhausted"]
# Who told of a key: the configuration file, or the admin API.
KeyOrigin = Literal["configuration", "issued"]
KeySort = Literal["created", "name", "expires", "last_used", "spent"]
# How long a replaced key may still open at most.
MAX_GRACE = 30 * 86_400


class KeyWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A key to make. `key`: one of your own, of at least 24 characters, in place of a new one."""

    name: Annotated[KeyName, said("whose key it is; told in logs, unlike the key")]
    key: Annotated[OwnKey | None, said("a key that exists already; a new one is made if unset")] = None
    requests_per_minute: Annotated[PerMinute | None, said("no limit if unset")] = None
    tokens_per_minute: Annotated[PerMinute | None, said("prompt and reply together; no limit if unset")] = None
    models: Annotated[Models, said("the models it may use; all if unset")] = ()
    priority: Annotated[Priority, said("the highest it may ask for, and what it gets when it asks for none")] = "normal"
    expires: Annotated[Moment | None, said("when it stops to open; never if unset")] = None
    budget_tokens: Annotated[Tokens | None, said("tokens in each period, prompt and reply together")] = None
    budget_period: Annotated[Period, said("when the budget begins anew, in UTC; `total` never does")] = "month"
    keep_content: Annotated[bool, said("whether its prompts and answers may be kept")] = False

    def __repr__(self) -> str:
        return f"KeyWanted({self.name})"


class KeyPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What is to change of a key (RFC 7396); null takes a limit away. Its name stays."""

    requests_per_minute: PerMinute | UnsetType | None = UNSET
    tokens_per_minute: PerMinute | UnsetType | None = UNSET
    models: Models | UnsetType | None = UNSET
    priority: Priority | UnsetType = UNSET
    expires: Moment | UnsetType | None = UNSET
    budget_tokens: Tokens | UnsetType | None = UNSET
    budget_period: Period | UnsetType = UNSET
    keep_content: bool | UnsetType = UNSET


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """How a key is replaced by a new one."""

    grace: Annotated[
        Annotated[float, Meta(ge=0, le=MAX_GRACE)], said("for so long the old key opens too; 0: not any more")
    ] = 3600.0


class LimitReport(msgspec.Struct, frozen=True):
    """A limit a minute: what is left now, and the seconds until all of it is again."""

    limit: int
    remaining: int
    reset: float


class BudgetReport(msgspec.Struct, frozen=True, kw_only=True):
    """A budget: what is `spent`, what requests under way have `reserved`, what is `left` for others. `ends`: when it begins
    anew, null for never.
    """

    tokens: int
    period: Period
    spent: int
    reserved: int
    left: int
    ends: float | None


class KeyReport(msgspec.Struct, frozen=True, kw_only=True):
    """One key, but never the key itself: `hint` is its last four characters. After a rotation the old key opens until
    `previous_until`.
    """

    id: str
    name: str
    origin: KeyOrigin
    state: KeyState
    hint: str | None
    models: list[str]
    priority: Priority
    keep_content: bool
    requests: LimitReport | None
    tokens: LimitReport | None
    budget: BudgetReport | None
    created: float | None
    changed: float | None
    version: int
    expires: float | None
    revoked: float | None
    previous_until: float | None
    last_used: float | None


class KeyIssued(KeyReport, frozen=True, kw_only=True):
    """A key that was made just now. `key` is told here and never again; null for one that was brought. `closes`: clients
    without a key were let in until now.
    """

    key: str | None
    closes: bool = False

    def __repr__(self) -> str:
        return f"KeyIssued({self.name})"


class KeyList(msgspec.Struct, frozen=True):
    """A page of keys. `total`: all that were asked for; `next_cursor`: where the next page begins."""

    keys: list[KeyReport]
    total: int
    next_cursor: str | None = None


class KeyQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which keys are listed, and in which order. Filters are joined by "and"."""

    state: Annotated[KeyState | None, said("those in this state")] = None
    origin: Annotated[KeyOrigin | None, said("those that came this way")] = None
    model: Annotated[ModelName | None, said("those that may use this model")] = None
    priority: Annotated[Priority | None, said("those with this priority")] = None
    text: Annotated[
        Annotated[str, Meta(max_length=200)] | None, said("those with this text in id, name or hint, in any case")
    ] = None
    sort: Annotated[KeySort, said("what they are sorted by; those without a value come last")] = "created"
    order: Annotated[Literal["asc", "desc"], said("upwards or downwards")] = "asc"
    limit: Annotated[Annotated[int, Meta(ge=1, le=1000)], said("so many at most")] = 100
    cursor: Annotated[
        Annotated[str, Meta(max_length=2048)] | None, said("`next_cursor` of the page before, with the same `sort`")
    ] = None
