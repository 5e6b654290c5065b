"""The admin API's routes for client keys: made, listed, looked at, changed, replaced and revoked."""

import msgspec
import trio
from quart import Blueprint, Response, request
from quiver.proxy.access.keys import Issued
from quiver.proxy.gateway import Gateway
from quiver.schemas.keys import KeyIssued, KeyQuery, KeyReport, Rotation
from quiver.schemas.saved import SavedKey

from .. import versions
from ..answers import json_reply
from ..bodies import MERGE_PATCH, json_body
from ..lock import actor_of
from ..query import decoded_query
from . import issuing, listing, report


def add_keys(api: Blueprint, gateway: Gateway) -> None:
    """The routes below `/admin/keys`."""

    @api.post("/keys")
    async def create_key() -> Response:
        wanted = issuing.decoded(await json_body(request))
        was_open = not gateway.keys.required
        made, text = await issuing.create(gateway, wanted, actor_of(request))
        reply = _told_once(made, text, 201, closes=was_open and gateway.keys.required)
        reply.headers["Location"] = f"/admin/keys/{made.key.id}"
        return reply

    @api.get("/keys")
    async def list_keys() -> Response:
        query = decoded_query(request, KeyQuery)
        return json_reply(listing.page(report.reports(gateway, trio.current_time()), query))

    @api.get("/keys/<id>")
    async def show_key(id: str) -> Response:
        if (configured := report.configured(gateway, id, trio.current_time())) is not None:
            return json_reply(configured)
        found = issuing.issued(gateway, id)
        return await versions.conditional(request, json_reply(_report(found)), found.key)

    @api.patch("/keys/<id>")
    async def change_key(id: str) -> Response:
        wanted = issuing.decoded_patch(await json_body(request, MERGE_PATCH))
        return _told(await issuing.change(gateway, id, wanted, actor_of(request), _unchanged))

    @api.delete("/keys/<id>")
    async def revoke_key(id: str) -> Response:
        return _told(await issuing.revoke(gateway, id, actor_of(request), _unchanged))

    @api.post("/keys/<id>/rotate")
    async def rotate_key(id: str) -> Response:
        wanted = issuing.decoded_rotation(await json_body(request)) if await request.data else Rotation()
        made, text = await issuing.rotate(gateway, id, wanted, actor_of(request), _unchanged)
        return _told_once(made, text, 200)

    def _report(found: Issued) -> KeyReport:
        return report.issued(found, gateway.world, trio.current_time())

    def _told(found: Issued) -> Response:
        return versions.tagged(json_reply(_report(found)), found.key)

    def _told_once(found: Issued, text: str | None, status: int, *, closes: bool = False) -> Response:
        told = KeyIssued(key=text, closes=closes, **msgspec.structs.asdict(_report(found)))
        return versions.tagged(json_reply(told, status), found.key)


def _unchanged(key: SavedKey) -> None:
    versions.refuse_changed(request, key)
