"""What only the whole configuration can get wrong: parts that contradict each other, names and keys that stand twice."""

import msgspec
from quiver.proxy.access.forwarding import Proxies
from quiver.proxy.egress import operator_policy
from quiver.proxy.remote.connections import Origin
from quiver.schemas.config import Config, Routing
from quiver.schemas.openai import ModelName

from ..loopback import is_loopback
from .complaint import SettingsError


def consistent(config: Config) -> Config:
    """`config`, keys read from their files, unless it contradicts itself: then it raises `SettingsError`."""
    _refuse_open_contradictions(config)
    _refuse_open_metrics(config)
    _refuse_key_twins(config)
    _refuse_circles(config.routing)
    _refuse_bad_egress(config)
    _refuse_bad_access(config)
    _refuse_bad_ports(config)
    _refuse_backend_twins(config)
    _refuse_model_twins(config)
    return config


def _refuse_open_contradictions(config: Config) -> None:
    auth, host = config.auth, config.server.host
    keys = auth.keys or config.keys
    if auth.open and keys:
        raise SettingsError("`auth.open` lets everyone in, yet client keys are set", "remove `auth.open`, or the keys")
    # With an admin key the gateway starts closed, and keys are made through it.
    if not (keys or auth.open or auth.admin_key or is_loopback(host)):
        raise SettingsError(
            f"`server.host` is `{host}`, which other machines can reach, and no client keys are set",
            "set `auth.admin_key` and make keys with `quiver keys create`, set `auth.keys` or `[[keys]]`, listen on "
            "127.0.0.1, or let everyone in with `auth.open = true`",
        )


def _refuse_open_metrics(config: Config) -> None:
    auth, telemetry = config.auth, config.telemetry
    keys = auth.keys or config.keys or auth.open or auth.admin_key
    if telemetry.metrics_port is not None and not (keys or is_loopback(telemetry.metrics_host)):
        raise SettingsError(
            f"`telemetry.metrics_host` is `{telemetry.metrics_host}`, which others can reach, and no client keys are set",
            "set `auth.keys` or `[[keys]]`, leave `telemetry.metrics_host` at 127.0.0.1, or set `auth.open = true`",
        )


def _refuse_key_twins(config: Config) -> None:
    """A key tells who sends a request, and with it what that client may do."""
    auth = config.auth
    owners = dict.fromkeys(auth.keys, "`auth.keys`")
    if auth.admin_key in owners:
        raise SettingsError("`auth.admin_key` is also a client's key", "the admin API needs a key of its own")
    if auth.admin_key is not None:
        owners[auth.admin_key] = "`auth.admin_key`"
    if config.join.key in dict.fromkeys(auth.keys):
        raise SettingsError("`join.key` is also a client's key", "joining needs a key of its own")
    if config.join.key is not None and config.join.key != auth.admin_key:
        owners[config.join.key] = "`join.key`"
    # The names under which the key ring keeps keys that have none.
    names = {f"key-{place}": "`auth.keys`" for place in range(1, len(auth.keys) + 1)}
    for index, key in enumerate(config.keys):
        place = f"`keys[{index}]`"
        if (first := names.setdefault(key.name, place)) != place:
            raise SettingsError(f"{first} and {place} are both named `{key.name}`", "give each client its own name")
        if (first := owners.setdefault(str(key.key), place)) != place:
            raise SettingsError(f"{first} and {place} have the same key", "give each client its own key")


def _refuse_circles(routing: Routing) -> None:
    for name, model in routing.aliases.items():
        if name == model:
            raise SettingsError(f"`routing.aliases`: `{name}` stands for itself", "name the model it stands for")
    for name, models in routing.fallbacks.items():
        if name in models:
            raise SettingsError(f"`routing.fallbacks`: `{name}` falls back on itself", "name other models")


def _refuse_bad_egress(config: Config) -> None:
    try:
        operator_policy(config.egress, is_loopback(config.server.host))
    except ValueError as error:
        raise SettingsError(str(error), 'write it as `"10.1.0.0/16"` or `"gpu.lab:8000"`') from None


def _refuse_bad_access(config: Config) -> None:
    for network in config.server.trusted_proxies:
        try:
            Proxies([network])
        except ValueError as error:
            raise SettingsError(f"`server.trusted_proxies`: {error}", 'write it as `"10.0.0.0/8"`') from None
    if config.cors.credentials and "*" in config.cors.origins:
        raise SettingsError(
            "`cors.credentials` is for listed origins, not for `*`", "list them, or leave credentials out"
        )


def _refuse_bad_ports(config: Config) -> None:
    """Hosts and ports that no connection can be made to, which the pattern of an address lets through."""
    for index, backend in enumerate(config.backends):
        try:
            Origin.parse(backend.url)
        except ValueError as error:
            raise SettingsError(f"`backends[{index}].url`: {error}") from None


def _refuse_backend_twins(config: Config) -> None:
    seen: dict[tuple[str, str | None], int] = {}
    for index, backend in enumerate(config.backends):
        first = seen.setdefault((backend.url.rstrip("/").removesuffix("/v1"), backend.name), index)
        if first != index:
            raise SettingsError(
                f"`backends[{first}]` and `backends[{index}]` have the same url and name", "remove one of them"
            )


def _refuse_model_twins(config: Config) -> None:
    """Each file has a name of its own that a client can send. Whether it can be loaded is found out later: one bad file
    must not keep the other models down.
    """
    owners = {"bolt": "the built-in model"} if config.engine.bolt else {}
    for model in config.models:
        name = model.name
        if name in owners:
            raise SettingsError(
                f"`{model.path}` and {owners[name]} are both called `{name}`", "give it another `id` in quiver.toml"
            )
        if not _is_model_name(name):
            raise SettingsError(f"`{model.path}` makes no model name", "give it an `id` without blanks in quiver.toml")
        owners[name] = f"`{model.path}`"


def _is_model_name(name: str) -> bool:
    try:
        msgspec.convert(name, ModelName)
    except msgspec.ValidationError:
        return False
    return True
