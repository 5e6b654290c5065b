"""Clients without a key, told apart by address, with room for a bounded number of them.

An address that is forgotten must not come back to a full bucket it had emptied, or whoever has more addresses than are
remembered has no limit. So the fullest bucket goes first - forgetting a full one loses nothing - and while any bucket
that was not full has been forgotten, newcomers begin with no more than that one would hold by now.
"""

from functools import lru_cache
from heapq import heappop, heappush, heapreplace
from ipaddress import IPv6Address
from math import inf

from quiver.schemas.config import Rate

from .buckets import TokenBucket, per_minute
from .client import Client

NAME = "anonymous"


class AddressBook:
    """The anonymous clients seen lately, each with the limit of `Rate`; loopback ones are one client without any."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._local = Client(NAME, "address:local")
        self._clients: dict[str, Client] = {}
        # Parsing IPv6 costs more than all the rest of a lookup.
        self._counted = lru_cache(rate.addresses)(counted_address)
        # One entry for each client: when its bucket was to be full, how many came before it, and its address. Uses since
        # then only make that later, so the first entry that still holds is the fullest bucket.
        self._fullest: list[tuple[float, int, str]] = []
        self._came = 0
        # When the bucket forgotten last would have been full. None before it was later: the fullest goes first, and
        # whoever came after it began no fuller.
        self._owed_until = -inf

    def __len__(self) -> int:
        return len(self._clients)

    def __repr__(self) -> str:
        return f"<AddressBook: {len(self)} of {self._rate.addresses} addresses>"

    def client(self, peer: str, now: float) -> Client:
        """The client at an IP address."""
        known = self._clients.get(peer)
        if known is not None:
            return known
        address = self._counted(peer)
        if address is None:
            return self._local
        return self._clients.get(address) or self._remember(address, now)

    def _remember(self, address: str, now: float) -> Client:
        if len(self._clients) >= self._rate.addresses:
            self._forget_fullest()
        client = Client(NAME, f"address:{address}", requests=self._bucket(now))
        self._clients[address] = client
        heappush(self._fullest, (_full_at(client), self._came, address))
        self._came += 1
        return client

    def _bucket(self, now: float) -> TokenBucket | None:
        limit = self._rate.anonymous_requests_per_minute
        if not limit:
            return None
        bucket = per_minute(limit, now)
        if self._owed_until > now:
            bucket.take(min(bucket.capacity, (self._owed_until - now) * bucket.per_second), now)
        return bucket

    def _forget_fullest(self) -> None:
        while True:
            noted, came, address = self._fullest[0]
            full_at = _full_at(self._clients[address])
            if full_at <= noted:
                break
            heapreplace(self._fullest, (full_at, came, address))
        heappop(self._fullest)
        del self._clients[address]
        self._owed_until = full_at


def counted_address(peer: str) -> str | None:
    """What an IP address counts as: itself, None for this machine's own, and the whole /64 for the internet's IPv6.

    A home or a rented machine has 2^64 addresses there (RFC 6177), and a limit on each one would be none.
    """
    if ":" not in peer:
        return None if peer.startswith("127.") else peer
    try:
        address = IPv6Address(peer)
    except ValueError:
        return peer
    if address.ipv4_mapped is not None:
        return counted_address(str(address.ipv4_mapped))
    if address.is_loopback:
        return None
    return str(IPv6Address(int(address) >> 64 << 64)) + "/64" if address.is_global else str(address)


def _full_at(client: Client) -> float:
    return client.requests.full_at() if client.requests is not None else -inf
