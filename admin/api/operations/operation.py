"""One operation of the API: what a method of a path takes and gives, as types, and what can go wrong, as statuses."""

from dataclasses import dataclass, field
from typing import Literal

import msgspec
from quiver.schemas import errors

EVERY_STATUS = tuple(sorted({kind.status for kind in errors.CATALOGUE}))
# What any operation of the admin API may answer.
ADMIN_FAILURES = (401, 403, 500)


@dataclass(frozen=True)
class Operation:
    """One method of one path. `stream`: the type of its server-sent events, when it can stream; `query`: its query
    parameters, one for each field; `lock`: whose key it takes (`outsider`: a client's, from other machines only);
    `successes`: the statuses of its replies and what they say; `also`: content types that it can give instead of its
    reply's; `tagged`: replies have an `ETag`, so that a reader may ask only for what is new, and a change may be refused
    that was meant for another version.
    """

    id: str
    method: Literal["get", "post", "put", "patch", "delete"]
    path: str
    summary: str
    tag: Literal["inference", "operation", "administration"]
    reply: type[msgspec.Struct] | str  # a content type for what is not JSON
    request: type[msgspec.Struct] | None = None
    stream: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    also: tuple[str, ...] = ()
    tagged: bool = False
    failures: tuple[int, ...] = (500,)
    lock: Literal["none", "client", "outsider", "operator"] = "none"
    example: object = None
    successes: dict[int, str] = field(default_factory=lambda: {200: "OK"})

    @property
    def all_failures(self) -> tuple[int, ...]:
        """`failures`, and what goes without saying: a bad body or query, one that is too large, a version that is gone."""
        found = set(self.failures)
        if self.request is not None:
            found |= {400, 408, 413, 415}
        if self.query is not None:
            found |= {400, 414}
        if self.tagged and self.method != "get":
            found.add(412)
        return tuple(sorted(found))
