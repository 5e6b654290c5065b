"""Where the gateway may connect to: addresses are judged once they are resolved, and connected to exactly as judged.

A name or a spelling is never judged: resolvers read `127.1`, `0x7f000001` and full-width digits as loopback, and a name
may mean another address a second later. Configured servers come under the operator's policy, addresses that a request
names under the public one.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from itertools import chain, zip_longest
from typing import Literal

import trio

from ..schemas import config
from ..schemas.errors import UPSTREAM_FORBIDDEN, ApiError
from .network import Address, Network, Wire

Kind = Literal[
    "global",
    "private",
    "loopback",
    "link-local",
    "cloud metadata",
    "multicast",
    "unspecified",
    "broadcast",
    "reserved",
]
_IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# RFC 8305 5: how long an attempt has the network to itself.
STAGGER = 0.25
WEB_PORTS = frozenset({80, 443})
# What shows that an entry of `allow` was meant as something else: a URL, a pattern, an address without brackets.
NOT_OF_NAMES = frozenset("/@?#*[]: \t")


def _networks(kind: Kind, *written: str) -> list[tuple[_IPNetwork, Kind]]:
    return [(ipaddress.ip_network(one), kind) for one in written]


# IANA's special-purpose registries; the first row that holds an address decides. `ipaddress.is_global` is no substitute:
# it differs between versions of Python, and lets both NAT64 prefixes and multicast through.
_KINDS_4: tuple[tuple[_IPNetwork, Kind], ...] = (
    *_networks("broadcast", "255.255.255.255/32"),
    *_networks("unspecified", "0.0.0.0/8"),
    *_networks("loopback", "127.0.0.0/8"),
    *_networks("link-local", "169.254.0.0/16"),
    *_networks("cloud metadata", "100.100.100.200/32", "168.63.129.16/32"),
    *_networks("private", "10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"),
    *_networks("multicast", "224.0.0.0/4"),
    *_networks("reserved", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24"),
    *_networks("reserved", "203.0.113.0/24", "240.0.0.0/4"),
    *_networks("global", "0.0.0.0/0"),
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_KINDS_6: tuple[tuple[_IPNetwork, Kind], ...] = (
    *_networks("unspecified", "::/128"),
    *_networks("loopback", "::1/128"),
    *_networks("link-local", "fe80::/10"),
    *_networks("cloud metadata", "fd00:ec2::254/128", "fd20:ce::254/128"),
    *_networks("private", "fc00::/7", "fec0::/10"),
    *_networks("multicast", "ff00::/8"),
    *_networks("reserved", "2001::/23", "2001:db8::/32", "3fff::/20"),
    *_networks("global", "2000::/3", str(_NAT64)),
    *_networks("reserved", "::/0"),
)


class EgressPolicy:
    """Which addresses may be connected to: global ones, private ones with `private`, and those that `allow` names.

    `allow` holds networks, addresses, and exact `host:port`s. An address with a port admits whatever that address is; a
    name with a port admits private and loopback addresses only, as its resolver decides what it means. `ports` limits
    all of them. Raises `ValueError` for an entry that is none of these.
    """

    __slots__ = ("_endpoints", "_names", "_networks", "_ports", "_private")

    def __init__(self, *, private: bool, allow: Iterable[str] = (), ports: frozenset[int] | None = None) -> None:
        self._private, self._ports = private, ports
        self._networks: list[_IPNetwork] = []
        self._endpoints: set[tuple[_IP, int]] = set()
        self._names: set[tuple[str, int]] = set()
        for entry in allow:
            self._add(entry)

    def refusal(self, address: Address, host: str) -> str | None:
        """Why `address`, to which `host` was resolved, may not be connected to; None when it may. Names the address."""
        if self._ports is not None and address.port not in self._ports:
            return f"port {address.port} is not one of {', '.join(map(str, sorted(self._ports)))}"
        try:
            resolved = ipaddress.ip_address(address.host)
        except ValueError:
            return f"`{address.host}` is not an IP address"
        named = (_plain(host), address.port) in self._names
        for ip in _readings(resolved):
            kind = _kind(ip)
            if not self._admits(ip, kind, address.port, named):
                within = "" if ip == resolved else f", within {resolved}"
                return f"{ip} is {kind}{within}"
        return None

    def _admits(self, ip: _IP, kind: Kind, port: int, named: bool) -> bool:
        if kind == "global" or (kind in ("private", "loopback") and (self._private or named)):
            return True
        return (ip, port) in self._endpoints or any(ip in network for network in self._networks)

    def _add(self, entry: str) -> None:
        host, _, digits = entry.rpartition(":")
        port = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 5 else 0
        if (network := _network(entry)) is not None:
            self._networks.append(network)
        elif not 1 <= port <= 65_535 or not host:
            raise _unreadable(entry)
        elif (literal := _literal(host[1:-1] if host[0] + host[-1] == "[]" else host)) is not None:
            self._endpoints.add((literal, port))
        elif NOT_OF_NAMES.isdisjoint(host):
            self._names.add((_plain(host), port))
        else:
            raise _unreadable(entry)


def operator_policy(egress: config.Egress, listening_on_loopback: bool) -> EgressPolicy:
    """The policy for configured servers. Raises `ValueError` for an entry of `egress.allow` that cannot be read."""
    private = egress.private == "allow" or (egress.private == "auto" and listening_on_loopback)
    return EgressPolicy(private=private, allow=egress.allow)


def public_policy() -> EgressPolicy:
    """The policy for addresses that a request names: global ones on the ports of HTTP and HTTPS, no exceptions."""
    return EgressPolicy(private=False, ports=WEB_PORTS)


async def open_wire(network: Network, policy: EgressPolicy, host: str, port: int) -> Wire:
    """A wire to `host`, resolved once; the caller closes it. Has no time limit of its own.

    Tries the addresses that `policy` lets through as RFC 8305 does: the next one each 250 ms, or at once after a
    failure; the first that answers wins and the others are closed. Raises `ApiError` `UPSTREAM_FORBIDDEN` when the
    policy refuses all of them or the peer that answered (its cause, which is not for clients, says why), and else
    `OSError`: the last attempt's.
    """
    vetted, reasons = [], []
    for address in await _resolve(network, host, port):
        reason = policy.refusal(address, host)
        if reason is None:
            vetted.append(address)
        else:
            reasons.append(reason)
    if not vetted:
        raise _forbidden() from PermissionError("; ".join(reasons))
    wire = await network.connect(vetted[0]) if len(vetted) == 1 else await _race(network, _by_turns(vetted))
    reason = policy.refusal(wire.peer, host)
    if reason is not None:
        wire.close()
        raise _forbidden() from PermissionError(reason)
    return wire


async def _resolve(network: Network, host: str, port: int) -> list[Address]:
    if _literal(host) is not None:
        return [Address(host, port)]
    try:
        found = await network.resolve(host, port)
    except UnicodeError as error:
        raise OSError(f"`{host}` cannot be a host name") from error
    if not found:
        raise OSError(f"`{host}` has no address")
    return found


async def _race(network: Network, addresses: list[Address]) -> Wire:
    winners: list[Wire] = []
    errors: list[OSError] = []

    async def attempt(address: Address, failed: trio.Event) -> None:
        try:
            wire = await network.connect(address)
        except OSError as error:
            errors.append(error)
            failed.set()
            return
        if winners:
            wire.close()
            return
        winners.append(wire)
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(STAGGER):
                    await failed.wait()
    except BaseException:
        for wire in winners:
            wire.close()
        raise
    if not winners:
        raise errors[-1]
    return winners[0]


def _by_turns(addresses: list[Address]) -> list[Address]:
    # RFC 8305 4: families alternate, so that one that leads nowhere costs one turn; the resolver's favourite goes first.
    first = ":" in addresses[0].host
    favourite = [address for address in addresses if (":" in address.host) == first]
    other = [address for address in addresses if (":" in address.host) != first]
    return [address for address in chain.from_iterable(zip_longest(favourite, other)) if address is not None]


def _readings(ip: _IP) -> Iterator[_IP]:
    # The address and every IPv4 address that a translator or tunnel on the way would take out of it.
    if isinstance(ip, ipaddress.IPv4Address):
        yield ip
        return
    if ip.ipv4_mapped is not None:
        yield ip.ipv4_mapped  # the kernel speaks IPv4 to it: it is that address
        return
    yield ip
    if ip.sixtofour is not None:
        yield ip.sixtofour
    if ip.teredo is not None:
        yield from ip.teredo  # the server, and the client behind its inverted bits
    if ip in _NAT64 or ip in _NAT64_LOCAL or (ip in _COMPATIBLE and int(ip) > 1):
        yield ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)


def _kind(ip: _IP) -> Kind:
    table = _KINDS_4 if ip.version == 4 else _KINDS_6
    return next(kind for network, kind in table if ip in network)


def _literal(host: str) -> _IP | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _network(entry: str) -> _IPNetwork | None:
    try:
        return ipaddress.ip_network(entry)
    except ValueError:
        return None


def _plain(host: str) -> str:
    return host.lower().removesuffix(".")


def _unreadable(entry: str) -> ValueError:
    return ValueError(f"`{entry}` in `egress.allow` is not a network, an address or `host:port`")


def _forbidden() -> ApiError:
    return ApiError(
        UPSTREAM_FORBIDDEN,
        "The server's address is not allowed; the gateway's operator can name it in `egress.allow`",
    )
