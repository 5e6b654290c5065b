"""Settings from environment variables: `QUIVER_SECTION__FIELD`, such as `QUIVER_SERVER__PORT=9000`.

Text is taken as it is, lists and tables are JSON. An empty variable counts as not set, which is how compose files say so.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from .check import faults
from .complaint import SettingsError, known_names, nearest, raise_all, type_at
from .dotenv import DotEnv
from .layer import Layer, Origin

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


def from_environment(environ: Mapping[str, str], dotenv: DotEnv | None = None) -> Iterator[Layer | SettingsError]:
    """The settings in `environ`, or in `.env` if that is given, each variable a source of its own; or what is wrong with it."""
    for name, value in sorted(environ.items()):
        if name.startswith(PREFIX) and value and not _foreign(name, value):
            origin = Origin("environment", name)
            if dotenv is not None:
                origin = Origin("dotenv", str(dotenv.file), dotenv.lines[name], variable=name)
            try:
                yield _layer(origin, name, value)
            except SettingsError as error:
                yield from error.all


def _foreign(name: str, value: str) -> bool:
    """Whether the variable is somebody else's. `QUIVER_PORT` is Kubernetes' only when it holds an address."""
    if name in RESERVED:
        return True
    return _SERVICE_LINK.fullmatch(name) is not None and (name != "QUIVER_PORT" or "://" in value)


def _layer(origin: Origin, name: str, value: str) -> Layer:
    section, _, field = name.removeprefix(PREFIX).lower().partition("__")
    path = f"{section}.{field}" if field else section
    kind = type_at(path)
    if kind is None or isinstance(kind, msgspec.inspect.StructType):
        raise _unknown(origin.label, name)
    raw = _decoded(origin.label, value, *_WRITTEN[type(kind)]) if type(kind) in _WRITTEN else _plain(kind, value)
    layer = Layer(origin, {section: {field: raw} if field else raw})
    raise_all(faults(layer))
    return layer


def _plain(kind: msgspec.inspect.Type, value: str) -> Any:
    """Numbers and truths are written as text here; what is neither is left for the check to refuse."""
    wanted = _PLAIN.get(type(kind))
    try:
        return value if wanted is None else msgspec.convert(value, wanted, strict=False)
    except msgspec.ValidationError:
        return value


_PLAIN: dict[type[msgspec.inspect.Type], type] = {
    msgspec.inspect.BoolType: bool,
    msgspec.inspect.IntType: int,
    msgspec.inspect.FloatType: float,
}


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
