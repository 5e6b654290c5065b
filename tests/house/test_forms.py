"""Patterns of the schemas fit whole texts: Python's `$` alone lets a line end follow, and that would stand in headers."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import quiver.schemas
from quiver.schemas.forms import whole
from quiver.schemas.join import Offer
from quiver.schemas.keys import KeyWanted
from quiver.schemas.servers import Registration


def structs() -> Iterator[type[msgspec.Struct]]:
    for module in pkgutil.iter_modules(quiver.schemas.__path__):
        found = vars(importlib.import_module(f"quiver.schemas.{module.name}")).values()
        yield from (each for each in found if isinstance(each, type) and issubclass(each, msgspec.Struct))


def patterns(node: Any) -> Iterator[str]:
    """Those anywhere in a schema."""
    if isinstance(node, dict):
        yield from (value for name, value in node.items() if name == "pattern" and isinstance(value, str))
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from patterns(each)


def test_every_pattern_is_for_the_whole_text() -> None:
    _, schemas = msgspec.json.schema_components(set(structs()), schema_hook=lambda kind: {"title": "any"})
    found = set(patterns(list(schemas.values())))
    assert len(found) >= 10
    assert {pattern for pattern in found if not pattern.endswith(whole("").removeprefix("^(?:)"))} == set()


URL = "http://127.0.0.1:9000"
OFFER = {"protocol": 1, "software": "quiver", "name": "laptop", "resume": "r" * 32, "url": URL}
FIELDS: list[tuple[type[msgspec.Struct], dict[str, Any], str]] = [
    (Registration, {"endpoint_url": URL, "name": "lab"}, "name"),
    (Registration, {"endpoint_url": URL, "name": "lab"}, "endpoint_url"),
    (Registration, {"endpoint_url": URL, "api_key": "secret"}, "api_key"),
    (Registration, {"endpoint_url": URL, "model_name": "m"}, "model_name"),
    (Offer, OFFER, "name"),
    (KeyWanted, {"name": "anna"}, "name"),
    (KeyWanted, {"name": "anna", "key": "k" * 30}, "key"),
]


@pytest.mark.parametrize(("kind", "fields", "name"), FIELDS)
def test_no_line_end_follows(kind: type[msgspec.Struct], fields: dict[str, Any], name: str) -> None:
    msgspec.convert(fields, kind)
    with pytest.raises(msgspec.ValidationError, match=name):
        msgspec.convert({**fields, name: fields[name] + "\n"}, kind)
