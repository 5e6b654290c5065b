"""Client keys: who may call the inference paths, and as whom.

Keys are kept as keyed hashes and looked up by hash, so neither the lookup's time nor a memory dump tells one. Those of the
configuration and those that were made while the gateway ran stand side by side; names are unique among the keys in use.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf

import msgspec
from quiver.schemas.config import Auth, Key, Rate
from quiver.schemas.errors import EXPIRED_API_KEY, INVALID_API_KEY, REVOKED_API_KEY, ApiError, ErrorKind
from quiver.schemas.periods import moment
from quiver.schemas.saved import SavedKey

from .addresses import AddressBook
from .client import Client, terms_of
from .failures import Failures, Note, no_note
from .minting import is_mistyped

HeaderLookup = Callable[[bytes], bytes | None]


class Statistics(msgspec.Struct, frozen=True):
    """How many keys are known, and how many addresses of clients without one are remembered."""

    keys: int
    addresses: int


class Ending(msgspec.Struct, frozen=True):
    """A key that opens until a moment (Unix time), and what is said of it from then on."""

    client: Client
    until: float
    error: ErrorKind
    message: str


class Issued(msgspec.Struct, frozen=True):
    """A key that was made while the gateway ran, as it is saved, and whoever it stands for."""

    key: SavedKey
    client: Client


class KeyRing:
    """The known client keys.

    A ring that never had a key lets everybody in, unless it is `closed`, as on a public address. The first key closes it,
    and it stays so: one whose last key was removed or revoked lets nobody in. With `auth.open` it never closes, and a key
    only says who asks. `plain` are keys without limits, named by their place: `key-1`, `key-2`. `secret` keys the
    hashes; random unless given. `wall_clock` tells Unix time. `note` hears of addresses that show too many wrong keys.
    Raises `ValueError` as `add` does.
    """

    def __init__(
        self,
        keys: Iterable[Key] = (),
        plain: Iterable[str] = (),
        rate: Rate | None = None,
        *,
        secret: bytes | None = None,
        auth: Auth | None = None,
        closed: bool = False,
        wall_clock: Callable[[], float] = lambda: 0.0,
        note: Note = no_note,
    ) -> None:
        auth, rate = auth or Auth(), rate or Rate()
        self._secret = secret or secrets.token_bytes(32)
        self._wall_clock, self._open_to_all = wall_clock, auth.open
        # Keys without an end, and keys with one: by digest. Few have one, and only those have to look at the clock.
        self._clients: dict[bytes, Client] = {}
        self._ending: dict[bytes, Ending] = {}
        self._digests: dict[str, bytes] = {}
        self._issued: dict[str, Issued] = {}
        self._addresses = AddressBook(rate)
        self._rate = rate
        self._required = closed and not auth.open
        self._everybody = not self._required
        self.failures = Failures(auth.failures_per_minute, rate.addresses, note)
        # How often a key was refused, by why.
        self.refused: dict[str, int] = {}
        for key in _with_plain(keys, plain):
            self.add(key)

    def __repr__(self) -> str:
        return f"<KeyRing: {len(self._digests) + len(self._issued)} keys>"

    def __iter__(self) -> Iterator[Issued]:
        """The keys made while the gateway ran, the oldest first; revoked ones too."""
        return iter(self._issued.values())

    @property
    def required(self) -> bool:
        """Whether a client has to show a key."""
        return self._required

    @property
    def openness(self) -> tuple[bool, bool]:
        """Whether a key is required, and whether none is looked at: what to `restore` when a reload is undone."""
        return self._required, self._everybody

    def restore(self, openness: tuple[bool, bool]) -> None:
        """Keys that were let in have been taken back, and with them that the ring was closed for them."""
        self._required, self._everybody = openness

    @property
    def configured(self) -> Mapping[str, Client]:
        """The keys of the configuration, by name."""
        return {name: self._clients[digest] for name, digest in self._digests.items()}

    def get(self, id: str) -> Issued | None:
        """The key with this id that was made while the gateway ran."""
        return self._issued.get(id)

    def in_use(self, name: str) -> Issued | None:
        """The same by its name, if it is not revoked."""
        named = (issued for issued in self._issued.values() if issued.key.name == name and issued.key.revoked is None)
        return next(named, None)

    def named(self, name: str) -> bool:
        """Whether a key in use has this name, wherever it comes from."""
        return name in self._digests or self.in_use(name) is not None

    def add(self, key: Key) -> Client:
        """Let a key in, with its limits unused. Raises `ValueError` when it is empty, or its name or itself is known."""
        if not key.key:
            raise ValueError(f"the key of `{key.name}` is not given")
        digest = self._digest(key.key.encode())
        if self.named(key.name):
            raise ValueError(f"two keys are named `{key.name}`")
        if (other := self._owner(digest)) is not None:
            raise ValueError(f"`{key.name}` and `{other.name}` have the same key")
        client = Client(key.name, digest.hex())
        client.change(terms_of(key), self._wall_clock, -inf)
        self._clients[digest], self._digests[key.name] = client, digest
        self._close()
        return client

    def remove(self, name: str) -> None:
        """Let a key of the configuration in no more. Raises `KeyError` when none has that name."""
        del self._clients[self._digests.pop(name)]

    def reload(self, keys: Iterable[Key], plain: Iterable[str], rate: Rate, now: float) -> None:
        """Put other keys of the configuration in the place of those there are. Who keeps the name keeps what is left of its
        limits, with another key too. Raises `ValueError` as `add` does, and then nothing has changed.
        """
        wanted = list(_with_plain(keys, plain))
        KeyRing(wanted, secret=self._secret)  # raises for those that contradict each other
        digests = {key.name: self._digest(str(key.key).encode()) for key in wanted}
        for issued in self._issued.values():
            if issued.key.revoked is None and issued.key.name in digests:
                raise ValueError(f"two keys are named `{issued.key.name}`, one of which was made while the gateway ran")
        for name, digest in digests.items():
            if digest in self._ending or (digest in self._clients and self._clients[digest].name not in self._digests):
                raise ValueError(f"`{name}` has the same key as one that was made while the gateway ran")
        before = {name: self._clients.pop(digest) for name, digest in self._digests.items()}
        self._digests = {}
        for key in wanted:
            digest, client = digests[key.name], before.get(key.name)
            if client is None:
                client = Client(key.name, digest.hex())
            client.change(terms_of(key), self._wall_clock, now)
            self._clients[digest], self._digests[key.name] = client, digest
            self._close()
        if rate != self._rate:
            self._addresses, self._rate = AddressBook(rate), rate

    def put(self, key: SavedKey, now: float, spent: int = 0) -> Client:
        """Let a saved key in, or let what changed of it count. `spent`: what is gone of its budget's period, when the key or
        its period is new here. Raises `ValueError` when its name or itself is known.
        """
        before = self._issued.get(key.id)
        digest = bytes.fromhex(key.digest)
        if before is None and key.revoked is None and self.named(key.name):
            raise ValueError(f"two keys are named `{key.name}`, one of which was made while the gateway ran")
        owner = self._owner(digest)
        if owner is not None and (before is None or owner is not before.client):
            raise ValueError(f"`{key.name}` and `{owner.name}` have the same key")
        client = before.client if before is not None else Client(key.name, key.id)
        client.change(terms_of(key), self._wall_clock, now, spent)
        if before is not None:
            self._forget(before.key)
        self._issued[key.id] = Issued(key, client)
        self._let_in(key, client)
        self._close()
        return client

    def digest_of(self, key: str) -> str:
        """What is saved of a key, in hexadecimal."""
        return self._digest(key.encode()).hex()

    def owner(self, digest: str) -> Client | None:
        """Whom a key stands for, or stood for, by `digest_of` it."""
        return self._owner(bytes.fromhex(digest))

    def authenticate(self, header: HeaderLookup, peer: str, now: float) -> Client:
        """Who sent a request from the IP address `peer`: the owner of its key, or the address where none is required.

        Raises `ApiError` unless it shows a known key as `Authorization: Bearer` or `X-API-Key`: 401, or 429 when too many
        wrong ones came from the address.
        """
        if self._everybody:
            return self._addresses.client(peer, now)
        key = presented_key(header)
        if key is None:
            if not self._required:
                return self._addresses.client(peer, now)
            self._count("missing")
            raise ApiError(INVALID_API_KEY, "No API key was sent; send `Authorization: Bearer YOUR_KEY`")
        if self.failures.addresses:
            self.refuse_guesses(peer, key, now)
        digest = self._digest(key)
        client = self._clients.get(digest)
        if client is None:
            if not self._required and digest not in self._ending:
                return self._addresses.client(peer, now)
            client = self._before_end(digest, peer, key, now)
        client.used_at = now
        return client

    def recognise(self, key: bytes, peer: str, now: float) -> Client:
        """Whom a key stands for, wherever it was shown. Raises `ApiError` as `authenticate` does for a wrong one."""
        digest = self._digest(key)
        return self._clients.get(digest) or self._before_end(digest, peer, key, now)

    def refuse_guesses(self, peer: str, key: bytes, now: float) -> None:
        """Raise `ApiError` (429) when `key` is not to be looked at, as too many wrong ones came from `peer`."""
        try:
            self.failures.refuse_guesses(peer, key, now)
        except ApiError as error:
            self._count(error.kind.code)
            raise

    def statistics(self) -> Statistics:
        return Statistics(keys=len(self._digests) + len(self._issued), addresses=len(self._addresses))

    def _owner(self, digest: bytes) -> Client | None:
        ending = self._ending.get(digest)
        return self._clients.get(digest) if ending is None else ending.client

    def _before_end(self, digest: bytes, peer: str, key: bytes, now: float) -> Client:
        """The client of a key that has an end, before that. Raises `ApiError`."""
        ending = self._ending.get(digest)
        if ending is not None and self._wall_clock() < ending.until:
            return ending.client
        if ending is not None:
            error = ApiError(ending.error, ending.message)
        elif is_mistyped(key):
            error = ApiError(
                INVALID_API_KEY, "The API key is mistyped, or was cut short: its last characters do not fit"
            )
        else:
            error = ApiError(INVALID_API_KEY, "The API key is not known to this gateway")
        self._count("mistyped" if ending is None and is_mistyped(key) else error.kind.code)
        self.failures.failed(peer, key, now, known=ending is not None)
        raise error

    def _let_in(self, key: SavedKey, client: Client) -> None:
        ending = self._end_of(key, client)
        if ending is None:
            self._clients[bytes.fromhex(key.digest)] = client
        else:
            self._ending[bytes.fromhex(key.digest)] = ending
        if key.previous is not None:
            until = key.previous_until or 0.0
            message = f"The API key was replaced by another, and opened until {moment(until)}"
            old = Ending(client, until, REVOKED_API_KEY, message)
            self._ending[bytes.fromhex(key.previous)] = old if ending is None or until < ending.until else ending

    def _end_of(self, key: SavedKey, client: Client) -> Ending | None:
        if key.revoked is not None:
            return Ending(client, -inf, REVOKED_API_KEY, f"The API key was revoked on {moment(key.revoked)}")
        if key.expires is not None:
            return Ending(client, key.expires, EXPIRED_API_KEY, f"The API key expired on {moment(key.expires)}")
        return None

    def _forget(self, key: SavedKey) -> None:
        for digest in (key.digest, key.previous):
            if digest is not None:
                self._clients.pop(bytes.fromhex(digest), None)
                self._ending.pop(bytes.fromhex(digest), None)

    def _close(self) -> None:
        self._required, self._everybody = not self._open_to_all, False

    def _count(self, why: str) -> None:
        self.refused[why] = self.refused.get(why, 0) + 1

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


def _with_plain(keys: Iterable[Key], plain: Iterable[str]) -> Iterator[Key]:
    """Those without a name get one, unless they stand among the others."""
    known = set()
    for key in keys:
        known.add(key.key)
        yield key
    for place, text in enumerate(plain, 1):
        if text not in known:
            known.add(text)
            yield Key(name=f"key-{place}", key=text)
