"""Egress: which addresses may be connected to, and that nothing else is, whatever a resolver says or when."""

import ipaddress
from collections.abc import Sequence

import pytest
import trio
import trio.testing
from quiver.proxy.egress import EgressPolicy, open_wire, operator_policy, public_policy
from quiver.proxy.network import Acceptor, Address, KernelNetwork, Wire
from quiver.schemas.config import Egress
from quiver.schemas.errors import UPSTREAM_FORBIDDEN, ApiError

# Who may be connected to: by anyone, by configured servers where private addresses are allowed, or only by `allow`.
ANYONE, PRIVATE, NAMED = "anyone", "private", "named"
ADDRESSES = [
    ("8.8.8.8", ANYONE),
    ("1.1.1.1", ANYONE),
    ("192.31.196.1", ANYONE),
    ("172.15.255.255", ANYONE),
    ("172.32.0.0", ANYONE),
    ("100.63.255.255", ANYONE),
    ("100.128.0.0", ANYONE),
    ("126.255.255.255", ANYONE),
    ("128.0.0.0", ANYONE),
    ("169.253.255.255", ANYONE),
    ("223.255.255.255", ANYONE),
    ("2606:4700::1111", ANYONE),
    ("2a00:1450:4001:800::200e", ANYONE),
    ("::ffff:8.8.8.8", ANYONE),
    ("64:ff9b::8.8.8.8", ANYONE),
    ("2002:808:808::1", ANYONE),
    ("10.0.0.1", PRIVATE),
    ("10.255.255.255", PRIVATE),
    ("172.16.0.1", PRIVATE),
    ("172.31.255.255", PRIVATE),
    ("192.168.1.1", PRIVATE),
    ("100.64.0.1", PRIVATE),
    ("100.127.255.255", PRIVATE),
    ("127.0.0.1", PRIVATE),
    ("127.255.255.254", PRIVATE),
    ("::1", PRIVATE),
    ("0:0:0:0:0:0:0:1", PRIVATE),
    ("fc00::1", PRIVATE),
    ("fdff:ffff::1", PRIVATE),
    ("fec0::1", PRIVATE),
    ("::ffff:127.0.0.1", PRIVATE),
    ("::ffff:7f00:1", PRIVATE),
    ("::ffff:10.0.0.1", PRIVATE),
    ("64:ff9b::10.0.0.1", PRIVATE),
    ("64:ff9b::7f00:1", PRIVATE),
    ("2002:7f00:1::", PRIVATE),
    ("2002:a00:1::1", PRIVATE),
    ("0.0.0.0", NAMED),
    ("0.1.2.3", NAMED),
    ("169.254.169.254", NAMED),
    ("169.254.0.1", NAMED),
    ("100.100.100.200", NAMED),
    ("168.63.129.16", NAMED),
    ("192.0.0.1", NAMED),
    ("192.0.0.192", NAMED),
    ("192.0.2.1", NAMED),
    ("192.88.99.1", NAMED),
    ("198.18.0.1", NAMED),
    ("198.19.255.255", NAMED),
    ("198.51.100.1", NAMED),
    ("203.0.113.1", NAMED),
    ("224.0.0.1", NAMED),
    ("239.255.255.255", NAMED),
    ("240.0.0.1", NAMED),
    ("255.255.255.255", NAMED),
    ("::", NAMED),
    ("::2", NAMED),
    ("::7f00:1", NAMED),
    ("::8.8.8.8", NAMED),
    ("::ffff:0.0.0.0", NAMED),
    ("::ffff:a9fe:a9fe", NAMED),
    ("::ffff:0:127.0.0.1", NAMED),
    ("64:ff9b::169.254.169.254", NAMED),
    ("64:ff9b::", NAMED),
    ("64:ff9b:1::8.8.8.8", NAMED),
    ("64:ff9b:1::127.0.0.1", NAMED),
    ("2002:a9fe:a9fe::", NAMED),
    ("2002:e000:1::", NAMED),
    ("2001::1", NAMED),
    ("2001:0:808:808::f7f7:f7f7", NAMED),
    ("2001:0:808:808::80ff:fffe", NAMED),
    ("2001:db8::1", NAMED),
    ("2001:20::1", NAMED),
    ("3fff::1", NAMED),
    ("5f00::1", NAMED),
    ("100::1", NAMED),
    ("fe80::1", NAMED),
    ("fe80::1%eth0", NAMED),
    ("febf::1", NAMED),
    ("ff02::1", NAMED),
    ("ff0e::1", NAMED),
    ("fd00:ec2::254", NAMED),
    ("fd20:ce::254", NAMED),
    ("not an address", NAMED),
]

# What resolvers take for loopback or for metadata services, though no check of the string would.
SPELLINGS = [
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "00000177.0.0.1",
    "0x7f.0.0.1",
    "0x7f.1",
    "0x7f000001",
    "0X7F000001",
    "2130706433",
    "017700000001",
    "0",
    "0x0",
    "0251.0376.0251.0376",
    "0xa9fea9fe",
    "2852039166",
    "169.16689662",
    "169.254.43518",
    "127.0.0.1.",
    "１２７.0.0.1",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "127．0．0．1",
    "127｡0｡0｡1",
]


class ScriptedSocket:
    """A socket that only knows whether it is open."""

    def __init__(self) -> None:
        self.closed = False

    def recv(self, size: int, /) -> bytes:
        return b""

    def send(self, data: bytes | memoryview, /) -> int:
        return len(data)

    def shutdown(self, how: int, /) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True


class ScriptedNetwork:
    """Resolves to each answer in turn, the last one again and again. `takes`: seconds each address needs to answer.

    An address in `refusing` refuses then; one that is in neither never answers. `peers`: who answers in another's place.
    """

    def __init__(
        self,
        *answers: Sequence[str],
        takes: dict[str, float] | None = None,
        refusing: Sequence[str] = (),
        peers: dict[str, str] | None = None,
    ) -> None:
        self.answers, self.takes, self.refusing, self.peers = list(answers), takes or {}, refusing, peers or {}
        self.asked = 0
        self.attempts: list[tuple[float, str]] = []
        self.sockets: dict[str, ScriptedSocket] = {}
        self._began = trio.current_time()

    async def resolve(self, host: str, port: int) -> list[Address]:
        await trio.lowlevel.checkpoint()
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return [Address(each, port) for each in answer]

    async def connect(self, address: Address) -> Wire:
        self.attempts.append((trio.current_time() - self._began, address.host))
        await trio.sleep(self.takes.get(address.host, float("inf")))
        if address.host in self.refusing:
            raise ConnectionRefusedError(address.host)
        sock = self.sockets[address.host] = ScriptedSocket()
        peer = Address(self.peers.get(address.host, address.host), address.port)
        return Wire(sock, peer, trio.lowlevel.checkpoint, trio.lowlevel.checkpoint)

    async def listen(self, host: str, port: int) -> list[Acceptor]:
        raise OSError("nobody listens here")

    def left_open(self) -> list[str]:
        return [host for host, sock in self.sockets.items() if not sock.closed]


def allowing(*allow: str) -> EgressPolicy:
    return operator_policy(Egress(private="refuse", allow=allow), listening_on_loopback=False)


@pytest.mark.parametrize(("host", "who"), ADDRESSES)
def test_policies_by_address(host: str, who: str) -> None:
    address = Address(host, 443)
    refused = [
        policy.refusal(address, "a.example") is not None
        for policy in (
            public_policy(),
            operator_policy(Egress(private="refuse"), listening_on_loopback=True),
            operator_policy(Egress(), listening_on_loopback=False),
            operator_policy(Egress(), listening_on_loopback=True),
            operator_policy(Egress(private="allow"), listening_on_loopback=False),
        )
    ]
    assert refused == [who != ANYONE] * 3 + [who == NAMED] * 2


@pytest.mark.parametrize(("host", "who"), [row for row in ADDRESSES if row[1] != ANYONE])
def test_global_agrees_with_python(host: str, who: str) -> None:
    """What Python's own table calls local, we never call global."""
    if host != "not an address" and not ipaddress.ip_address(host).is_global:
        assert public_policy().refusal(Address(host, 443), "a.example") is not None


@pytest.mark.parametrize(
    ("port", "allowed"), [(443, True), (80, True), (8000, False), (22, False), (25, False), (6379, False), (0, False)]
)
def test_ports_of_public_policy(port: int, allowed: bool) -> None:
    assert (public_policy().refusal(Address("8.8.8.8", port), "a.example") is None) == allowed


@pytest.mark.parametrize(
    ("entry", "host", "address", "allowed"),
    [
        ("10.1.0.0/16", "gpu", Address("10.1.2.3", 8000), True),
        ("10.1.0.0/16", "gpu", Address("10.2.2.3", 8000), False),
        ("10.1.0.0/16", "gpu", Address("::ffff:10.1.2.3", 8000), True),
        ("10.1.0.0/16", "gpu", Address("64:ff9b::10.1.2.3", 8000), True),
        ("10.1.2.3", "gpu", Address("10.1.2.3", 1), True),
        ("10.1.2.3", "gpu", Address("10.1.2.4", 1), False),
        ("fd00::/8", "gpu", Address("fd12::1", 8000), True),
        ("::/0", "gpu", Address("64:ff9b::169.254.169.254", 80), False),
        ("::/96", "gpu", Address("::127.0.0.1", 80), False),
        ("2001::/32", "gpu", Address("2001:0:808:808::80ff:fffe", 80), False),
        ("2001::/32", "gpu", Address("2001:0:a00:1::f7f7:f7f7", 80), False),
        ("2001::/32", "gpu", Address("2001:0:808:808::f7f7:f7f7", 80), True),
        ("169.254.0.0/16", "gpu", Address("169.254.169.254", 80), True),
        ("169.254.169.254:80", "169.254.169.254", Address("169.254.169.254", 80), True),
        ("169.254.169.254:80", "169.254.169.254", Address("169.254.169.254", 81), False),
        ("10.1.2.3:8000", "gpu", Address("10.1.2.3", 8000), True),
        ("[::1]:8000", "::1", Address("::1", 8000), True),
        ("[::1]:8000", "::1", Address("::1", 8001), False),
        ("gpu.lan:8000", "gpu.lan", Address("192.168.0.9", 8000), True),
        ("gpu.lan:8000", "GPU.lan.", Address("192.168.0.9", 8000), True),
        ("localhost:11434", "localhost", Address("127.0.0.1", 11434), True),
        ("gpu.lan:8000", "gpu.lan", Address("192.168.0.9", 8001), False),
        ("gpu.lan:8000", "cpu.lan", Address("192.168.0.9", 8000), False),
        ("gpu.lan:8000", "gpu.lan", Address("169.254.169.254", 8000), False),
        ("gpu.lan:8000", "gpu.lan", Address("0.0.0.0", 8000), False),
    ],
)
def test_entries_of_allow(entry: str, host: str, address: Address, allowed: bool) -> None:
    assert (allowing(entry).refusal(address, host) is None) == allowed


@pytest.mark.parametrize(
    "entry",
    [
        *(
            "",
            ":80",
            "gpu",
            "gpu:",
            "gpu:0",
            "gpu:65536",
            "gpu:http",
            "gpu:+80",
            "gpu:８０",
            "10.1.0.1/16",
            "10.1.0.0/33",
        ),
        *("10.1.0.0/16:80", "http://gpu:80", "*.lan:80", "g pu:80", "user@gpu:80", "[::1:80", "gpu:80/v1", "[gpu]:80"),
    ],
)
def test_unreadable_entry_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match=r"`egress\.allow`") as caught:
        allowing("10.0.0.0/8", entry)
    assert f"`{entry}`" in str(caught.value)


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_spellings_reach_nothing(spelling: str) -> None:
    network = ScriptedNetwork(await resolved(spelling))
    with pytest.raises((ApiError, OSError)):
        await open_wire(network, public_policy(), spelling, 80)
    assert network.attempts == []


async def resolved(spelling: str) -> list[str]:
    try:
        return [address.host for address in await KernelNetwork().resolve(spelling, 80)]
    except OSError:
        return []


async def test_message_keeps_the_address_secret() -> None:
    network = ScriptedNetwork(["10.0.0.1", "169.254.169.254"])
    with pytest.raises(ApiError) as caught:
        await open_wire(network, public_policy(), "a.example", 443)
    assert caught.value.kind is UPSTREAM_FORBIDDEN
    assert "egress.allow" in caught.value.message
    assert "10.0.0.1" not in caught.value.message
    assert str(caught.value.__cause__) == "10.0.0.1 is private; 169.254.169.254 is link-local"


async def test_only_vetted_addresses_are_tried(autojump_clock: trio.testing.MockClock) -> None:
    network = ScriptedNetwork(["127.0.0.1", "8.8.8.8", "::1", "169.254.169.254"], takes={"8.8.8.8": 1})
    wire = await open_wire(network, public_policy(), "a.example", 443)
    assert (wire.peer, network.attempts) == (Address("8.8.8.8", 443), [(0, "8.8.8.8")])
    assert network.left_open() == ["8.8.8.8"]


async def test_rebinding_changes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    network = ScriptedNetwork(["8.8.8.8"], ["127.0.0.1"], takes={"8.8.8.8": 1, "127.0.0.1": 0})
    wire = await open_wire(network, public_policy(), "rebind.example", 443)
    assert (wire.peer.host, network.asked) == ("8.8.8.8", 1)
    with pytest.raises(ApiError):
        await open_wire(network, public_policy(), "rebind.example", 443)
    assert [host for _, host in network.attempts] == ["8.8.8.8"]


async def test_peer_is_checked_again(autojump_clock: trio.testing.MockClock) -> None:
    network = ScriptedNetwork(["8.8.8.8"], takes={"8.8.8.8": 0}, peers={"8.8.8.8": "127.0.0.1"})
    with pytest.raises(ApiError) as caught:
        await open_wire(network, public_policy(), "a.example", 443)
    assert str(caught.value.__cause__) == "127.0.0.1 is loopback"
    assert network.left_open() == []


async def test_literal_is_not_resolved(autojump_clock: trio.testing.MockClock) -> None:
    network = ScriptedNetwork(["8.8.8.8"], takes={"2606:4700::1111": 0})
    wire = await open_wire(network, public_policy(), "2606:4700::1111", 443)
    assert (wire.peer.host, network.asked) == ("2606:4700::1111", 0)
    with pytest.raises(ApiError):
        await open_wire(network, public_policy(), "::ffff:127.0.0.1", 443)


async def test_black_hole_costs_one_turn(autojump_clock: trio.testing.MockClock) -> None:
    network = ScriptedNetwork(["1.1.1.1", "8.8.8.8"], takes={"8.8.8.8": 0.1})
    wire = await open_wire(network, public_policy(), "a.example", 443)
    assert wire.peer.host == "8.8.8.8"
    assert network.attempts == [(0, "1.1.1.1"), (0.25, "8.8.8.8")]
    assert network.left_open() == ["8.8.8.8"]


async def test_failure_ends_the_turn(autojump_clock: trio.testing.MockClock) -> None:
    network = ScriptedNetwork(["1.1.1.1", "8.8.8.8"], takes={"1.1.1.1": 0.05, "8.8.8.8": 0}, refusing=["1.1.1.1"])
    wire = await open_wire(network, public_policy(), "a.example", 443)
    assert wire.peer.host == "8.8.8.8"
    assert network.attempts == [(0, "1.1.1.1"), (0.05, "8.8.8.8")]


async def test_families_take_turns(autojump_clock: trio.testing.MockClock) -> None:
    network = ScriptedNetwork(["2a00::1", "2a00::2", "2a00::3", "1.1.1.1", "8.8.8.8"], takes={"2a00::3": 0})
    wire = await open_wire(network, public_policy(), "a.example", 443)
    assert wire.peer.host == "2a00::3"
    assert [host for _, host in network.attempts] == ["2a00::1", "1.1.1.1", "2a00::2", "8.8.8.8", "2a00::3"]


async def test_slow_first_may_win(autojump_clock: trio.testing.MockClock) -> None:
    network = ScriptedNetwork(["1.1.1.1", "8.8.8.8"], takes={"1.1.1.1": 0.3, "8.8.8.8": 9})
    assert (await open_wire(network, public_policy(), "a.example", 443)).peer.host == "1.1.1.1"
    assert network.left_open() == ["1.1.1.1"]


@pytest.mark.parametrize("second", [0.25, 0.5])
async def test_losers_are_closed(autojump_clock: trio.testing.MockClock, second: float) -> None:
    """Also when two answer in the same instant."""
    network = ScriptedNetwork(["1.1.1.1", "8.8.8.8"], takes={"1.1.1.1": 0.5, "8.8.8.8": second})
    wire = await open_wire(network, public_policy(), "a.example", 443)
    assert network.left_open() == [wire.peer.host]


async def test_loser_that_still_connects_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    class Network(ScriptedNetwork):
        async def connect(self, address: Address) -> Wire:
            with trio.CancelScope(shield=True):
                wire = await super().connect(address)
            return wire

    network = Network(["1.1.1.1", "8.8.8.8"], takes={"1.1.1.1": 1, "8.8.8.8": 0.5})
    wire = await open_wire(network, public_policy(), "a.example", 443)
    assert (wire.peer.host, list(network.sockets)) == ("8.8.8.8", ["8.8.8.8", "1.1.1.1"])
    assert network.left_open() == ["8.8.8.8"]


async def test_last_error_is_told(autojump_clock: trio.testing.MockClock) -> None:
    refusing = ["1.1.1.1", "8.8.8.8"]
    network = ScriptedNetwork(refusing, takes={"1.1.1.1": 5, "8.8.8.8": 1}, refusing=refusing)
    with pytest.raises(ConnectionRefusedError, match=r"1\.1\.1\.1"):
        await open_wire(network, public_policy(), "a.example", 443)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example"])
async def test_impossible_name_is_unreachable(host: str) -> None:
    class Network(ScriptedNetwork):
        async def resolve(self, host: str, port: int) -> list[Address]:
            return await KernelNetwork().resolve(host, port)

    with pytest.raises(OSError, match="cannot be a host name"):
        await open_wire(Network(), public_policy(), host, 443)


async def test_no_address_is_unreachable() -> None:
    with pytest.raises(OSError, match="has no address"):
        await open_wire(ScriptedNetwork([]), public_policy(), "a.example", 443)


@pytest.mark.parametrize("after", [0, 0.1, 0.25, 0.3, 0.5, 0.75])
async def test_cancellation_leaves_nothing_open(autojump_clock: trio.testing.MockClock, after: float) -> None:
    """Cancelled at any time, also in the instant in which an attempt succeeds."""
    network = ScriptedNetwork(["1.1.1.1", "8.8.8.8"], takes={"1.1.1.1": 0.5, "8.8.8.8": 0.5})
    wires: list[Wire] = []
    with trio.move_on_after(after):
        wires.append(await open_wire(network, public_policy(), "a.example", 443))
    assert network.left_open() == [wire.peer.host for wire in wires]


async def test_wire_won_while_cancelled_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    class Network(ScriptedNetwork):
        async def connect(self, address: Address) -> Wire:
            wire = await super().connect(address)
            scope.cancel()
            return wire

    network = Network(["1.1.1.1", "8.8.8.8"], takes={"1.1.1.1": 0.1})
    with trio.CancelScope() as scope:
        await open_wire(network, public_policy(), "a.example", 443)
    assert scope.cancelled_caught
    assert list(network.sockets) == ["1.1.1.1"]
    assert network.left_open() == []
