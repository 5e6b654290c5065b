"""Nothing stands in a catalogue that never happens: every error is raised somewhere, and every kind of event noted."""

import ast
from pathlib import Path
from typing import get_args

from quiver.schemas import errors
from quiver.schemas.errors import ErrorKind
from quiver.schemas.events import EventKind

from .test_imports import PACKAGES, files


def trees(but: Path) -> list[ast.Module]:
    paths = [path for package in PACKAGES for path in files(package) if not path.match(str(but))]
    return [ast.parse(path.read_text()) for path in paths]


def test_every_error_happens() -> None:
    named = {
        name
        for tree in trees(but=Path("schemas/errors.py"))
        for node in ast.walk(tree)
        for name in (
            [node.attr] if isinstance(node, ast.Attribute) else [node.id] if isinstance(node, ast.Name) else []
        )
    }
    kinds = {name: kind for name, kind in vars(errors).items() if isinstance(kind, ErrorKind)}
    assert len(kinds) > 50
    # What the codec and the control plane's framework refuse is looked up by its status.
    assert [name for name, kind in kinds.items() if name not in named and kind not in errors.BY_STATUS.values()] == []


def test_every_event_happens() -> None:
    texts = {
        node.value
        for tree in trees(but=Path("schemas/events.py"))
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(get_args(EventKind)) - texts == set()
