"""The configuration."""

from quiver.schemas.settings import ConfigReport, Reloaded

from .operation import ADMIN_FAILURES, Operation

CONFIGURATION = (
    Operation(
        "getConfiguration",
        "get",
        "/admin/config",
        "Show every setting, where it comes from, and what waits for a restart; secrets are masked",
        "administration",
        ConfigReport,
        failures=ADMIN_FAILURES,
        lock="operator",
    ),
    Operation(
        "reloadConfiguration",
        "post",
        "/admin/config/reload",
        "Read the configuration again and put it in force; on an error nothing changes",
        "administration",
        Reloaded,
        failures=(*ADMIN_FAILURES, 422),
        lock="operator",
    ),
)
