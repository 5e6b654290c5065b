"""Finding out what the server is that is to be offered, and with that what it can do."""

import msgspec
import trio
from quiver.proxy.egress import open_wire
from quiver.proxy.network import Wire
from quiver.proxy.remote import questions
from quiver.proxy.remote.connections import Origin
from quiver.proxy.seams import World
from quiver.proxy.tunnel.local import ANYWHERE
from quiver.schemas.config import Limits, RemoteBackend
from quiver.schemas.join import Offer
from quiver.schemas.servers import Detection

from ..api.servers.trials import completed

# A server on this machine answers at once, or is not there yet.
PATIENCE = 5.0


async def detected(offer: Offer) -> Detection:
    """What the offered server is. Raises `ValueError` when its URL cannot be used."""
    network = World().network

    async def open_local(host: str, port: int) -> Wire:
        return await open_wire(network, ANYWHERE, host, port)

    return await questions.ask(Origin.parse(offer.url), offer.api_key, Limits(), open_local, PATIENCE)


def fulfilled(offer: Offer, found: Detection) -> Offer:
    """`offer` with what was found where its owner has said nothing."""
    said = RemoteBackend(
        url=offer.url, capabilities=offer.capabilities, max_concurrency=offer.max_concurrency, models=offer.models
    )
    backend = completed(said, found)
    return msgspec.structs.replace(offer, capabilities=backend.capabilities, max_concurrency=backend.max_concurrency)


def look(offer: Offer) -> tuple[Offer, Detection]:
    """`offer` with what its server is found to be, and that. Blocks. Raises `ValueError` as `detected`."""
    found = trio.run(detected, offer)
    return fulfilled(offer, found), found
