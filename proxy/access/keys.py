"""Client keys: who may call the inference paths, and as whom.

Keys are kept as keyed hashes and looked up by hash, so neither the lookup's time nor a memory dump tells one.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable
from math import inf

import msgspec
from quiver.schemas.config import Key, Rate
from quiver.schemas.errors import INVALID_API_KEY, ApiError

from .addresses import AddressBook
from .buckets import per_minute
from .client import Client
from .limits import TokenBudget

HeaderLookup = Callable[[bytes], bytes | None]


class Statistics(msgspec.Struct, frozen=True):
    """How many keys are known, and how many addresses of clients without one are remembered."""

    keys: int
    addresses: int


class KeyRing:
    """The known client keys.

    A ring that never had a key lets everybody in: `server` refuses that on a public address. One whose last key was
    removed lets nobody in. `plain` are keys without limits, named by their place: `key-1`, `key-2`. `secret` keys the
    hashes; random unless given. Raises `ValueError` as `add` does.
    """

    def __init__(
        self,
        keys: Iterable[Key] = (),
        plain: Iterable[str] = (),
        rate: Rate | None = None,
        *,
        secret: bytes | None = None,
    ) -> None:
        self._secret = secret or secrets.token_bytes(32)
        self._clients: dict[bytes, Client] = {}
        self._digests: dict[str, bytes] = {}
        self._addresses = AddressBook(rate or Rate())
        self._required = False
        for key in keys:
            self.add(key)
        for place, text in enumerate(plain, 1):
            if self._digest(text.encode()) not in self._clients:
                self.add(Key(name=f"key-{place}", key=text))

    def __repr__(self) -> str:
        return f"<KeyRing: {len(self._clients)} keys>"

    @property
    def required(self) -> bool:
        """Whether a client has to show a key."""
        return self._required

    def add(self, key: Key) -> Client:
        """Let a key in, with its limits unused. Raises `ValueError` when it is empty, or its name or itself is known."""
        if not key.key:
            raise ValueError(f"the key of `{key.name}` is not given")
        digest = self._digest(key.key.encode())
        if key.name in self._digests:
            raise ValueError(f"two keys are named `{key.name}`")
        if digest in self._clients:
            raise ValueError(f"`{key.name}` and `{self._clients[digest].name}` have the same key")
        client = _client(key, digest.hex())
        self._clients[digest], self._digests[key.name] = client, digest
        self._required = True
        return client

    def remove(self, name: str) -> None:
        """Let a key in no more. Raises `KeyError` when none has that name."""
        del self._clients[self._digests.pop(name)]

    def authenticate(self, header: HeaderLookup, peer: str, now: float) -> Client:
        """Who sent a request from the IP address `peer`: the owner of its key, or the address where none is required.

        Raises `ApiError` (401) unless it shows a known key as `Authorization: Bearer` or `X-API-Key`.
        """
        if not self._required:
            return self._addresses.client(peer, now)
        key = presented_key(header)
        if key is None:
            raise ApiError(INVALID_API_KEY, "No API key was sent; send `Authorization: Bearer YOUR_KEY`")
        client = self._clients.get(self._digest(key))
        if client is None:
            raise ApiError(INVALID_API_KEY, "The API key is not known to this gateway")
        return client

    def statistics(self) -> Statistics:
        return Statistics(keys=len(self._clients), addresses=len(self._addresses))

    def _digest(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, key=self._secret, digest_size=32).digest()


def presented_key(header: HeaderLookup) -> bytes | None:
    """The key a request carries, if any."""
    authorization = header(b"authorization")
    if authorization is not None:
        if authorization.startswith(b"Bearer ") and authorization[7:8] > b" ":  # as nearly everybody writes it
            return authorization[7:]
        scheme, _, value = authorization.partition(b" ")
        if scheme.lower() == b"bearer" and value.strip():
            return value.strip()
    return header(b"x-api-key")


def _client(key: Key, scope: str) -> Client:
    requests, tokens = key.requests_per_minute, key.tokens_per_minute
    return Client(
        key.name,
        scope,
        models=frozenset(key.models),
        priority=key.priority,
        requests=None if requests is None else per_minute(requests, -inf),
        tokens=None if tokens is None else TokenBudget(tokens, -inf),
        keep_content=key.keep_content,
    )
