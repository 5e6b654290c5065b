"""YAML, of which only what a configuration needs is read: mappings, lists, and plain values as JSON has them.

What surprises people is not there: `no` and `on` are text, `010` and `1:30` too, dates as well. A key that stands twice, a
tag that makes an object, and anchors that unfold without end are errors. Every value has a line and a column.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import yaml

from .complaint import SettingsError
from .layer import Place, Tree

# What a person writes has a few hundred; nine lists of nine references each make a billion.
MOST_NODES = 20_000
DEEPEST = 20

_MAP, _SEQ, _STR = ("tag:yaml.org,2002:" + kind for kind in ("map", "seq", "str"))
_INT, _FLOAT, _BOOL, _NULL = ("tag:yaml.org,2002:" + kind for kind in ("int", "float", "bool", "null"))


class _Loader(yaml.SafeLoader):
    """Knows numbers, `true`, `false` and `null` as JSON does; everything else without quotes is text."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}  # type: ignore[misc] # the stubs do not call it one


_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(true|false)$"), list("tf"))
_Loader.add_implicit_resolver(_NULL, re.compile(r"^(null|~|)$"), ["n", "~", ""])
_Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT, re.compile(r"^[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"), list("-+0123456789.")
)


def parse(file: Path, text: str) -> tuple[Tree, dict[str, Place]]:
    """The settings in `text`, and where each stands. Raises `SettingsError` with line and column."""
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise SettingsError(f"{file}{place}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{file}: not valid YAML: {error}") from None
    except RecursionError:
        raise SettingsError(f"{file}: nested too deeply") from None
    if root is None:
        return {}, {}
    builder = _Builder(file)
    tree = builder.build(root, "", 0)
    if tree is None:
        return {}, {}
    if not isinstance(tree, dict):
        raise builder.error(root, "expected sections, such as `server:` with `port: 8080` indented below it")
    # A section all of whose lines are commented out says nothing.
    return {name: value for name, value in tree.items() if value is not None}, builder.places


class _Builder:
    """Makes values of nodes."""

    def __init__(self, file: Path) -> None:
        self.places: dict[str, Place] = {}
        self._file, self._nodes = file, 0

    def build(self, node: Any, path: str, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MOST_NODES or depth > DEEPEST:
            raise self.error(node, "too many values, or nested too deeply; are there anchors that unfold?")
        if path:
            self.places.setdefault(path, _place(node))
        match node.tag:
            case t if t == _MAP and isinstance(node, yaml.MappingNode):
                return self._mapping(node, path, depth)
            case t if t == _SEQ and isinstance(node, yaml.SequenceNode):
                return [self.build(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value)]
            case t if t in _SCALARS and isinstance(node, yaml.ScalarNode):
                return self._scalar(node)
            case _:
                raise self.error(node, "tags are not used here")

    def error(self, node: Any, words: str) -> SettingsError:
        place = _place(node)
        return SettingsError(f"{self._file}, line {place.line}, column {place.column}: {words}")

    def _mapping(self, node: Any, path: str, depth: int) -> Tree:
        tree: Tree = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in _SCALARS or key.tag == _NULL:
                raise self.error(key, "expected a name")
            if key.value == "<<" and not key.style:
                raise self.error(key, "merging with `<<` is not supported; write the settings out")
            here = f"{path}.{key.value}" if path else str(key.value)
            if key.value in tree:
                raise self.error(key, f"`{here}` stands here a second time")
            tree[key.value] = self.build(value, here, depth + 1)
        return tree

    def _scalar(self, node: Any) -> Any:
        try:
            return _SCALARS[node.tag](node.value)
        except ValueError:
            raise self.error(node, "the value does not fit its tag") from None


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


_SCALARS: dict[str, Callable[[str], Any]] = {
    _STR: str,
    _INT: int,
    _FLOAT: float,
    _BOOL: _truth,
    _NULL: lambda text: None,
}


def _place(node: Any) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)
