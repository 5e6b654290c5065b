"""Looking at a server before it is registered: what it is, and whether a check of it passes."""

from typing import Any

import msgspec
import trio
from quiver.proxy.gateway import Gateway
from quiver.proxy.remote import health
from quiver.schemas.config import Capabilities, RemoteBackend
from quiver.schemas.servers import Detection, Entry, Trial, TrialReport

from .changes import candidate


async def detected(gateway: Gateway, backend: RemoteBackend) -> Detection:
    """What the server is. Raises `ApiError` (400) when its URL cannot be used."""
    server = candidate(gateway, backend, Entry())
    try:
        return await gateway.detect(server)
    finally:
        server.close()


def completed(backend: RemoteBackend, found: Detection) -> RemoteBackend:
    """`backend` with what was found where nothing was said. Its models stay asked from it, so that new ones are noticed; and
    as lengths are of single models, only the longest of them limits the server, and only when all are known.
    """
    able, lengths = backend.capabilities, [model.context_length for model in found.models if not model.embeds]
    changes: dict[str, Any] = {}
    known = [length for length in lengths if length is not None]
    if able.context_length is None and known and len(known) == len(lengths):
        changes["context_length"] = max(known)
    if able.endpoints == Capabilities().endpoints and found.endpoints is not None:
        changes["endpoints"] = found.endpoints
    return msgspec.structs.replace(
        backend,
        capabilities=msgspec.structs.replace(able, **changes),
        max_concurrency=backend.max_concurrency or found.slots,
    )


async def try_out(gateway: Gateway, wanted: Trial) -> TrialReport:
    """Check a server and find out what it is, as a registration would. Nothing is kept. Raises `ApiError` (400)."""
    server = candidate(gateway, RemoteBackend(url=wanted.endpoint_url, api_key=wanted.api_key), Entry())
    found: list[Detection] = []

    async def detect() -> None:
        found.append(await gateway.detect(server))

    began = trio.current_time()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(detect)
            passed = await health.check(server, gateway.config.health)
            seconds = trio.current_time() - began
    finally:
        server.close()
    reason = None if passed else server.circuit.reason or "it asks for a pause"
    url = str(server.origin)
    return TrialReport(url=url, passed=passed, reason=reason, seconds=round(seconds, 4), detected=found[0])
