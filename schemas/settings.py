"""Settings one by one: every value of a configuration by its dotted path, which are secrets, which can change while the
gateway runs, and what differs between two configurations.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import msgspec

from .config import Config

# What takes effect on a reload: whole sections, or single fields. Everything else waits for a restart.
LIVE = frozenset(
    {
        "limits",
        "retries",
        "drain",
        "auth.keys",
        "auth.keys_file",
        "auth.admin_key",
        "auth.admin_key_file",
        "rate",
        "admission",
        "routing",
        "health",
        "reuse",
        "egress",
        "log.level",
        "keys",
        "models",
        "backends",
        "cors",
    }
)
# What is never shown: each field has a sibling with `_file` behind its name, for a file that holds it.
SECRETS = frozenset({"auth.keys", "auth.admin_key", "keys.key", "backends.api_key"})
MASK = "********"


class Change(msgspec.Struct, frozen=True):
    """One setting that differs: its path, both values with secrets masked, and whether it takes effect without a restart."""

    path: str
    before: Any
    after: Any
    live: bool

    def __str__(self) -> str:
        before, after = (msgspec.json.encode(value).decode() for value in (self.before, self.after))
        return f"{self.path}: {before} -> {after}" if before != after else f"{self.path}: changed"


def section_of(kind: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """The section that a field of this type holds, None for a value; and whether it is a list of them."""
    repeated = False
    while (origin := get_origin(kind)) in (Annotated, tuple):
        repeated = repeated or origin is tuple
        kind = get_args(kind)[0]
    found = kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None
    return found, repeated and found is not None


def pattern_of(path: str) -> str:
    """`backends.url` for `backends[3].url`."""
    return re.sub(r"\[[^\]]*\]", "", path)


def is_secret(path: str) -> bool:
    """Whether the value at `path` must not be shown."""
    return pattern_of(path) in SECRETS


def is_live(path: str) -> bool:
    """Whether the value at `path` takes effect on a reload."""
    section, _, field = pattern_of(path).partition(".")
    return section in LIVE or f"{section}.{field}" in LIVE


def flat(config: Config) -> dict[str, Any]:
    """Every value by its path, such as `server.port` and `backends[0].url`."""
    return dict(_flat("", config))


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, msgspec.Struct):
        for field in msgspec.structs.fields(value):
            here = f"{path}.{field.encode_name}" if path else field.encode_name
            yield from _flat(here, getattr(value, field.name))
    elif isinstance(value, tuple) and value and isinstance(value[0], msgspec.Struct):
        for index, item in enumerate(value):
            yield from _flat(f"{path}[{index}]", item)
    elif not (value == () and path in ("keys", "models", "backends")):
        yield path, value


def masked(path: str, value: Any) -> Any:
    """`value` as it may be shown: a secret is a mask, or nothing where there is none."""
    return MASK if value and is_secret(path) else value


def changes(before: Config, after: Config) -> list[Change]:
    """What differs. Entries of lists are told apart by name, so that a new first one does not change all others."""
    old, new = _named(before), _named(after)
    found = []
    for path in dict.fromkeys((*old, *new)):
        one, other = old.get(path), new.get(path)
        if one != other:
            found.append(Change(path, masked(path, one), masked(path, other), is_live(path)))
    return found


def _named(config: Config) -> dict[str, Any]:
    lists: dict[str, dict[str, msgspec.Struct]] = {
        "keys": {f"keys[{key.name}]": key for key in config.keys},
        "models": {f"models[{model.name}]": model for model in config.models},
        "backends": {f"backends[{backend.name or backend.url}]": backend for backend in config.backends},
    }
    single = msgspec.structs.replace(config, keys=(), models=(), backends=())
    found = flat(single)
    for entries in lists.values():
        for path, entry in entries.items():
            found.update(_flat(path, entry))
    return found


def running(before: Config, after: Config) -> Config:
    """`after`, but for what waits for a restart, which is as in `before`."""
    sections: dict[str, Any] = {}
    for field in msgspec.structs.fields(Config):
        name = field.name
        if is_live(name):
            continue
        old, new = getattr(before, name), getattr(after, name)
        waiting = {
            item.name: getattr(old, item.name)
            for item in msgspec.structs.fields(new)
            if not is_live(f"{name}.{item.name}")
        }
        sections[name] = msgspec.structs.replace(new, **waiting)
    return msgspec.structs.replace(after, **sections)
