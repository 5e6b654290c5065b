"""The admin API: everything below `/admin`, behind one lock."""

import trio
from quart import Blueprint, Response, request
from quiver.proxy.gateway import Gateway

from ..configuration.live import LiveConfiguration
from ..logs.pipeline import Pipeline
from .answers import json_reply
from .configuration import add_configuration
from .figures import figures
from .history import add_history
from .join import add_join
from .keys.routes import add_keys
from .lock import admit_operator
from .logs import add_logs
from .models.routes import add_models
from .servers.routes import add_servers


def admin_api(gateway: Gateway, began: float, pipeline: Pipeline, live: LiveConfiguration) -> Blueprint:
    """The routes below `/admin` for `gateway`, which began at `began` (Trio's clock) and logs through `pipeline`."""
    api = Blueprint("admin_api", __name__, url_prefix="/admin")

    @api.before_request
    async def admit() -> None:
        admit_operator(request, gateway.config, gateway.keys, trio.current_time())

    add_servers(api, gateway)
    add_join(api)
    add_models(api, gateway)
    add_keys(api, gateway)
    add_configuration(api, live)
    add_history(api, gateway)
    add_logs(api, gateway, pipeline)

    @api.get("/stats")
    async def stats() -> Response:
        return json_reply(await figures(gateway, trio.current_time() - began))

    return api
