"""Keys that nobody has: how many an address may show before it is told to wait.

Two counts for each address. All failures: over the limit a wrong key gets 429 instead of 401. And different wrong keys, which
is what guessing looks like: over the limit nothing that a person may have thought up is looked at any more, right or wrong,
so that guessing gets nowhere. A key that Quiver made cannot be guessed and is let in always: one machine that sends an old
key, or an attacker, does not lock out whoever shares an address with it.
"""

from collections import OrderedDict
from collections.abc import Callable
from math import ceil, inf

from quiver.schemas.errors import AUTHENTICATION_LIMITED, ApiError

from .addresses import counted_address
from .buckets import TokenBucket, per_minute
from .minting import is_minted

# An address that failed is forgotten after so long, by when it may try again anyway.
MEMORY = 60.0
# How many of its last wrong keys are told apart.
RECENT = 8
# How often the journal hears of refused addresses, in all.
NOTES_A_MINUTE = 30

Note = Callable[[str, int], None]


def no_note(address: str, count: int) -> None:
    """Nobody listens."""


class _Address:
    """One address that showed wrong keys. `recent`: marks of the last ones; `count`: failures since it was told of."""

    __slots__ = ("count", "failed_at", "failures", "guesses", "noted_at", "recent")

    def __init__(self, allowed: int, now: float) -> None:
        self.failures, self.guesses = per_minute(allowed, now), per_minute(allowed, now)
        self.recent: list[int] = []
        self.count = 0
        self.failed_at = now
        self.noted_at = -inf


class Failures:
    """The addresses that failed lately, at most `addresses` of them; 0 `allowed` a minute: no limit.

    `note` is told of an address that goes over the limit, and how often it failed since it was told of last.
    """

    def __init__(self, allowed: int, addresses: int, note: Note = no_note) -> None:
        self._allowed, self._most, self._note = allowed, addresses, note
        # Those that failed last stand last.
        self.addresses: OrderedDict[str, _Address] = OrderedDict()
        self._notes = per_minute(NOTES_A_MINUTE, -inf)
        # How many were refused unseen, or got 429 for a wrong key.
        self.limited = 0

    def __len__(self) -> int:
        return len(self.addresses)

    def __repr__(self) -> str:
        return f"<Failures: {len(self)} addresses>"

    def refuse_guesses(self, peer: str, key: bytes, now: float) -> None:
        """Raise `ApiError` (429) when the address `peer` has shown so many different wrong keys that `key`, unless Quiver
        made it, is not to be looked at.
        """
        if self.addresses and not is_minted(key):
            name = _counted(peer)
            address = self.addresses.get(name)
            if address is not None and address.guesses.level(now) < 1:
                address.count += 1
                raise self._refused(name, address, address.guesses, now)

    def failed(self, peer: str, key: bytes, now: float, *, known: bool = False) -> None:
        """Count a `key` from the address `peer` that opens nothing; `known`: any more. Raises `ApiError` (429) when that was
        one too many.
        """
        if not self._allowed:
            return
        name = _counted(peer)
        address = self.addresses.get(name) or self._remember(name, now)
        self.addresses.move_to_end(name)
        address.failed_at = now
        address.count += 1
        mark = hash(key)  # salted for each process: no key can be read back from it
        if not known and mark not in address.recent:
            address.recent = [*address.recent[1 - RECENT :], mark]
            address.guesses.take(1, now)
        if not address.failures.take(1, now):
            raise self._refused(name, address, address.failures, now)

    def _remember(self, name: str, now: float) -> _Address:
        """Forgets those that may try again by now, and the oldest one when there are too many."""
        while self.addresses:
            oldest = next(iter(self.addresses.values()))
            if oldest.failed_at + MEMORY > now and len(self.addresses) < self._most:
                break
            self.addresses.popitem(last=False)
        self.addresses[name] = address = _Address(self._allowed, now)
        return address

    def _refused(self, name: str, address: _Address, bucket: TokenBucket, now: float) -> ApiError:
        self.limited += 1
        if now - address.noted_at >= MEMORY and self._notes.take(1, now):
            self._note(name, address.count)
            address.noted_at, address.count = now, 0
        seconds = max(1, ceil(bucket.wait(1, now)))
        text = f"Too many requests with wrong API keys came from this address; try again in {seconds} s"
        return ApiError(AUTHENTICATION_LIMITED, text, retry_after=seconds)


def _counted(peer: str) -> str:
    return counted_address(peer) or "loopback"
