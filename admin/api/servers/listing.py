"""A page of the servers that a query asks for."""

from typing import Any

from quiver.schemas.servers import ServerList, ServerQuery, ServerReport, ServerSort

from ..paging import cut

# What is text among that which servers are sorted by.
_TEXTS = frozenset({"id", "model", "health"})


def page(reports: list[ServerReport], query: ServerQuery) -> ServerList:
    """The servers of `reports` that `query` asks for. Raises `ApiError` (400) for a cursor of another list."""
    wanted = [report for report in reports if _matches(report, query)]
    found, cursor = cut(wanted, query, _value, _TEXTS)
    return ServerList(found, len(wanted), cursor)


def _matches(report: ServerReport, query: ServerQuery) -> bool:
    metadata = report.metadata
    return (
        query.model in (None, *report.models)
        and query.health in (None, report.health)
        and query.state in (None, report.state)
        and query.mode in (None, report.mode)
        and query.origin in (None, report.origin)
        and query.owner in (None, metadata.owner)
        and all(tag in metadata.tags for tag in query.tag)
        and (query.text is None or query.text.casefold() in _words(report))
    )


def _words(report: ServerReport) -> str:
    metadata = report.metadata
    texts = (report.id, report.url, *report.models, metadata.owner, metadata.description, *metadata.tags, report.reason)
    return "\n".join(text for text in texts if text).casefold()


def _value(report: ServerReport, sort: ServerSort) -> Any:
    match sort:
        case "created" | "id" | "health" | "in_flight":
            return getattr(report, sort)
        case "model":
            return min(report.models, default=None)
        case "checked":
            return report.checked_at
        case "latency":
            return report.mean_seconds
