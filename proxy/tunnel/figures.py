"""What a joined server tells the metrics page beyond any other: its link."""

from collections.abc import Iterator

from ..telemetry.metrics import Figure
from .joined import JoinedServer


def link_figures(server: JoinedServer) -> Iterator[Figure]:
    """Figures of one link; the server's id is their label."""
    label, link = ("server", server.id), server.link
    figures = link.statistics()
    yield Figure("gauge", "quiver_join_up", "Whether a joined server's link is up", server.standing != "down", (label,))
    yield Figure("gauge", "quiver_join_paused", "Whether its owner has paused it", server.paused, (label,))
    yield Figure("counter", "quiver_join_reconnects", "Times a link came back", server.reconnects, (label,))
    yield Figure("gauge", "quiver_join_streams", "Connections inside a link", figures.streams, (label,))
    yield Figure("gauge", "quiver_join_buffered_bytes", "Bytes held for a link's streams", figures.buffered, (label,))
    if link.round_trip is not None:
        meaning = "Time to a joined server's machine and back"
        yield Figure("gauge", "quiver_join_round_trip_seconds", meaning, link.round_trip, (label,))
    for direction, count in (("sent", figures.sent), ("received", figures.received)):
        meaning = "Bytes of a link, since it was opened last"
        yield Figure("counter", "quiver_join_bytes", meaning, count, (label, ("direction", direction)))
