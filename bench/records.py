"""A record of a request as a busy gateway makes many, for benchmarks of what is done with them."""

from quiver.proxy.telemetry.record import EngineTimings, Record
from quiver.schemas.openai import Usage


def record(
    number: int,
    *,
    client: str = "ada",
    model: str = "qwen3",
    server: str = "lab",
    at: float,
    duration: float = 1.23456789,
    engine: EngineTimings | None = None,
) -> Record:
    """The record of request `number`."""
    return Record(
        request_id=f"a7ebfce6-9d3a-4f6d-a44c-{number:012x}",
        at=at,
        client=client,
        endpoint="chat/completions",
        model=model,
        server_id=server,
        stream=True,
        status=200,
        outcome="completed",
        error=None,
        source="server",
        attempts=1,
        queued=0.01,
        duration=duration,
        first_byte=0.0612345,
        usage=Usage(prompt_tokens=15, completion_tokens=100, total_tokens=115),
        estimated=False,
        engine=engine,
    )
