"""A gateway's exchange handler over scripted backends, with its records at hand."""

from collections.abc import Callable, Sequence

import pytest
from quiver.proxy.accounting import Ledger
from quiver.proxy.auth import KeyRing
from quiver.proxy.exchange import ExchangeHandler
from quiver.proxy.metrics import Metrics
from quiver.proxy.record import Record
from quiver.proxy.registry import Backend, Registry
from quiver.proxy.testing import fixed_world
from quiver.schemas.config import Limits


class RecordingLedger(Ledger):
    """Keeps the records it is given."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(metrics)
        self.records: list[Record] = []

    def record(self, record: Record) -> None:
        self.records.append(record)
        super().record(record)


def records(handler: ExchangeHandler) -> list[Record]:
    """What the handler has recorded so far."""
    assert isinstance(handler.ledger, RecordingLedger)
    return handler.ledger.records


Build = Callable[..., ExchangeHandler]


@pytest.fixture
def build() -> Build:
    def build(
        backends: Sequence[Backend], *, keys: Sequence[str] = (), limits: Limits | None = None
    ) -> ExchangeHandler:
        metrics = Metrics()
        return ExchangeHandler(
            Registry(backends), KeyRing(keys), limits or Limits(), RecordingLedger(metrics), metrics, fixed_world()
        )

    return build
