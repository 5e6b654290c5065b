"""What a remote server tells the metrics page: its circuit, its checks and its connections."""

from collections.abc import Iterator

from ..telemetry.metrics import Figure
from .backend import RemoteServer
from .circuit import TRANSITIONS


def server_figures(server: RemoteServer) -> Iterator[Figure]:
    """Figures of one server; its id is their label."""
    label, circuit, connections = ("server", server.id), server.circuit, server.statistics()
    states: dict[str, bool] = {state: state == circuit.state for state in TRANSITIONS}
    yield Figure("states", "quiver_circuit_state", "What a server's answers say of it, one of these", states, (label,))
    for state in states:
        count = circuit.tally.entered.get(state, 0)
        meaning = "Times a circuit came into a state"
        yield Figure("counter", "quiver_circuit_transitions", meaning, count, (label, ("state", state)))
    for result, histogram in (("passed", circuit.tally.passed), ("failed", circuit.tally.failed)):
        meaning = "Duration of health checks"
        yield Figure("histogram", "quiver_health_check_seconds", meaning, histogram, (label, ("result", result)))
    for state, count in (("busy", connections.busy), ("idle", connections.idle)):
        meaning = "Connections to a server, carrying a request or kept for the next"
        yield Figure("gauge", "quiver_upstream_connections", meaning, count, (label, ("state", state)))
    yield Figure(
        "counter", "quiver_upstream_connections_opened", "Connections made to a server", connections.opened, (label,)
    )
