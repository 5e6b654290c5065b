"""The backends the gateway knows, which models each offers, and what models are called.

A `Backend` is a registered server or the built-in engine: both take a `Call` and answer through a `Reply`. The set of
backends and what they offer may change at any time; calls that run go on with the backend they have.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

import msgspec
from quiver.schemas.config import Priority, Routing

from .reply import Reply
from .routing.load import Load
from .watch import Watch

Health = Literal["healthy", "unhealthy", "unknown"]

# English text has about four bytes a token; where a server has not counted, a guess has to do.
BYTES_A_TOKEN = 4


# The tier of servers that get calls only when there are no others: see `Backend.tier`.
OUT_OF_SERVICE = 3


class Call(msgspec.Struct, frozen=True):
    """One inference request as every backend takes it. `body` is the client's own but for the model's name, where that
    was an alias. `endpoint` is the path below `/v1/`; `scope` says what may be reused of one call for another: only what
    has the same scope. `tokens`: about how many it will take, prompt and reply; `reply_tokens` of them at most for the
    reply, 0 if the client did not say. `id_is_ours`: the request's id is none that its client made up.
    """

    endpoint: str
    model: str
    stream: bool
    body: bytes
    headers: Sequence[tuple[bytes, bytes]]
    request_id: str
    scope: str
    tokens: int = 0
    reply_tokens: int = 0
    id_is_ours: bool = False
    priority: Priority = "normal"


class BackendStatus(msgspec.Struct, frozen=True):
    """One line about a backend, for `/health`, `quiver status` and logs."""

    id: str
    kind: Literal["engine", "remote"]
    address: str
    models: tuple[str, ...]
    health: Health
    reason: str | None
    in_flight: int


class Backend(Protocol):
    """What routing needs to know of a backend, and how a call is carried out on it."""

    @property
    def id(self) -> str: ...

    @property
    def models(self) -> tuple[str, ...]: ...

    @property
    def load(self) -> Load: ...

    @property
    def health(self) -> Health: ...

    @property
    def endpoints(self) -> Sequence[str]:
        """The paths below `/v1/` it serves."""
        ...

    @property
    def serving(self) -> bool:
        """Whether its operator lets it have new calls."""
        ...

    def takes(self, call: Call) -> bool:
        """Whether it can carry out such a call at all."""
        ...

    def fits(self, call: Call) -> bool:
        """Whether the call is likely to be within its limits."""
        ...

    def ready(self, call: Call, now: float) -> bool:
        """Whether nothing at all speaks against giving it the call: it is healthy, free, and right for it."""
        ...

    def tier(self, now: float) -> int:
        """How much it is to be trusted: 0 healthy, 1 unknown, 2 suspect, 3 out of service."""
        ...

    def paused_until(self, model: str) -> float:
        """Until when it wants no calls for `model`, on Trio's clock; 0 for no pause."""
        ...

    def status(self) -> BackendStatus: ...

    async def forward(self, call: Call, reply: Reply, watch: Watch) -> None:
        """Answer `call` through `reply` within the time that `watch` allows, and note in `reply` what it cost.

        Raises `ApiError`. While `reply.committed` is false the caller may try another backend.
        """
        ...


class Target(msgspec.Struct, frozen=True):
    """A model that may answer a request, by the name its backends know."""

    model: str
    backends: tuple[Backend, ...]


class Registry:
    """The backends, in the order they were added. `changed` is called after every change of backends or their models."""

    def __init__(self, backends: Sequence[Backend] = (), routing: Routing | None = None) -> None:
        self._routing = routing or Routing()
        self._backends: dict[str, Backend] = {}
        self._chains: dict[str, tuple[Target, ...]] = {}
        self._endpoints: frozenset[str] = frozenset()
        self.changed: Callable[[], None] = lambda: None
        for backend in backends:
            self.add(backend)

    def __repr__(self) -> str:
        return f"<Registry: {', '.join(self._backends) or 'empty'}>"

    def __iter__(self) -> Iterator[Backend]:
        return iter(list(self._backends.values()))

    def get(self, id: str) -> Backend | None:
        """The backend with this id."""
        return self._backends.get(id)

    def add(self, backend: Backend) -> None:
        """Raises `ValueError` when the id is taken."""
        if backend.id in self._backends:
            raise ValueError(f"two backends are called `{backend.id}`; give one of them a `name`")
        self._backends[backend.id] = backend
        self.refresh()

    def replace(self, backend: Backend) -> Backend | None:
        """Put `backend` in the place of the one with the same id, which gets no new calls; the one that was there."""
        before = self._backends.get(backend.id)
        self._backends[backend.id] = backend
        self.refresh()
        return before

    def remove(self, id: str) -> Backend | None:
        """Give the backend no new calls. Those that run on it go on."""
        backend = self._backends.pop(id, None)
        self.refresh()
        return backend

    def exchange(self, removed: Sequence[Backend], added: Sequence[Backend]) -> None:
        """Take some out and others in, or in the place of those with the same id, as one change."""
        for backend in removed:
            self._backends.pop(backend.id, None)
        for backend in added:
            self._backends[backend.id] = backend
        self.refresh()

    def configure(self, routing: Routing) -> None:
        """From now on models have these other names and fallbacks."""
        self._routing = routing
        self.refresh()

    def refresh(self) -> None:
        """What a backend offers has changed."""
        self._chains = {}
        self._endpoints = frozenset(endpoint for backend in self for endpoint in backend.endpoints)
        self.changed()

    def serves(self, endpoint: str) -> bool:
        """Whether any backend serves the path `/v1/{endpoint}`."""
        return endpoint in self._endpoints

    def chain(self, name: str) -> tuple[Target, ...]:
        """Who may answer a request for `name`: the model itself, or what it is an alias of, then its fallbacks. Empty when
        nobody offers any of them.
        """
        chain = self._chains.get(name)
        if chain is None:
            chain = self._chain(name)
            if chain:  # names that nobody offers come from clients, and there is no end to them
                self._chains[name] = chain
        return chain

    def offering(self, model: str) -> tuple[Backend, ...]:
        """The backends that offer exactly this model."""
        return tuple(backend for backend in self._backends.values() if model in backend.models)

    def models(self) -> dict[str, str]:
        """Every name a client may ask for, and the id of the first backend that answers to it."""
        owners: dict[str, str] = {}
        for backend in self:
            for model in backend.models:
                owners.setdefault(model, backend.id)
        aliases = {alias: owners[model] for alias, model in self._routing.aliases.items() if model in owners}
        return owners | {alias: owner for alias, owner in aliases.items() if alias not in owners}

    def _chain(self, name: str) -> tuple[Target, ...]:
        routing = self._routing
        first = self._own(name)
        fallbacks = (self._own(other) for other in routing.fallbacks.get(name, routing.fallbacks.get(first, ())))
        models = dict.fromkeys([first, *fallbacks])
        targets = (Target(model, self.offering(model)) for model in models)
        return tuple(target for target in targets if target.backends)

    def _own(self, name: str) -> str:
        """The model behind an alias. A model of that name comes first, and aliases do not lead to aliases."""
        return name if self.offering(name) else self._routing.aliases.get(name, name)
