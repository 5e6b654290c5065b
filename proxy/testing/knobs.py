"""What a seed decides before a run begins: the gateway's settings, the servers, the clients, the weather.

Every setting that can change what the gateway does has its range here, narrow values included: a limit of one is where
mistakes live.
"""

from random import Random
from typing import Any

import msgspec
from quiver.schemas.config import Config, RemoteBackend

from ..network import Address
from .network import Link
from .pipe import Direction, Fault, FaultKind

MODELS = ("alpha", "beta")
NICKNAME = "nickname"
FORBIDDEN_HOST = "169.254.169.254"
SERVER_PORT = 9000
GATEWAY = Address("127.0.0.1", 8080)

KNOBS: dict[str, dict[str, tuple[object, ...]]] = {
    "server": {
        "head_timeout": (2.0, 10.0),
        "body_timeout": (3.0, 10.0),
        "keep_alive": (0.5, 5.0, 20.0),
        "write_timeout": (0.5, 2.0, 4.0),
        "max_connections": (4096, 4096, 4096, 6),
    },
    "limits": {
        "request": (3.0, 10.0, 30.0),
        "connect": (0.5, 2.0),
        "first_byte": (2.0, 5.0, 30.0),
        "idle": (0.5, 3.0, 20.0),
        "heartbeat": (0.1, 0.3, 15.0),
        "json_heartbeat": (0.0, 0.0, 0.5),
    },
    "retries": {"attempts": (1, 2, 3, 5), "budget": (0.0, 0.2, 1.0), "budget_floor": (0, 2, 20)},
    "drain": {"delay": (0.0, 0.0, 1.0), "timeout": (0.0, 0.5, 5.0, 30.0)},
    "rate": {"anonymous_requests_per_minute": (0, 0, 3, 60)},
    "admission": {
        "queue": (0, 2, 512),
        "max_wait": (0.5, 5.0, 60.0),
        "aging": (0.5, 15.0),
        "max_in_flight": (1, 4, 4096),
    },
    "reuse": {
        "share": (True, False),
        "cache": (True, True, False),
        "max_bytes": (0, 1500, 1_000_000, 1_000_000),
        "max_entry": (0, 700, 100_000, 100_000),
        "ttl": (1.0, 300.0),
    },
    "routing": {
        "policy": (
            "round_robin",
            "weighted",
            "least_in_flight",
            "peak_ewma",
            "prefix_affinity",
            "session_affinity",
        ),
        "aliases": ({}, {NICKNAME: "alpha"}),
        "fallbacks": ({}, {"alpha": ("beta",), "beta": ("alpha",)}),
    },
    "health": {
        "interval": (5.0, 20.0, 60.0),
        "timeout": (1.0, 5.0),
        "failures": (1, 2, 3),
        "ejection": (1.0, 5.0),
        "max_ejection": (5.0, 20.0),
    },
}
KEY_KNOBS: dict[str, tuple[object, ...]] = {
    "requests_per_minute": (None, None, 2, 5, 60),
    "tokens_per_minute": (None, 40, 60, 1000),  # the least is enough for one request, and not for two
    "priority": ("critical", "high", "normal", "low"),
    "models": ((), (), ("alpha",)),
}
# Small windows make writers wait. Clients are the ones who may not read.
CLIENT_WINDOWS = (300, 1000, 65_536)
SERVER_WINDOWS = (300, 4096, 65_536, 65_536, 65_536)
# A client with no limits, for questions that have to be answered: a key, or where there are none a loopback address.
PROBER_KEY = "prober-key"
PROBER_HOST = "127.0.0.9"


class ServerPlan(msgspec.Struct, frozen=True):
    """One model server: two addresses, of which DNS tells one at a time; `sickness`: its share of requests that go wrong."""

    name: str
    models: tuple[str, ...]
    key: str | None
    fixed_models: bool
    max_concurrency: int | None
    weight: float
    sickness: float
    reports: bool

    @property
    def domain(self) -> str:
        return f"{self.name}.test"

    @property
    def hosts(self) -> tuple[str, str]:
        number = self.name.removeprefix("server")
        return f"10.0.0.{number}", f"10.0.1.{number}"

    def registration(self) -> RemoteBackend:
        """Its entry in the gateway's registry."""
        return RemoteBackend(
            url=f"http://{self.domain}:{SERVER_PORT}",
            name=self.name,
            models=self.models if self.fixed_models else (),
            api_key=self.key,
            weight=self.weight,
            max_concurrency=self.max_concurrency,
        )


class Plan(msgspec.Struct, frozen=True):
    """One run. `storm`: the share of connections that something befalls; `span`: virtual seconds of faults; `sameness`:
    the share of requests that others make in the very same words.
    """

    config: Config
    servers: tuple[ServerPlan, ...]
    clients: int
    storm: float
    span: float
    sameness: float


def draw_plan(random: Random) -> Plan:
    """A random plan. Every model has a server that is registered from the start."""
    servers = tuple(_server(random, number) for number in range(1, random.randint(2, 4) + 1))
    keys = [_key(random, number) for number in range(random.choice((0, 1, 3, 3)))]
    if keys:
        keys.append({"name": "prober", "key": PROBER_KEY, "priority": "critical"})
    settings: dict[str, Any] = {
        section: {name: random.choice(values) for name, values in knobs.items()} for section, knobs in KNOBS.items()
    }
    settings["engine"] = {"bolt": False}
    settings["keys"] = keys
    settings["backends"] = [msgspec.to_builtins(server.registration()) for server in servers]
    return Plan(
        config=msgspec.convert(settings, Config),
        servers=servers,
        clients=random.randint(4, 12),
        storm=random.choice((0.0, 0.1, 0.3, 0.6)),
        span=random.choice((3.0, 10.0, 30.0)),
        sameness=random.choice((0.1, 0.5, 0.9)),
    )


def draw_link(random: Random, storm: float, address: Address) -> Link:
    """What becomes of a connection to `address`, when the share `storm` of all meets with something."""
    windows = CLIENT_WINDOWS if address == GATEWAY else SERVER_WINDOWS
    there, back = _direction(random, windows), _direction(random, windows)
    if random.random() >= storm:
        return Link(there=there, back=back)
    fate = random.choice(("refused", "black_hole", "there", "back", "back", "back", "back"))
    if fate == "refused":
        return Link("refused", there, back)
    if fate == "black_hole":
        return Link("black_hole", there, back)
    kind: FaultKind = random.choice(("reset", "eof", "stall"))
    fault = Fault(kind, random.choice((0, 1, 20, 90, 150, 200, 300, 500, 900, 1500)))
    if fate == "there":
        return Link(there=msgspec.structs.replace(there, fault=fault), back=back)
    return Link(there=there, back=msgspec.structs.replace(back, fault=fault))


def _direction(random: Random, windows: tuple[int, ...]) -> Direction:
    return Direction(
        latency=random.choice((0.0001, 0.001, 0.02, 0.2)),
        window=random.choice(windows),
        ragged=random.choice((0.0, 0.0, 0.0, 0.2, 0.6)),
    )


def _server(random: Random, number: int) -> ServerPlan:
    return ServerPlan(
        name=f"server{number}",
        models=MODELS if number == 1 else random.choice((MODELS, MODELS[:1], MODELS[1:])),
        key=random.choice((None, f"upstream-key-{number}")),
        fixed_models=random.choice((True, False)),
        max_concurrency=random.choice((None, 1, 2)),
        weight=random.choice((0.5, 1.0, 3.0)),
        sickness=random.choice((0.0, 0.3, 0.8)),
        reports=random.choice((True, False)),
    )


def _key(random: Random, number: int) -> dict[str, object]:
    drawn = {name: random.choice(values) for name, values in KEY_KNOBS.items()}
    return {"name": f"client{number}", "key": f"client-key-{number}", **drawn}
