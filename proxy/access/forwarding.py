"""Proxies in front of the gateway: whose word on a client's address is believed.

Anybody can send `X-Forwarded-For`, and every proxy adds to its end the address it was connected from. So the list is read
from its end, over the proxies that are trusted, up to the first address that is none of theirs.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network

# No chain of proxies is as long as this; whoever sends more wants us to read it.
MOST_HOPS = 32
# What proxies add, each of them some of these.
TRACES = (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip")


def was_forwarded(header: Callable[[bytes], bytes | None]) -> bool:
    """Whether a proxy says that it passed a request on: it then need not come from where its connection does."""
    return any(header(name) is not None for name in TRACES)


class Proxies:
    """The networks of trusted proxies. Raises `ValueError` for what is no network."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ip_network(network, strict=False) for network in networks)
        self._trusted = lru_cache(1024)(self._within)

    def __repr__(self) -> str:
        return f"<Proxies: {len(self._networks)} networks>"

    def client(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The address of the client that a request came from, by way of `peer`. Names in `headers` are in lower case."""
        if not self._trusted(peer):
            return peer
        hops = b",".join(value for name, value in headers if name == b"x-forwarded-for").split(b",")
        for hop in reversed(hops[-MOST_HOPS:]):
            address = _address(hop)
            if address is None:
                return peer
            peer = address
            if not self._trusted(peer):
                return peer
        return peer

    def scheme(self, peer: str, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
        """The scheme that the client used, if `peer` is trusted and tells."""
        if not self._trusted(peer):
            return None
        told = [value for name, value in headers if name == b"x-forwarded-proto"]
        scheme = told[-1].rpartition(b",")[2].strip().lower() if told else b""
        return scheme.decode() if scheme in (b"http", b"https") else None

    def _within(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in network for network in self._networks)


def _address(hop: bytes) -> str | None:
    """One entry of `X-Forwarded-For`, which some proxies write with a port; None for one that is no address."""
    text = hop.decode("latin-1").strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None
