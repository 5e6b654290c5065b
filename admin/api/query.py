"""A request's query parameters as a struct: strict, and an error names the parameter and the nearest one that is known."""

import math
from typing import Any, TypeVar

import msgspec
from quart import Request
from quiver.schemas import errors
from quiver.schemas.errors import ApiError

from ..configuration.complaint import nearest

T = TypeVar("T", bound=msgspec.Struct)
# msgspec's names for types, and what somebody who writes an address calls them.
_WORDS = {
    "`int`": "a whole number",
    "`float`": "a number",
    "`bool`": "`true` or `false`",
    "`str`": "text",
}


def decoded_query(request: Request, kind: type[T]) -> T:
    """The query of `request`. A field of `kind` that holds several values takes its parameter several times.

    Raises `ApiError` (400) with `param` for a parameter that is not known, comes twice, or has no value of its type.
    """
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    lists = {name for name, field in fields.items() if _several(field.type)}
    values: dict[str, Any] = {}
    for name, given in request.args.lists():
        if name not in fields:
            raise _refused(name, f"`{name[:64]}` is not a parameter here; {_known(name, list(fields))}")
        if name not in lists and len(given) > 1:
            raise _refused(name, f"`{name}` is given {len(given)} times; it takes one value")
        values[name] = given if name in lists else given[0]
    try:
        found = msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _explained(error, fields) from None
    for name, field in fields.items():
        value = getattr(found, field.name)
        if value is None and name in values:  # msgspec takes the word `null` for nothing
            raise _refused(name, f"`{name}`: expected something other than `null`")
        if isinstance(value, float) and not math.isfinite(value):
            raise _refused(name, f"`{name}`: expected a number")
    return found


def _several(kind: Any) -> bool:
    """Whether a field takes a list of values."""
    return isinstance(_bare(msgspec.inspect.type_info(kind)), msgspec.inspect.VarTupleType)


def _bare(node: msgspec.inspect.Type) -> msgspec.inspect.Type:
    """The type without its description and its `| None`."""
    if isinstance(node, msgspec.inspect.Metadata):
        return _bare(node.type)
    if isinstance(node, msgspec.inspect.UnionType):
        return _bare(next(kind for kind in node.types if not isinstance(kind, msgspec.inspect.NoneType)))
    return node


def _known(name: str, known: list[str]) -> str:
    guess = nearest(name, known)
    if guess is not None:
        return f"did you mean `{guess}`?"
    return f"known are {', '.join(f'`{each}`' for each in known)}" if known else "it takes none"


def _explained(error: msgspec.ValidationError, fields: dict[str, msgspec.structs.FieldInfo]) -> ApiError:
    rule, _, place = str(error).partition(" - at `$.")
    if rule.startswith("Object missing required field `"):
        name = rule.split("`")[1]
        return _refused(name, f"`{name}` is required")
    param, item, _ = place.rstrip("`").partition("[")
    if "`array` of length" in rule and not item:
        count = rule.replace("<= ", "at most ").replace(">= ", "at least ").removeprefix("Expected `array` of length ")
        return _refused(param, f"`{param}`: expected {count} values")
    return _refused(param, f"`{param}`: expected {_expected(rule, fields[param].type)}")


def _expected(rule: str, kind: Any) -> str:
    node = _bare(msgspec.inspect.type_info(kind))
    if isinstance(node, msgspec.inspect.VarTupleType):
        node = _bare(node.item_type)
    if isinstance(node, msgspec.inspect.LiteralType):
        return "one of " + ", ".join(f"`{value}`" for value in node.values)
    if "matching regex" in rule:
        return "another form of text"
    words = rule.removeprefix("Expected ").replace(" | null`", "`").partition(", got ")[0]
    for name, word in _WORDS.items():
        words = words.replace(name, word)
    return words.replace("text of length", "text of a length")


def _refused(param: str, message: str) -> ApiError:
    return ApiError(errors.INVALID_REQUEST, message, param=param[:64])
