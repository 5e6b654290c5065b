"""Settings from environment variables: `QUIVER_SECTION__FIELD`, such as `QUIVER_SERVER__PORT=9000`.

Text is taken as it is, lists and tables are JSON. An empty variable counts as not set, which is how compose files say so.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from quiver.schemas.config import Config

from .complaint import SettingsError, explain, known_names, nearest, type_at

PREFIX = "QUIVER_"
# Variables that are not settings of the gateway: the clients', the data folder's, and the bootstrap script's.
RESERVED = frozenset(
    {
        "QUIVER_URL",
        "QUIVER_API_KEY",
        "QUIVER_API_KEY_FILE",
        "QUIVER_ADMIN_KEY",
        "QUIVER_ADMIN_KEY_FILE",
        "QUIVER_JOIN_KEY",
        "QUIVER_DATA_DIR",
        "QUIVER_PYTHON",
    }
)
# Kubernetes puts these into every pod beside a service called `quiver`.
_SERVICE_LINK = re.compile(r"QUIVER_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings in `environ`, as nested as in the file. Raises `SettingsError` that names the variable."""
    tree: dict[str, Any] = {}
    for name, value in sorted(environ.items()):
        if name.startswith(PREFIX) and value and not _foreign(name, value):
            section, field, setting = _setting(name, value)
            if field is None:
                tree[section] = setting
            else:
                tree.setdefault(section, {})[field] = setting
    return tree


def _foreign(name: str, value: str) -> bool:
    """Whether the variable is somebody else's. `QUIVER_PORT` is Kubernetes' only when it holds an address."""
    if name in RESERVED:
        return True
    return _SERVICE_LINK.fullmatch(name) is not None and (name != "QUIVER_PORT" or "://" in value)


def _setting(name: str, value: str) -> tuple[str, str | None, Any]:
    source = f"environment variable {name}"
    section, _, field = name.removeprefix(PREFIX).lower().partition("__")
    path = f"{section}.{field}" if field else section
    kind = type_at(path)
    if kind is None or isinstance(kind, msgspec.inspect.StructType):
        raise _unknown(source, name)
    raw = _decoded(source, value, *_WRITTEN[type(kind)]) if type(kind) in _WRITTEN else value
    try:
        checked = msgspec.convert({section: {field: raw} if field else raw}, Config, strict=False)
    except msgspec.ValidationError as error:
        raise explain(source, error) from None
    found = msgspec.to_builtins(getattr(checked, section))
    return section, field or None, found[field] if field else raw


# What is written as JSON, and what that looks like.
_WRITTEN: dict[type[msgspec.inspect.Type], tuple[str, str]] = {
    msgspec.inspect.VarTupleType: ("a list", '["first", "second"]'),
    msgspec.inspect.DictType: ("a table", '{"name": "value"}'),
}


def _decoded(source: str, value: str, what: str, example: str) -> Any:
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        raise SettingsError(f"{source}: expected {what} as JSON", f"write it as `{example}`") from None


def _unknown(source: str, name: str) -> SettingsError:
    """The error for a variable that names no setting, with the nearest one that does."""
    known = list(_variables())
    wanted = name.removeprefix(PREFIX).lower()
    exact = [variable for variable in known if variable.endswith(f"__{wanted}")]
    guess = exact[0] if exact else nearest(wanted, known)
    hint = f"did you mean `{PREFIX}{guess.upper()}`?" if guess else f"variables are called `{PREFIX}SECTION__FIELD`"
    return SettingsError(f"{source}: no such setting", hint)


def _variables() -> Iterator[str]:
    """Every variable's name, in lower case and without the prefix."""
    for section in known_names(""):
        fields = known_names(section)
        yield from (f"{section}__{field}" for field in fields)
        if not fields:
            yield section
