"""The admin API's routes for servers: registered, listed, looked at, changed, checked, paused and taken out."""

from collections.abc import AsyncIterator

import trio
from quart import Blueprint, Response, request
from quiver.proxy.gateway import Gateway
from quiver.proxy.remote import health
from quiver.proxy.remote.backend import RemoteServer
from quiver.schemas.errors import ApiError
from quiver.schemas.servers import CheckReport, Deregistered, DrainQuery, ModeReport, Registered, ServerQuery

from .. import versions
from ..answers import add_options, json_reply
from ..bodies import MERGE_PATCH, json_body
from ..lock import actor_of
from ..query import decoded_query
from ..streams import DONE, event, event_stream, wants_events
from . import listing, registration, trials
from .report import details, report

# How often a follower of a drain is told how many requests are left.
INTERVAL = 0.5


def add_servers(api: Blueprint, gateway: Gateway) -> None:
    """The routes below `/admin/register` and `/admin/servers`."""
    _add_registration(api, gateway)
    _add_servers(api, gateway)
    _add_modes(api, gateway)


def _add_registration(api: Blueprint, gateway: Gateway) -> None:
    @api.post("/register")
    async def register() -> Response:
        wanted = registration.decoded(await json_body(request))
        server, new, found = await registration.register(gateway, wanted, actor_of(request))
        told = Registered(server.id, "registered", server.health, found)
        reply = versions.tagged(json_reply(told, 201 if new else 200), server.entry)
        reply.headers["Location"] = f"/admin/servers/{server.id}"
        return reply

    @api.put("/register/<id>")
    async def change(id: str) -> Response:
        wanted = registration.decoded(await json_body(request))
        server = await registration.change(gateway, id, wanted, actor_of(request), _unchanged)
        return versions.tagged(json_reply(Registered(id, "registered", server.health)), server.entry)

    @api.delete("/register/<id>")
    async def deregister(id: str) -> Response:
        await registration.deregister(gateway, id, actor_of(request), _unchanged)
        return json_reply(Deregistered(id, "deregistered"))


def _add_servers(api: Blueprint, gateway: Gateway) -> None:
    world = gateway.world

    @api.get("/servers")
    async def servers() -> Response:
        query = decoded_query(request, ServerQuery)
        reports = [report(backend, world) for backend in gateway.registry if isinstance(backend, RemoteServer)]
        return json_reply(listing.page(reports, query))

    add_options(api, "/servers/test", "POST")  # a server may be called `test`, and that path has other methods

    @api.route("/servers/test", methods=["POST"], provide_automatic_options=False)
    async def try_out() -> Response:
        return json_reply(await trials.try_out(gateway, registration.decoded_trial(await json_body(request))))

    @api.get("/servers/<id>")
    async def server(id: str) -> Response:
        found = registration.registered(gateway, id)
        return await versions.conditional(request, json_reply(details(found, world)), found.entry)

    @api.patch("/servers/<id>")
    async def patch(id: str) -> Response:
        wanted = registration.decoded_patch(await json_body(request, MERGE_PATCH))
        server = await registration.patch(gateway, id, wanted, actor_of(request), _unchanged)
        return versions.tagged(json_reply(details(server, world)), server.entry)

    @api.post("/servers/<id>/health-check")
    async def check(id: str) -> Response:
        server, started = registration.registered(gateway, id), trio.current_time()
        passed = await health.check(server, gateway.config.health)
        seconds, circuit = trio.current_time() - started, server.circuit
        return json_reply(CheckReport(id, passed, circuit.health, circuit.state, circuit.reason, round(seconds, 4)))


def _add_modes(api: Blueprint, gateway: Gateway) -> None:
    modes = gateway.modes

    @api.post("/servers/<id>/pause")
    async def pause(id: str) -> Response:
        _unchanged(registration.registered(gateway, id))
        return json_reply(_mode(await modes.pause(id, actor_of(request))))

    @api.post("/servers/<id>/resume")
    async def resume(id: str) -> Response:
        _unchanged(registration.registered(gateway, id))
        return json_reply(_mode(await modes.resume(id, actor_of(request))))

    @api.post("/servers/<id>/drain")
    async def drain(id: str) -> Response:
        query = decoded_query(request, DrainQuery)
        _unchanged(registration.registered(gateway, id))
        server = await modes.drain(id, actor_of(request))
        if wants_events(request):
            return event_stream(_followed(gateway, server, query.wait))
        with trio.move_on_after(query.wait):
            await modes.wait_drained(id)
        return json_reply(_mode(modes.find(id)))


async def _followed(gateway: Gateway, server: RemoteServer, wait: float) -> AsyncIterator[bytes]:
    """How many requests are left, until there is none or the time is over; or the error, once the server is taken out. One
    that is changed meanwhile is another object, and drains on.
    """
    id = server.id
    yield event(_mode(server))
    with trio.move_on_after(wait):
        while server.mode == "draining" and gateway.state != "draining":
            with trio.move_on_after(INTERVAL):
                await gateway.modes.wait_drained(id)
            try:
                server = gateway.modes.find(id)
            except ApiError as error:
                yield event(error.envelope())
                break
            yield event(_mode(server))
    yield DONE


def _unchanged(server: RemoteServer) -> None:
    """Raise `ApiError` (412) when the request is meant for another version of `server`."""
    versions.refuse_changed(request, server.entry)


def _mode(server: RemoteServer) -> ModeReport:
    return ModeReport(registration_id=server.id, mode=server.mode, in_flight=server.load.in_flight)
