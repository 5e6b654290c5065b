"""One source of settings: a file, a variable or a flag, what it says, and where in it each setting stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

Tree = dict[str, Any]
Kind = Literal["default", "file", "dotenv", "environment", "flag"]


class Place(msgspec.Struct, frozen=True):
    """A place in a file, counted from 1. Where the format does not tell columns there is none."""

    line: int
    column: int | None = None


class Origin(msgspec.Struct, frozen=True):
    """Where a value comes from: `name` is a file, a variable or a flag; `variable` the one in `.env`."""

    kind: Kind
    name: str = ""
    line: int | None = None
    column: int | None = None
    variable: str = ""

    def __str__(self) -> str:
        """In a table: `quiver.toml:7`."""
        place = "" if self.line is None else f":{self.line}"
        return "default" if self.kind == "default" else f"{self.name}{place}"

    @property
    def label(self) -> str:
        """In a message: `quiver.toml, line 7`."""
        line = "" if self.line is None else f", line {self.line}"
        column = "" if self.column is None else f", column {self.column}"
        variable = f", {self.variable}" if self.variable else ""
        return f"{'environment variable ' if self.kind == 'environment' else ''}{self.name}{line}{column}{variable}"


DEFAULT = Origin("default")


@dataclass(frozen=True)
class Layer:
    """Settings of one source, as nested as in the file."""

    origin: Origin
    tree: Tree
    places: Mapping[str, Place] = field(default_factory=dict)

    def where(self, path: str) -> str:
        """The source, and the line where the setting at `path` stands: how an error begins."""
        return self.origin_of(path).label

    def origin_of(self, path: str) -> Origin:
        place = nearest_place(self.places, path)
        if place is None:
            return self.origin
        return msgspec.structs.replace(self.origin, line=place.line, column=place.column)


def nearest_place(places: Mapping[str, Place], path: str) -> Place | None:
    """The place of `path`, or of what it stands in."""
    while path:
        if path in places:
            return places[path]
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return None
