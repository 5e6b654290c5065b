"""A page of the client keys that a query asks for."""

from typing import Any

from quiver.schemas.keys import KeyList, KeyQuery, KeyReport, KeySort

from ..paging import cut

# What is text among that which keys are sorted by.
_TEXTS = frozenset({"name"})


def page(reports: list[KeyReport], query: KeyQuery) -> KeyList:
    """The keys of `reports` that `query` asks for. Raises `ApiError` (400) for a cursor of another list."""
    wanted = [report for report in reports if _matches(report, query)]
    found, cursor = cut(wanted, query, _value, _TEXTS)
    return KeyList(found, len(wanted), cursor)


def _matches(report: KeyReport, query: KeyQuery) -> bool:
    words = f"{report.id}\n{report.name}\n{report.hint or ''}".casefold()
    return (
        query.state in (None, report.state)
        and query.origin in (None, report.origin)
        and query.priority in (None, report.priority)
        and (query.model is None or not report.models or query.model in report.models)
        and (query.text is None or query.text.casefold() in words)
    )


def _value(report: KeyReport, sort: KeySort) -> Any:
    if sort == "spent":
        return None if report.budget is None else report.budget.spent
    return getattr(report, sort)
