"""The simulated network behaves as the kernel's: one body of tests over both, then what only a simulation can do."""

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
from quiver.proxy.network import Acceptor, Address, KernelNetwork, Network, Wire
from quiver.proxy.testing import Answer, Direction, Fault, Link, SimulatedNetwork
from trio.testing import MockClock

NETWORKS: list[Callable[[], Network]] = [KernelNetwork, lambda: SimulatedNetwork(Random(1))]


@pytest.fixture(params=NETWORKS, ids=["kernel", "simulated"])
def network(request: pytest.FixtureRequest) -> Network:
    made: Network = request.param()
    return made


@asynccontextmanager
async def connection(network: Network) -> AsyncIterator[tuple[Wire, Wire]]:
    """A wire to a fresh listener and the wire that was accepted."""
    (acceptor,) = await network.listen("127.0.0.1", 0)
    near = await network.connect(acceptor.address)
    (far,) = await accepted(acceptor)
    try:
        yield near, far
    finally:
        near.close()
        far.close()
        acceptor.close()


async def accepted(acceptor: Acceptor) -> list[Wire]:
    with trio.fail_after(5):
        return await acceptor.accept()


async def read_all(wire: Wire) -> bytes:
    received = b""
    while data := await wire.receive_some():
        received += data
    return received


async def write_until_broken(wire: Wire) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        while True:
            await wire.send_all(bytes(1024))
            await trio.sleep(0.001)


# One body, two networks.


async def test_bytes_come_back_whole(network: Network) -> None:
    sent = Random(2).randbytes(300_000)

    async def echo(wire: Wire) -> None:
        await wire.send_all(await read_all(wire))
        await wire.send_eof()

    async def send(wire: Wire) -> None:
        await wire.send_all(sent)
        await wire.send_eof()

    async with connection(network) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(echo, far)
        nursery.start_soon(send, near)
        assert await read_all(near) == sent


async def test_half_close_keeps_other_half(network: Network) -> None:
    async with connection(network) as (near, far):
        await near.send_eof()
        assert await far.receive_some() == b""
        await far.send_all(b"still here")
        assert await near.receive_some() == b"still here"


async def test_close_is_end_of_file(network: Network) -> None:
    async with connection(network) as (near, far):
        await near.send_all(b"last")
        near.close()
        assert await read_all(far) == b"last"


async def test_close_with_unread_resets(network: Network) -> None:
    async with connection(network) as (near, far):
        await near.send_all(b"never read")
        await trio.sleep(0.02)
        far.close()
        with pytest.raises(trio.BrokenResourceError):
            await near.receive_some()


async def test_writing_to_closed_breaks(network: Network) -> None:
    async with connection(network) as (near, far):
        far.close()
        with trio.fail_after(5):
            await write_until_broken(near)


@pytest.mark.parametrize("wait", [Wire.receive_some, Wire.wait_send_all_might_not_block])
async def test_own_close_wakes_waiter(network: Network, wait: Callable[[Wire], Awaitable[object]]) -> None:
    async def waits(wire: Wire) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await wait(wire)

    async with connection(network) as (near, _):
        near.write_timeout = 0.05
        with pytest.raises(trio.BrokenResourceError):
            await near.send_all(bytes(64 * 1024 * 1024))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits, near)
            await trio.testing.wait_all_tasks_blocked()
            near.close()


async def test_unread_bytes_block_writer(network: Network) -> None:
    async with connection(network) as (near, _):
        near.write_timeout = 0.05
        with pytest.raises(trio.BrokenResourceError, match="does not read"):
            await near.send_all(bytes(64 * 1024 * 1024))


async def test_nobody_listens_is_refused(network: Network) -> None:
    (acceptor,) = await network.listen("127.0.0.1", 0)
    address = acceptor.address
    acceptor.close()
    with pytest.raises(ConnectionRefusedError):
        await network.connect(address)


async def test_taken_port_is_refused(network: Network) -> None:
    (acceptor,) = await network.listen("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        await network.listen("127.0.0.1", acceptor.address.port)
    acceptor.close()


async def test_closed_acceptor_wakes_waiter(network: Network) -> None:
    (acceptor,) = await network.listen("127.0.0.1", 0)

    async def waits() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await acceptor.accept()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits)
        await trio.testing.wait_all_tasks_blocked()
        acceptor.close()


async def test_addresses_resolve_to_themselves(network: Network) -> None:
    assert await network.resolve("127.0.0.1", 80) == [Address("127.0.0.1", 80)]
    assert await network.resolve("::1", 80) == [Address("::1", 80)]


# What only a simulation can do.


def linked(**back: object) -> SimulatedNetwork:
    """A network whose way back to who connected is `back`."""
    return SimulatedNetwork(Random(3), lambda address, source: Link(back=Direction(**back)))  # type: ignore[arg-type]


@pytest.mark.parametrize("after", [0, 1, 7, 10])
async def test_fault_strikes_at_byte(after: int, autojump_clock: MockClock) -> None:
    async with connection(linked(fault=Fault("eof", after))) as (near, far):
        await far.send_all(b"0123456789")
        assert await read_all(near) == b"0123456789"[:after]
        with trio.fail_after(5):
            await write_until_broken(far)


async def test_reset_reaches_both_ends(autojump_clock: MockClock) -> None:
    async with connection(linked(fault=Fault("reset", 4))) as (near, far):
        await far.send_all(b"0123456789")
        assert await near.receive_some() == b"0123"
        for wire in near, far:
            with pytest.raises(trio.BrokenResourceError):
                await wire.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await far.send_all(b"more")


async def test_stall_tells_nobody(autojump_clock: MockClock) -> None:
    async with connection(linked(fault=Fault("stall", 4))) as (near, far):
        await far.send_all(b"0123456789")
        far.close()
        assert await near.receive_some() == b"0123"
        with trio.move_on_after(3600) as patience:
            await near.receive_some()
        assert patience.cancelled_caught


async def test_healing_resets_stalled(autojump_clock: MockClock) -> None:
    network = linked(fault=Fault("stall", 0))
    async with connection(network) as (near, far):
        await far.send_all(b"lost")
        network.heal()
        with pytest.raises(trio.BrokenResourceError):
            await near.receive_some()


async def test_latency_is_kept(autojump_clock: MockClock) -> None:
    async with connection(linked(latency=2.0)) as (near, far):
        began = trio.current_time()
        await far.send_all(b"x")
        await near.receive_some()
        assert 1.0 <= trio.current_time() - began <= 3.0


@pytest.mark.parametrize(("outcome", "error"), [("refused", ConnectionRefusedError), ("black_hole", TimeoutError)])
async def test_connect_fails_as_planned(outcome: str, error: type[OSError], autojump_clock: MockClock) -> None:
    network = SimulatedNetwork(Random(4), lambda address, source: Link(outcome))  # type: ignore[arg-type]
    (acceptor,) = await network.listen("10.0.0.1", 80)
    with pytest.raises(error):
        await network.connect(acceptor.address)


async def test_names_change_with_time(autojump_clock: MockClock) -> None:
    network, now = SimulatedNetwork(Random(5)), trio.current_time()
    network.name("server.test", Answer(now, ("10.0.0.1",)), Answer(now + 60, ("10.0.0.2",)), Answer(now + 120, ()))
    assert await network.resolve("server.test", 80) == [Address("10.0.0.1", 80)]
    await trio.sleep(60)
    assert await network.resolve("server.test", 80) == [Address("10.0.0.2", 80)]
    await trio.sleep(60)
    for name in "server.test", "unknown.test":
        with pytest.raises(socket.gaierror):
            await network.resolve(name, 80)


async def test_cancelled_connect_leaves_nothing(autojump_clock: MockClock) -> None:
    network = SimulatedNetwork(Random(6), lambda address, source: Link(back=Direction(latency=5.0)))
    (acceptor,) = await network.listen("10.0.0.1", 80)
    with trio.move_on_after(1):
        await network.connect(acceptor.address, "10.0.0.2")
    assert network.open_ends("10.0.0.2") == []
    (far,) = await acceptor.accept()
    assert await far.receive_some() == b""


async def test_closing_listener_turns_waiting_away(autojump_clock: MockClock) -> None:
    network = SimulatedNetwork(Random(7))
    (acceptor,) = await network.listen("10.0.0.1", 80)
    near = await network.connect(acceptor.address)
    acceptor.close()
    assert await near.receive_some() == b""
    near.close()
    assert network.open_ends("10.0.0.1") == []


async def test_ragged_bytes_stay_in_order(autojump_clock: MockClock) -> None:
    sent = Random(8).randbytes(5_000)
    async with connection(linked(ragged=0.9, window=300)) as (near, far), trio.open_nursery() as nursery:

        async def send() -> None:
            await far.send_all(sent)
            await far.send_eof()

        nursery.start_soon(send)
        assert await read_all(near) == sent
