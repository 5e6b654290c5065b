"""A whole gateway and whole joiners in memory and virtual time."""

import signal

from quiver.schemas.errors import BY_CODE

from ..gateways import BODY, OK, STREAM, WORD, answering, chats, code_in, running, streaming, unchunked
from ..servers import Farm
from .joining import QUICK, laptop, servers, wait_until


async def test_serves_whole_and_streamed(farm: Farm, autojump_clock: object) -> None:
    async with running(farm, [], join=QUICK) as gateway:
        async with laptop(farm, answering(OK)) as owned:
            await wait_until(lambda: servers(gateway) == {"laptop": "healthy"})
            reply = await gateway.ask(BODY, b"Connection: close")
            assert reply.startswith(b"HTTP/1.1 200")
            assert b"x-gateway-server-id: laptop" in reply.lower()
            assert reply.endswith(b'{"ok": true}')
            owned.server.answer = answering(streaming(5))
            body = unchunked(await gateway.ask(STREAM, b"Connection: close"))
            assert body.count(WORD) == 5
            assert body.endswith(b"data: [DONE]\n\n")
            assert chats(owned.server) == 2
        gateway.signal(signal.SIGINT)


async def test_unreachable_directly(farm: Farm, autojump_clock: object) -> None:
    assert "model_not_found" in BY_CODE
    async with running(farm, [], join=QUICK) as gateway:
        assert code_in(await gateway.ask(BODY, b"Connection: close")) == "model_not_found"
        gateway.signal(signal.SIGINT)
