"""The admin API's routes for the configuration: what is in force and why, and reading it again."""

from quart import Blueprint, Response, request
from quiver.proxy.reconfigure import Refused
from quiver.schemas import errors
from quiver.schemas.errors import ApiError

from ..configuration.complaint import SettingsError
from ..configuration.live import LiveConfiguration
from .answers import json_reply
from .lock import actor_of


def add_configuration(api: Blueprint, live: LiveConfiguration) -> None:
    """The routes below `/admin/config`."""

    @api.get("/config")
    async def configuration() -> Response:
        return json_reply(live.report())

    @api.post("/config/reload")
    async def reload_configuration() -> Response:
        try:
            return json_reply(await live.reload(actor_of(request)))
        except (SettingsError, Refused) as error:
            raise ApiError(errors.CONFIG_REFUSED, str(error)) from None
