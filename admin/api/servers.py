"""The admin API: servers are registered, looked at, checked and taken out while the gateway runs; its models; its figures."""

import trio
from quart import Blueprint, Response, request
from quiver.proxy.remote import health
from quiver.proxy.remote.backend import RemoteServer
from quiver.proxy.server import Gateway
from quiver.schemas import errors
from quiver.schemas.admin import CheckReport, Deregistered, Registration, ServerList
from quiver.schemas.errors import ApiError

from . import registration
from .answers import json_reply
from .figures import figures
from .lock import admit_operator
from .models import add_models
from .server_report import details, report


def admin_api(gateway: Gateway, began: float) -> Blueprint:
    """The routes below `/admin` for `gateway`, which began at `began` (Trio's clock)."""
    api = Blueprint("admin_api", __name__, url_prefix="/admin")

    @api.before_request
    async def admit() -> None:
        admit_operator(request, gateway.config, gateway.keys, trio.current_time())

    _add_registration(api, gateway)
    _add_servers(api, gateway)
    add_models(api, gateway)

    @api.get("/stats")
    async def stats() -> Response:
        return json_reply(figures(gateway, trio.current_time() - began))

    return api


def _add_registration(api: Blueprint, gateway: Gateway) -> None:
    @api.post("/register")
    async def register() -> Response:
        reply, new = await registration.register(gateway, await _wanted())
        return json_reply(reply, 201 if new else 200)

    @api.put("/register/<id>")
    async def change(id: str) -> Response:
        return json_reply(await registration.change(gateway, id, await _wanted()))

    @api.delete("/register/<id>")
    async def deregister(id: str) -> Response:
        registration.registered(gateway, id)
        gateway.deregister(id)
        return json_reply(Deregistered(id, "deregistered"))


def _add_servers(api: Blueprint, gateway: Gateway) -> None:
    world = gateway.world

    @api.get("/servers")
    async def servers() -> Response:
        found = [report(backend, world) for backend in gateway.registry if isinstance(backend, RemoteServer)]
        return json_reply(ServerList(found))

    @api.get("/servers/<id>")
    async def server(id: str) -> Response:
        return json_reply(details(registration.registered(gateway, id), world))

    @api.post("/servers/<id>/health-check")
    async def check(id: str) -> Response:
        server, started = registration.registered(gateway, id), trio.current_time()
        passed = await health.check(server, gateway.config.health)
        seconds, circuit = trio.current_time() - started, server.circuit
        return json_reply(CheckReport(id, passed, circuit.health, circuit.state, circuit.reason, round(seconds, 4)))


async def _wanted() -> Registration:
    """The request's body. It must be declared as JSON: pages of other sites cannot send that without being asked first."""
    if request.mimetype != "application/json":
        raise ApiError(errors.INVALID_REQUEST, "Send the registration with `Content-Type: application/json`")
    return registration.decoded(await request.data)
