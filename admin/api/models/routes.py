"""The admin API's routes for the built-in engine's models: list, load, unload, remove, size, and what could be loaded."""

from collections.abc import AsyncIterator

import msgspec
import trio
from quart import Blueprint, Response, request
from quiver.proxy.decoding import decode_body
from quiver.proxy.gateway import Gateway
from quiver.proxy.local.backend import EngineModel
from quiver.proxy.local.loading import Loading
from quiver.proxy.seams import offload
from quiver.schemas import errors
from quiver.schemas.errors import ApiError
from quiver.schemas.models import AvailableList, LoadEvent, LocalModelList, ModelLoad, ModelRemoved, ModelSource

from ..answers import add_options, json_reply
from ..bodies import json_body
from ..lock import actor_of
from ..streams import DONE, event, event_stream, wants_events
from .report import report

# How often a follower of a load is told how far it is.
INTERVAL = 0.25

_decode_load = msgspec.json.Decoder(ModelLoad).decode
_decode_source = msgspec.json.Decoder(ModelSource).decode


def add_models(api: Blueprint, gateway: Gateway) -> None:
    """The routes below `/admin/models`."""
    models, world = gateway.models, gateway.world

    @api.get("/models")
    async def local_models() -> Response:
        return json_reply(LocalModelList([report(model, world) for model in models]))

    # A model's name may hold slashes, so these paths are also names.
    add_options(api, "/models/available", "GET", "HEAD")
    add_options(api, "/models/load", "POST")
    add_options(api, "/models/estimate", "POST")
    add_options(api, "/models/<path:id>/unload", "POST")

    @api.route("/models/available", provide_automatic_options=False)
    async def available() -> Response:
        return json_reply(AvailableList(await offload(models.catalogue.available)))

    @api.route("/models/load", methods=["POST"], provide_automatic_options=False)
    async def load() -> Response:
        asked = decode_body(await json_body(request), _decode_load)
        model, loading = await models.load(asked, actor_of(request))
        if wants_events(request):
            return event_stream(_followed(gateway, model, loading))
        if not asked.wait:
            return json_reply(report(model, world), 202)
        await loading.ended.wait()
        if loading.error is not None:
            raise loading.error
        return json_reply(report(model, world))

    @api.route("/models/estimate", methods=["POST"], provide_automatic_options=False)
    async def estimate() -> Response:
        return json_reply(await models.estimate(decode_body(await json_body(request), _decode_source)))

    @api.get("/models/<path:id>")
    async def local_model(id: str) -> Response:
        return json_reply(report(models.get(id), world))

    @api.route("/models/<path:id>/unload", methods=["POST"], provide_automatic_options=False)
    async def unload(id: str) -> Response:
        return json_reply(report(await models.unload(id, actor_of(request)), world))

    @api.delete("/models/<path:id>")
    async def remove(id: str) -> Response:
        await models.remove(id, actor_of(request))
        return json_reply(ModelRemoved(id, "removed"))


async def _followed(gateway: Gateway, model: EngineModel, loading: Loading) -> AsyncIterator[bytes]:
    """How far a load is, until its end: the model, or the error. It goes on when nobody follows it any more."""
    while not loading.ended.is_set() and gateway.state != "draining":
        yield event(LoadEvent(loading.report()))
        with trio.move_on_after(INTERVAL):
            await loading.ended.wait()
    if loading.error is not None:
        yield event(loading.error.envelope())
    elif not loading.ended.is_set():
        yield event(ApiError(errors.SHUTTING_DOWN, "The gateway is shutting down").envelope())
    else:
        yield event(LoadEvent(None, report(model, gateway.world)))
    yield DONE
