"""The gateway's figures since its start, as `/admin/stats` tells them."""

import msgspec
from quiver.proxy.gateway import Gateway
from quiver.proxy.remote.backend import RemoteServer
from quiver.proxy.telemetry.metrics import Metrics
from quiver.schemas.errors import ApiError
from quiver.schemas.figures import (
    AdmissionFigures,
    ClientFigures,
    RecordFigures,
    RequestFigures,
    ReuseFigures,
    StatsReport,
    StoreFigures,
)
from quiver.schemas.history import ModelTotals
from quiver.schemas.servers import Connections


async def figures(gateway: Gateway, uptime: float) -> StatsReport:
    """What `gateway` has done in its `uptime` (seconds), what it is doing, and what its models did today."""
    upstream = [backend.statistics() for backend in gateway.registry if isinstance(backend, RemoteServer)]
    return StatsReport(
        uptime=round(uptime, 3),
        in_flight=gateway.exchanges.in_flight,
        connections=gateway.metrics.connections,
        requests=_requests(gateway.metrics),
        admission=msgspec.convert(gateway.admission.statistics(), AdmissionFigures, from_attributes=True),
        reuse=msgspec.convert(gateway.reuse.statistics(), ReuseFigures, from_attributes=True),
        clients=msgspec.convert(gateway.keys.statistics(), ClientFigures, from_attributes=True),
        upstream=Connections(sum(each.busy for each in upstream), sum(each.idle for each in upstream)),
        records=RecordFigures(gateway.ledger.written, gateway.ledger.dropped),
        store=msgspec.convert(gateway.store.statistics(), StoreFigures, from_attributes=True),
        today=await _today(gateway),
    )


async def _today(gateway: Gateway) -> list[ModelTotals] | None:
    """None: the history cannot be read just now, and the other figures can."""
    try:
        return await gateway.store.history.today()
    except ApiError:
        return None


def _requests(metrics: Metrics) -> RequestFigures:
    outcomes: dict[str, int] = {}
    for (_, _, _, _, outcome, _), cell in metrics.cells.items():
        outcomes[outcome] = outcomes.get(outcome, 0) + cell.count
    cells = metrics.cells.values()
    return RequestFigures(
        total=sum(outcomes.values()),
        by_outcome=outcomes,
        retries=metrics.retries,
        prompt_tokens=sum(cell.prompt_tokens for cell in cells),
        completion_tokens=sum(cell.completion_tokens for cell in cells),
        wasted_tokens=metrics.wasted_tokens,
    )
