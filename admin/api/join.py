"""The door for joiners as others meet it: who asks for it without a WebSocket is told what it is.

WebSockets never get here. They are taken off their connections before: see `quiver.proxy.tunnel.door`.
"""

from quart import Blueprint, Response
from quiver.schemas import errors
from quiver.schemas.errors import ApiError


def add_join(api: Blueprint) -> None:
    """The route `/admin/join`."""

    @api.get("/join")
    async def join() -> Response:
        raise ApiError(
            errors.UPGRADE_REQUIRED,
            "This is where `quiver join` comes in, by WebSocket",
            extra=[(b"upgrade", b"websocket"), (b"connection", b"upgrade")],
        )
