"""The scrapers' own port: nothing but the page, a key where others can reach it, and no room for those who dawdle."""

import pytest
import trio
from quiver.proxy.network import Address
from quiver.proxy.telemetry.port import CONNECTIONS, PATIENCE
from quiver.schemas.config import Auth, Telemetry
from trio.testing import MockClock

from ..gateways import Running, running
from ..servers import Farm
from ..wires import read_until_close

LOCAL, OPEN = Address("127.0.0.1", 9100), Address("10.8.0.1", 9100)
KEY = b"Authorization: Bearer a-client-key"


async def scrape(gateway: Running, where: Address, start: bytes, *headers: bytes) -> bytes:
    client = await gateway.network.connect(where, "10.9.0.1")
    await client.send_all(b"\r\n".join([start, b"Host: x", *headers]) + b"\r\n\r\n")
    return await read_until_close(client)


@pytest.mark.parametrize(
    ("where", "start", "headers", "status", "said"),
    [
        (LOCAL, b"GET /metrics HTTP/1.1", (), b"200", b"quiver_build_info"),
        (LOCAL, b"GET /metrics HTTP/1.1", (b"Accept: application/openmetrics-text",), b"200", b"# EOF"),
        (LOCAL, b"GET /metrics?x=1 HTTP/1.0", (), b"200", b"process_cpu_seconds_total"),
        (LOCAL, b"GET /health HTTP/1.1", (), b"404", b'"not_found"'),
        (LOCAL, b"GET /v1/models HTTP/1.1", (KEY,), b"404", b'"not_found"'),
        (LOCAL, b"POST /metrics HTTP/1.1", (), b"405", b"Allow: GET"),
        (LOCAL, b"NONSENSE", (), b"400", b'"malformed_request"'),
        (OPEN, b"GET /metrics HTTP/1.1", (), b"401", b'"invalid_api_key"'),
        (OPEN, b"GET /metrics HTTP/1.1", (KEY,), b"200", b"quiver_build_info"),
    ],
)
async def test_port_serves_the_page_only(
    farm: Farm,
    autojump_clock: MockClock,
    where: Address,
    start: bytes,
    headers: tuple[bytes, ...],
    status: bytes,
    said: bytes,
) -> None:
    telemetry = Telemetry(metrics_host=where.host, metrics_port=where.port)
    async with running(farm, [], telemetry=telemetry, auth=Auth(keys=("a-client-key",))) as gateway:
        received = await scrape(gateway, where, start, b"X-Request-ID: scrape-1", *headers)
        assert received[9:12] == status
        assert said.lower() in received.lower()
        assert start == b"NONSENSE" or b"x-request-id: scrape-1" in received.lower()
        gateway.signal(2)


async def test_dawdlers_are_cut_off(farm: Farm, autojump_clock: MockClock) -> None:
    async with running(farm, [], telemetry=Telemetry(metrics_port=LOCAL.port)) as gateway:
        silent = [await gateway.network.connect(LOCAL, "10.9.0.1") for _ in range(CONNECTIONS)]
        began = trio.current_time()
        received = await scrape(gateway, LOCAL, b"GET /metrics HTTP/1.1")
        assert (received == b"") or trio.current_time() - began <= PATIENCE
        assert b"quiver_build_info" in await scrape(gateway, LOCAL, b"GET /metrics HTTP/1.1")
        for client in silent:
            assert await client.receive_some() == b""
        gateway.signal(2)


async def test_no_port_unless_asked_for(farm: Farm, autojump_clock: MockClock) -> None:
    async with running(farm, []) as gateway:
        with pytest.raises(OSError, match="refused"):
            await gateway.network.connect(LOCAL, "10.9.0.1")
        gateway.signal(2)


async def test_taken_port_is_named(farm: Farm, autojump_clock: MockClock) -> None:
    taken = await farm.network.listen(LOCAL.host, LOCAL.port)
    with pytest.raises(ExceptionGroup) as caught:
        async with running(farm, [], telemetry=Telemetry(metrics_port=LOCAL.port)):
            raise AssertionError("it must not begin")
    assert caught.group_contains(ValueError, match=r"telemetry\.metrics_port.*9100")
    for acceptor in taken:
        acceptor.close()
