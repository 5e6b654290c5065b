"""What is wrong with a setting, in words for the person who wrote it.

msgspec says which rule a value breaks and where; this turns it into `SettingsError`: the field's path as one would write it,
what was expected, and for a misspelt name the nearest known one. No value is repeated, since it may be a secret.
"""

import difflib
import re
from collections.abc import Sequence

import msgspec
from quiver.schemas.config import Config

from .layer import Layer

_ROOT = msgspec.inspect.type_info(Config)

# msgspec's names for types, and what a TOML author calls them.
_WORDS = {
    "`int`": "a whole number",
    "`float`": "a number",
    "`str`": "text",
    "`bool`": "true or false",
    "`array`": "a list",
    "`object`": "a section",
    "`null`": "nothing",
}
_URL = "an address such as `http://127.0.0.1:11434`, without user, query or fragment"
_MODEL = "a model name of printable characters without blanks"
_PATTERNS = {
    "backends.url": _URL,
    "backends.name": "a name of 1 to 64 letters, digits, dots, hyphens or underscores",
    "backends.models": _MODEL,
    "backends.capabilities.endpoints": "a path below `/v1/` such as `chat/completions`",
    "cors.origins": "an origin such as `https://chat.lab`, as browsers send it: no path, lower case",
    "cors.headers": "a field's name such as `X-Session-ID`",
    "server.trusted_proxies": "a network such as `10.0.0.0/8`",
    "keys.name": "a name of 1 to 64 letters, digits, or `._@-`",
    "keys.models": _MODEL,
    "models.id": _MODEL,
    "routing.aliases": _MODEL,
    "routing.fallbacks": _MODEL,
}


class SettingsError(Exception):
    """The configuration cannot be used. `message` says what and where, `hint` what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    @property
    def all(self) -> Sequence["SettingsError"]:
        """It, and what else is wrong."""
        return [self]


class SettingsErrors(SettingsError):
    """Several things are wrong."""

    def __init__(self, errors: Sequence[SettingsError]) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self._errors = errors

    @property
    def all(self) -> Sequence[SettingsError]:
        return self._errors


def raise_all(errors: Sequence[SettingsError]) -> None:
    """Raises `errors` as one, if there are any."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise SettingsErrors(errors)


def explain(layer: Layer, path: str, error: msgspec.ValidationError) -> SettingsError:
    """`error`, raised for the value at `path` of `layer`, as a `SettingsError`."""
    # What is wrong with a name in a table is said of the table: "at `key` in `$.routing.aliases`".
    rule, _, place = str(error).replace(" - at `key` in `$", " - at `$").partition(" - at `$")
    here = path + place.rstrip("`")
    return SettingsError(f"{layer.where(here)}: `{here}`: expected {_expected(rule, here)}")


def kind_of(value: object) -> str:
    """What a value is, in the words of whoever wrote it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int():
            return "a whole number"
        case float():
            return "a number"
        case str():
            return "text"
        case dict():
            return "a section"
        case _:
            return "a list"


def unknown_setting(source: str, path: str, known: list[str]) -> SettingsError:
    """The error for a name that is no setting; `known` are the names that could stand there."""
    where, _, name = path.rpartition(".")
    guess = nearest(name, known)
    hint = f"did you mean `{_join(where, guess)}`?" if guess else f"known here: {', '.join(known)}"
    return SettingsError(f"{source}: `{path}` is not a setting", hint)


def nearest(name: str, known: list[str]) -> str | None:
    """The known name that was most likely meant."""
    return next(iter(difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)), None)


def known_names(path: str) -> list[str]:
    """The fields of the section at `path`; empty when there is no section."""
    node = type_at(path)
    return [field.encode_name for field in node.fields] if isinstance(node, msgspec.inspect.StructType) else []


def type_at(path: str) -> msgspec.inspect.Type | None:
    """The type a value at `path` (`server.port`, `backends[0].url`) has to have; None when there is no such field."""
    node: msgspec.inspect.Type | None = _ROOT
    for step in re.findall(r"[^.\[\]]+|\[[^\]]*\]", path):
        node = _item(node) if step.startswith("[") else _field(node, step)
    return node


def _field(node: msgspec.inspect.Type | None, name: str) -> msgspec.inspect.Type | None:
    if not isinstance(node, msgspec.inspect.StructType):
        return None
    return next((_bare(field.type) for field in node.fields if field.encode_name == name), None)


def _item(node: msgspec.inspect.Type | None) -> msgspec.inspect.Type | None:
    if isinstance(node, msgspec.inspect.DictType):
        return _bare(node.value_type)
    return _bare(node.item_type) if isinstance(node, msgspec.inspect.VarTupleType) else None


def _bare(node: msgspec.inspect.Type) -> msgspec.inspect.Type:
    """The type without its description and its `| None`."""
    if isinstance(node, msgspec.inspect.Metadata):
        return _bare(node.type)
    if isinstance(node, msgspec.inspect.UnionType):
        return _bare(next(kind for kind in node.types if not isinstance(kind, msgspec.inspect.NoneType)))
    return node


def _expected(rule: str, path: str) -> str:
    node = type_at(path)
    if isinstance(node, msgspec.inspect.LiteralType):
        return "one of " + ", ".join(str(value) for value in node.values)
    if "matching regex" in rule:
        return _PATTERNS.get(re.sub(r"\[[^\]]*\]", "", path), "another form of text")
    words = rule.removeprefix("Expected ").replace(" | null`", "`")
    for name, word in _WORDS.items():
        words = words.replace(name, word)
    return words.replace("text of length >=", "text of at least").replace("text of length <=", "text of at most") + (
        " characters" if "of length" in rule else ""
    )


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
