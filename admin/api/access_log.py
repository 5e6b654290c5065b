"""One line for each request of the control plane, and its id: the client's own, or one made here."""

import structlog
import trio
from quart import Response, g, request
from quart_trio import QuartTrio
from quiver.proxy.gateway import Gateway
from quiver.proxy.request import REQUEST_ID, usable_id
from quiver.proxy.telemetry.levels import DEBUG, ERROR, INFO, WARNING

from .lock import header_lookup

# What machines ask for all day long, and what would fill the log that it reads.
QUIET = frozenset({"/health", "/healthz", "/readyz", "/metrics", "/admin/logs"})
LONGEST_PATH = 200
# What is counted apart: a client may call a method anything.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def add_access_log(app: QuartTrio, gateway: Gateway) -> None:
    """Log every request. Queries are left out: they may hold what nobody should read."""
    log = structlog.get_logger(component="api")

    @app.before_request
    async def begin() -> None:
        g.began = trio.current_time()
        g.request_id = usable_id(header_lookup(request)(b"x-request-id")) or gateway.world.unique_id("req_")
        REQUEST_ID.set(g.request_id)

    @app.after_request
    async def tell(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        route = request.url_rule.rule if request.url_rule is not None else "none"
        method = request.method if request.method in METHODS else "other"
        gateway.metrics.answered(route, method, response.status_code)
        path, status = request.path[:LONGEST_PATH], response.status_code
        log.log(
            _level(path, status),
            f"{request.method} {path}",
            method=request.method,
            path=path,
            status=status,
            duration_ms=round(1000 * (trio.current_time() - g.began), 3),
            client=request.remote_addr,
        )
        return response


def _level(path: str, status: int) -> int:
    if status >= 400:
        return ERROR if status >= 500 and status != 503 else WARNING
    return DEBUG if path in QUIET or request.endpoint == "static" else INFO
