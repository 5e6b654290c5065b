"""A server's answer on its way to the client: events as they come, and what may be read of them without decoding each."""

import msgspec
import trio
from quiver.schemas import errors
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import Usage, UsageOnly

from ..native import SseScanner
from ..registry import BYTES_A_TOKEN, Call
from ..reply import Reply
from ..routing.load import Load
from .connections import Response

_decode_usage = msgspec.json.Decoder(UsageOnly).decode


async def relay_events(response: Response, call: Call, reply: Reply, load: Load, began: float) -> None:
    """Pass whole events on as they arrive, so that an error can still be told between two of them."""
    scanner = SseScanner()
    try:
        while data := await response.receive():
            events = scanner.feed(data)
            if events:
                if not reply.committed:
                    load.first_token.observe(trio.current_time() - began, began)
                if scanner.done:
                    reply.usage = _usage(scanner.usage)
                    await reply.end_stream(events)
                    return
                await reply.send_events(events)
        reply.usage = _usage(scanner.usage)
        if scanner.rest().strip():
            raise ApiError(errors.UPSTREAM_TRUNCATED, "The server ended its stream inside an event")
        if not response.delimited:
            raise ApiError(errors.UPSTREAM_TRUNCATED, "The server's stream broke off before `[DONE]`")
        await reply.end_stream()
    finally:
        if reply.usage is None and scanner.events:
            _estimate(reply, call, scanner)


def _estimate(reply: Reply, call: Call, scanner: SseScanner) -> None:
    """What a stream has cost whose server did not say, or was not heard to its end: servers send about a token an event."""
    reply.usage = _usage(scanner.usage)
    if reply.usage is None:
        prompt = len(call.body) // BYTES_A_TOKEN
        reply.usage, reply.estimated = Usage(prompt, scanner.events, prompt + scanner.events), True


def usage_of_reply(body: bytes) -> Usage | None:
    """Raises `ApiError` when the reply is not JSON: another server may do better."""
    try:
        return _decode_usage(body).usage
    except msgspec.ValidationError:
        return None  # JSON all the same, with figures in a form of its own
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(errors.UPSTREAM_MALFORMED, f"The server's reply is not JSON: {error}") from error


def _usage(body: bytes | None) -> Usage | None:
    if body is None:
        return None
    try:
        return _decode_usage(body).usage
    except msgspec.DecodeError:
        return None
