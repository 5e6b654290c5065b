"""The control plane's web application, beside the inference API on the same port: health, status, metrics, API page, and the
admin API of `administration`.

A Quart-Trio application over one running `Gateway`. Errors are OpenAI's envelope here too.
"""

import io
from functools import lru_cache

import msgspec
import quiver
import structlog
import trio
from quart import Response, g, has_websocket_context, redirect, request, websocket
from quart.typing import ResponseReturnValue
from quart_trio import QuartTrio
from quiver.proxy.gateway import Gateway
from quiver.proxy.registry import OUT_OF_SERVICE
from quiver.schemas import errors
from quiver.schemas.errors import ApiError, ErrorKind
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from ..configuration.live import LiveConfiguration
from ..logs.pipeline import Pipeline
from ..loopback import is_loopback
from . import openapi
from .access_log import add_access_log
from .administration import admin_api
from .answers import json_reply
from .hardening import harden
from .lock import admit_reader
from .status import HealthReport, VersionReport, report_on

# Swagger UI sets styles through the DOM and uses images inside its style sheet; nothing comes from another host.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_app(gateway: Gateway, pipeline: Pipeline | None = None, live: LiveConfiguration | None = None) -> QuartTrio:
    """The application for `gateway`, which shows what `pipeline` has logged. Call it inside `trio.run`: uptime counts from
    here, on Trio's clock.
    """
    pipeline, live = pipeline or Pipeline(gateway.config.log, io.StringIO()), live or LiveConfiguration(gateway)
    app = QuartTrio("quiver.admin.api", static_folder="static", template_folder=None)
    # File names carry no version, so browsers ask each time whether theirs is still the right one.
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = 0
    _add_health(app, gateway)
    began = trio.current_time()
    _add_figures(app, gateway, began)
    app.register_blueprint(admin_api(gateway, began, pipeline, live))
    _add_pages(app, gateway)
    _add_errors(app, gateway)
    add_access_log(app, gateway)  # first, so that whatever answers a request has its id
    harden(app, gateway)
    return app


def _add_health(app: QuartTrio, gateway: Gateway) -> None:
    @app.get("/health")
    async def health() -> Response:
        return json_reply(HealthReport("ok" if gateway.state == "ready" else gateway.state, quiver.__version__))

    @app.get("/healthz")
    async def alive() -> Response:
        return json_reply(HealthReport("ok", quiver.__version__))

    @app.get("/readyz")
    async def ready() -> Response:
        refuse_unless_ready(gateway)
        return json_reply(HealthReport("ok", quiver.__version__))

    @app.get("/version")
    async def version() -> Response:
        return json_reply(VersionReport(quiver.__version__))


def refuse_unless_ready(gateway: Gateway) -> None:
    """Raise `ApiError` (503) that says why `gateway` should get no requests now."""
    if gateway.state == "draining":
        raise ApiError(errors.SHUTTING_DOWN, "The gateway is shutting down", retry_after=5)
    if gateway.state != "ready":
        raise ApiError(errors.NO_HEALTHY_BACKEND, "The gateway is starting", retry_after=1)
    now = trio.current_time()
    tiers = [backend.tier(now) for backend in gateway.registry]
    if not tiers:
        raise ApiError(errors.NO_HEALTHY_BACKEND, "No backend is registered")
    if min(tiers) >= OUT_OF_SERVICE:
        raise ApiError(errors.NO_HEALTHY_BACKEND, "No backend is healthy; `/status` says why", retry_after=5)


def _add_figures(app: QuartTrio, gateway: Gateway, began: float) -> None:
    """What tells outsiders something: to them it takes a key when there are keys."""

    def authenticate() -> None:
        admit_reader(request, gateway.config, gateway.keys, trio.current_time())

    @app.get("/status")
    async def status() -> Response:
        authenticate()
        return json_reply(report_on(gateway, trio.current_time() - began))

    @app.get("/metrics")
    async def metrics() -> Response:
        authenticate()
        page, content_type = await gateway.page.write(request.headers.get("Accept", ""))
        return Response(page, content_type=content_type)


def _add_pages(app: QuartTrio, gateway: Gateway) -> None:
    locked, local = gateway.config.auth.admin_key is not None, is_loopback(gateway.config.server.host)

    @lru_cache(2)
    def document(keys_required: bool) -> bytes:
        found = openapi.description(keys_required=keys_required, admin_key_required=locked, local=local)
        return msgspec.json.encode(found)

    @app.get("/")
    async def index() -> ResponseReturnValue:
        return redirect("/docs")

    @app.get("/docs")
    async def docs() -> Response:
        page = await app.send_static_file("docs.html")
        page.headers["Content-Security-Policy"] = PAGE_POLICY
        return page

    @app.get("/openapi.json")
    async def description() -> Response:
        return Response(document(gateway.keys.required), content_type="application/json")


def _add_errors(app: QuartTrio, gateway: Gateway) -> None:
    @app.errorhandler(ApiError)
    async def told(error: ApiError) -> Response:
        gateway.metrics.refused("control", error.kind.code)
        gateway.store.keep_refusal(error.kind.code, g.get("request_id", ""))
        headers = {name.decode(): value.decode() for name, value in error.headers()}
        return json_reply(error.envelope(), error.kind.status, headers)

    @app.errorhandler(HTTPException)
    async def refused(error: HTTPException) -> ResponseReturnValue:
        if error.code is None or error.code < 400:
            return error.get_response()
        if has_websocket_context():
            return await told(ApiError(errors.NOT_FOUND, f"No WebSocket is served at `{websocket.path[:200]}`"))
        reply = await told(ApiError(kind_of(error.code), _words(error)))
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            reply.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return reply

    @app.errorhandler(Exception)
    async def broken(error: Exception) -> Response:
        log = structlog.get_logger(component="control")
        log.error("internal error", path=request.path, exc_info=error)
        return await told(ApiError(errors.INTERNAL_ERROR, f"Internal error; the log has it under `{g.request_id}`"))


def kind_of(status: int) -> ErrorKind:
    """The catalogue's row for a status that Quart refuses a request with."""
    if status == 404:
        return errors.NOT_FOUND
    fallback = errors.INTERNAL_ERROR if status >= 500 else errors.MALFORMED_REQUEST
    return errors.BY_STATUS.get(status, fallback)


def _words(error: HTTPException) -> str:
    path = request.path[:200]
    match error.code:
        case 404:
            return f"No such path: `{path}`; see `/docs`"
        case 405:
            return f"`{path}` does not take {request.method}"
        case _:
            return error.name
