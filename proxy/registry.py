"""The backends the gateway knows, and which models each offers.

A `Backend` is a registered server or the built-in engine: both take a `Call` and answer through a `Reply`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from .reply import Reply

Endpoint = Literal["chat/completions", "completions"]
Health = Literal["healthy", "unhealthy", "unknown"]


@dataclass(frozen=True, slots=True)
class Call:
    """One inference request as every backend takes it. `body` is the client's own, byte for byte."""

    endpoint: Endpoint
    model: str
    stream: bool
    body: bytes
    headers: Sequence[tuple[bytes, bytes]]
    request_id: str
    scope: str  # what may be reused of one call for another: only what has the same scope


@dataclass(frozen=True, slots=True)
class BackendStatus:
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
    def health(self) -> Health: ...

    def status(self) -> BackendStatus: ...

    async def forward(self, call: Call, reply: Reply) -> None:
        """Answer `call` through `reply`, and note there what it cost.

        Raises `ApiError`. While `reply.committed` is false the caller may try another backend.
        """
        ...


class Registry:
    """The backends, in the order they were configured."""

    def __init__(self, backends: Sequence[Backend] = ()) -> None:
        self._backends: dict[str, Backend] = {}
        for backend in backends:
            self.add(backend)

    def __repr__(self) -> str:
        return f"<Registry: {', '.join(self._backends) or 'empty'}>"

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._backends.values())

    def add(self, backend: Backend) -> None:
        """Raises `ValueError` when the id is taken."""
        if backend.id in self._backends:
            raise ValueError(f"two backends are called `{backend.id}`; give one of them a `name`")
        self._backends[backend.id] = backend

    def offering(self, model: str) -> list[Backend]:
        """All backends that offer `model`, healthy or not."""
        return [backend for backend in self if model in backend.models]

    def models(self) -> dict[str, str]:
        """Every model on offer and the id of the first backend that offers it."""
        owners: dict[str, str] = {}
        for backend in self:
            for model in backend.models:
                owners.setdefault(model, backend.id)
        return owners
