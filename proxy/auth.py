"""Client keys: who may call the inference paths.

Keys are kept as keyed hashes and looked up by hash, so neither the lookup's time nor a memory dump tells one.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable

from quiver.schemas.errors import INVALID_API_KEY, ApiError

HeaderLookup = Callable[[bytes], bytes | None]


class KeyRing:
    """The known client keys. An empty ring lets everybody in: `server` refuses that on a public address."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._secret = secrets.token_bytes(32)
        self._digests = frozenset(self._digest(key.encode()) for key in keys)

    def __repr__(self) -> str:
        return f"<KeyRing: {len(self._digests)} keys>"

    @property
    def required(self) -> bool:
        """Whether a client has to show a key."""
        return bool(self._digests)

    def authenticate(self, header: HeaderLookup) -> str:
        """Whose request it is: a name that tells keys apart and gives none away; "" when keys are not required.

        Raises `ApiError` (401) unless it shows a known key as `Authorization: Bearer` or `X-API-Key`.
        """
        if not self._digests:
            return ""
        key = presented_key(header)
        if key is None:
            raise ApiError(INVALID_API_KEY, "No API key was sent; send `Authorization: Bearer YOUR_KEY`")
        digest = self._digest(key)
        if digest not in self._digests:
            raise ApiError(INVALID_API_KEY, "The API key is not known to this gateway")
        return digest.hex()

    def _digest(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, key=self._secret, digest_size=32).digest()


def presented_key(header: HeaderLookup) -> bytes | None:
    """The key a request carries, if any."""
    authorization = header(b"authorization")
    if authorization is not None:
        scheme, _, value = authorization.partition(b" ")
        if scheme.lower() == b"bearer" and value.strip():
            return value.strip()
    return header(b"x-api-key")
