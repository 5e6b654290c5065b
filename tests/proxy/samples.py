"""A record for tests to vary."""

import msgspec
from quiver.proxy.telemetry.record import Record
from quiver.schemas.openai import Usage

SAMPLE = Record(
    request_id="req_1",
    at=1_700_000_000.0,
    client="alice",
    endpoint="chat/completions",
    model="m",
    server_id="b1",
    stream=False,
    status=200,
    outcome="completed",
    error=None,
    source="server",
    attempts=1,
    queued=0.0,
    duration=2.0,
    first_byte=0.5,
    usage=Usage(3, 4, 7),
    estimated=False,
)


def record(**changes: object) -> Record:
    """The sample with some fields changed."""
    return msgspec.structs.replace(SAMPLE, **changes)
