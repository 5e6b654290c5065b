"""What the two ends of a join tell each other: the offer, the welcome, the farewell, and the gateway's count.

They travel as JSON inside the tunnel's frames. Unknown fields are passed over, so that either end may be newer.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .config import Capabilities, HttpUrl, ServerName
from .forms import whole
from .openai import ModelName
from .saved import Metadata

# Of the tunnel's frames. Ends of different versions do not talk to each other.
PROTOCOL = 1

FarewellCode = Literal[
    "leaving",
    "shutting_down",
    "replaced",
    "dismissed",
    "name_taken",
    "too_many",
    "bad_offer",
    "unknown_version",
    "protocol_error",
]


class Offer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a joiner brings: one server, by a name of its own. `url` is where the joiner reaches it; the gateway uses it for
    the `Host` field and the path and cannot connect to it. `resume` is random and the same for one run of a joiner: who
    shows it takes the place of its own dead link at once.
    """

    protocol: int
    software: Annotated[str, Meta(max_length=64)]
    name: ServerName
    resume: Annotated[str, Meta(min_length=16, max_length=128)]
    url: HttpUrl
    models: Annotated[tuple[ModelName, ...], Meta(max_length=1024)] = ()
    api_key: Annotated[str, Meta(pattern=whole(r"[!-~]+"), max_length=4096)] | None = None
    max_concurrency: Annotated[int, Meta(ge=1)] | None = None
    weight: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    capabilities: Capabilities = Capabilities()
    metadata: Metadata = Metadata()
    paused: bool = False

    def __repr__(self) -> str:
        return f"Offer({self.name}, {self.url})"


class Welcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The gateway takes the offer. `heartbeat`: seconds between pings, of both ends."""

    protocol: int
    software: str
    heartbeat: Annotated[float, Meta(gt=0, le=3600)]
    resumed: bool = False


class Farewell(msgspec.Struct, frozen=True):
    """Why an end closes the tunnel. `final`: trying again would not help."""

    code: FarewellCode | str
    message: str
    final: bool = False


class Tally(msgspec.Struct, frozen=True):
    """What the gateway has asked of the server since it joined, for its owner to see."""

    served: int
    failed: int
    in_flight: int
    tokens: int
    mode: str = "serving"


class JoinReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway knows of a joined server beyond any other: its link, up or down since `since`, how often that came back,
    and what went through it. `paused`: by its owner. `round_trip`: seconds to it and back; `streams`: connections inside the
    link; `served`, `failed` and `tokens` count since it joined.
    """

    link: Literal["up", "down", "leaving"]
    since: float
    peer: str
    software: str
    paused: bool
    reconnects: int
    round_trip: float | None
    streams: int
    bytes_sent: int
    bytes_received: int
    served: int
    failed: int
    tokens: int


JoinState = Literal["connecting", "joined", "waiting", "leaving", "left"]


class JoinStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a join stands, as its own end sees it. Moments are Unix time. `reason`: why there is no link; `retry_at`: when it
    is tried again; `round_trip`: seconds to the gateway and back; `tally`: the gateway's count.
    """

    name: str
    gateway: str
    server: str
    state: JoinState
    paused: bool
    since: float
    reason: str | None = None
    retry_at: float | None = None
    reconnects: int = 0
    round_trip: float | None = None
    streams: int = 0
    tally: Tally | None = None
