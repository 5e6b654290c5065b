"""The log."""

from quiver.schemas.logs import LevelChange, LevelsReport, LogLine, LogPage, LogQuery

from .operation import ADMIN_FAILURES, Operation

LOGS = (
    Operation(
        "listLogs",
        "get",
        "/admin/logs",
        "Show what was logged, the newest first; `Accept: text/event-stream` follows it",
        "administration",
        LogPage,
        query=LogQuery,
        stream=LogLine,
        failures=(400, *ADMIN_FAILURES, 429),
        lock="operator",
    ),
    Operation(
        "getLogLevels",
        "get",
        "/admin/logs/levels",
        "Show how much each component logs",
        "administration",
        LevelsReport,
        failures=ADMIN_FAILURES,
        lock="operator",
    ),
    Operation(
        "setLogLevel",
        "put",
        "/admin/logs/levels",
        "Change how much a component logs, for good or for a while",
        "administration",
        LevelsReport,
        request=LevelChange,
        failures=(400, *ADMIN_FAILURES, 415),
        lock="operator",
        example={"component": "health", "level": "debug", "seconds": 600},
    ),
)
