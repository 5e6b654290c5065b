"""Whether what a source says fits the schema: every field by itself, so that all errors are told at once."""

from collections.abc import Iterator
from typing import Any

import msgspec
from quiver.schemas.config import Config
from quiver.schemas.settings import section_of

from .complaint import SettingsError, explain, kind_of, known_names, nearest, unknown_setting
from .layer import Layer


def faults(layer: Layer) -> list[SettingsError]:
    """What is wrong with `layer`, each with its place; empty when it fits."""
    return list(_section(Config, "", layer.tree, layer))


def _section(kind: type[msgspec.Struct], path: str, value: Any, layer: Layer) -> Iterator[SettingsError]:
    if not isinstance(value, dict):
        yield SettingsError(f"{layer.where(path)}: `{path}`: expected a section, got {kind_of(value)}")
        return
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    meant = {nearest(name, list(fields)) for name in value if name not in fields}
    for name, item in value.items():
        here = f"{path}.{name}" if path else name
        if name in fields:
            yield from _value(fields[name].type, here, item, layer)
        else:
            yield unknown_setting(layer.where(here), here, known_names(path))
    for name, field in fields.items():
        if field.required and name not in value and name not in meant:
            yield SettingsError(f"{layer.where(path)}: `{path}.{name}` is required")


def _value(kind: Any, path: str, value: Any, layer: Layer) -> Iterator[SettingsError]:
    section, repeated = section_of(kind)
    if section is not None and not repeated:
        yield from _section(section, path, value, layer)
    elif section is not None and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _section(section, f"{path}[{index}]", item, layer)
    else:
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            yield explain(layer, path, error)
