"""Settings one by one: every value of a configuration by its dotted path, which are secrets, which can change while the
gateway runs, what differs between two configurations, and how the admin API tells all that.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import msgspec

from .config import Config, said

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
        "log.levels",
        "keys",
        "models",
        "backends",
        "cors",
        "join",
    }
)
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


class Setting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One setting. Secrets are masked, and so is what waits for a restart."""

    path: Annotated[str, said("such as `server.port` or `backends[0].url`")]
    value: Annotated[Any, said("what is in force")]
    source: Annotated[str, said("`default`, a file and line, a variable or a flag")]
    live: Annotated[bool, said("whether a change takes effect without a restart")]
    pending: Annotated[Any, said("what it will be after a restart, where that differs")] = None


class ConfigReport(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration in force. `files` are those that are watched; `refused` says why the last reload was not done, null
    when it was; moments are Unix time.
    """

    settings: list[Setting]
    files: list[str]
    loaded: float
    pending: list[Change]
    warnings: list[str] = []
    refused: str | None = None
    refused_at: float | None = None


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload changed, and what it left for a restart."""

    changed: list[Change]
    pending: list[Change]


def section_of(kind: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """The section that a field of this type holds, None for a value; and whether it is a list of them."""
    repeated = False
    while (origin := get_origin(kind)) in (Annotated, tuple):
        repeated = repeated or origin is tuple
        kind = get_args(kind)[0]
    found = kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None
    return found, repeated and found is not None


def _secrets(path: str, section: type[msgspec.Struct]) -> Iterator[str]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(section)}
    for name, field in fields.items():
        here = f"{path}.{name}" if path else name
        if f"{name}_file" in fields:
            yield here
        inner, _ = section_of(field.type)
        if inner is not None:
            yield from _secrets(here, inner)


# What is never shown. A secret is what has a sibling with `_file` behind its name, for a file that holds it: one is not added
# without the other.
SECRETS = frozenset(_secrets("", Config))


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
    """What differs. Entries of lists are told apart by name, so that a new first one does not change all others; of one that
    comes or goes only what it does not leave to the defaults is told.
    """
    old, new = _single(before), _single(after)
    entries, others = _entries(before), _entries(after)
    for path, entry in entries.items():
        old |= _flat(path, entry) if path in others else _own(path, entry)
    for path, entry in others.items():
        new |= _flat(path, entry) if path in entries else _own(path, entry)
    return [
        Change(path, masked(path, old.get(path)), masked(path, new.get(path)), is_live(path))
        for path in dict.fromkeys((*old, *new))
        if old.get(path) != new.get(path)
    ]


def _single(config: Config) -> dict[str, Any]:
    return flat(msgspec.structs.replace(config, keys=(), models=(), backends=()))


def _entries(config: Config) -> dict[str, msgspec.Struct]:
    """What stands in lists, by name."""
    return {
        **{f"keys[{key.name}]": key for key in config.keys},
        **{f"models[{model.name}]": model for model in config.models},
        **{f"backends[{backend.name or backend.url}]": backend for backend in config.backends},
    }


def _own(path: str, entry: msgspec.Struct) -> dict[str, Any]:
    """What `entry` says beyond the defaults."""
    required = {field.name for field in msgspec.structs.fields(entry) if field.required}
    plain = type(entry)(**{name: getattr(entry, name) for name in required})
    defaults = dict(_flat(path, plain))
    return {
        place: value
        for place, value in _flat(path, entry)
        if value != defaults[place] or place.rpartition(".")[2] in required
    }


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
