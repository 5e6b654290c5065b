"""Who may use the admin API: whoever has the admin key or comes over the local socket, or without a key whoever sits at a
gateway's own machine. And who may see how the gateway is.

Without a key a request has to come from loopback, and for nobody else, to a gateway on loopback. Pages of other sites that a
browser on this machine shows are kept out too: by `Host` those whose name resolves to 127.0.0.1, by `Origin` the rest.
"""

import hmac
from urllib.parse import urlsplit

from quart import Request
from quiver.proxy.access.forwarding import was_forwarded
from quiver.proxy.access.keys import HeaderLookup, KeyRing, presented_key
from quiver.proxy.handover import came_locally
from quiver.schemas import errors
from quiver.schemas.config import Config
from quiver.schemas.errors import ApiError

from ..loopback import is_loopback

SETTING = "set `auth.admin_key` or `auth.admin_key_file`"


def admit_operator(request: Request, config: Config, keys: KeyRing, now: float) -> None:
    """Raise `ApiError` unless `request` may use the admin API: 401 without a key that is known here, 403 for others, 429
    when too many wrong ones came from its address.
    """
    if _by_socket(request):
        return
    if config.auth.admin_key is None:
        refuse_strangers(request, config.server.host)
        return
    address, shown = request.remote_addr or "", _shown(request)
    if _opened(shown, address, config, keys, now):
        return
    for key in shown:
        keys.recognise(key, address, now)  # raises for a key that nobody knows
    if shown:
        raise ApiError(errors.ADMIN_FORBIDDEN, "A client's key does not open the admin API; it takes `auth.admin_key`")
    raise ApiError(errors.INVALID_API_KEY, "The admin API takes its own key; send `X-API-Key: YOUR_ADMIN_KEY`")


def admit_reader(request: Request, config: Config, keys: KeyRing, now: float) -> None:
    """Raise `ApiError` unless `request` may see how the gateway is: operators may, whoever sits at the machine of a gateway on
    loopback, and others with a client's key, where there are keys.
    """
    if _by_socket(request) or _from_this_machine(request, config.server.host):
        return
    address = request.remote_addr or ""
    if not _opened(_shown(request), address, config, keys, now):
        keys.authenticate(header_lookup(request), address, now)


def refuse_strangers(request: Request, listening: str) -> None:
    """Raise `ApiError` (403) unless `request` comes from this machine, to an address only this machine can reach."""
    if not _from_this_machine(request, listening):
        raise ApiError(
            errors.ADMIN_FORBIDDEN,
            f"Without a key the admin API is open to its own machine only, on a loopback address; {SETTING}",
        )
    origin = request.headers.get("Origin")
    if not is_loopback(_hostname(f"//{request.host}")) or (origin is not None and origin != _own_origin(request)):
        raise ApiError(
            errors.ADMIN_FORBIDDEN, f"Without a key the admin API takes no requests from other sites' pages; {SETTING}"
        )


def _by_socket(request: Request) -> bool:
    """Whether `request` comes over the local socket, and for nobody else: a proxy may stand behind that too."""
    return came_locally(request.scope) and not was_forwarded(header_lookup(request))


def _from_this_machine(request: Request, listening: str) -> bool:
    """Whether `request` comes from loopback, and for nobody else, to an address that only this machine can reach."""
    here = is_loopback(listening) and is_loopback(request.remote_addr or "")
    return here and not was_forwarded(header_lookup(request))


def _shown(request: Request) -> list[bytes]:
    """The keys that `request` carries."""
    header = header_lookup(request)
    return list(dict.fromkeys(key for key in (header(b"x-api-key"), presented_key(header)) if key is not None))


def _opened(shown: list[bytes], address: str, config: Config, keys: KeyRing, now: float) -> bool:
    """Whether the admin key is among those `shown`. Raises `ApiError` (429) when too many wrong ones came from `address`."""
    if config.auth.admin_key is None:
        return False
    for key in shown:
        keys.refuse_guesses(address, key, now)
    return any(hmac.compare_digest(key, config.auth.admin_key.encode()) for key in shown)


def _own_origin(request: Request) -> str:
    return f"{request.scheme}://{request.host}"


def _hostname(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def actor_of(request: Request) -> str:
    """Who makes a change, for the journal: the address it comes from, with `admin@` before it when it showed the admin key."""
    address = request.remote_addr or "unknown"
    shown = "X-API-Key" in request.headers or "Authorization" in request.headers
    return f"admin@{address}" if shown else address


def header_lookup(request: Request) -> HeaderLookup:
    """The headers of `request` as the key ring looks them up."""

    def header(name: bytes) -> bytes | None:
        value = request.headers.get(name.decode())
        return None if value is None else value.encode("latin-1")

    return header
