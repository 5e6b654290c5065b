"""File names in a configuration file: they are relative to its folder, wherever the gateway is started."""

from pathlib import Path
from typing import Any

import msgspec
from quiver.schemas.config import OLLAMA, Config
from quiver.schemas.settings import pattern_of, section_of

from .layer import Tree

# Settings that name files or folders, beside all those that end in `_file`.
NAMES = frozenset({"engine.models_dir", "models.path", "log.file", "store.data_dir"})


def anchored(tree: Tree, folder: Path) -> Tree:
    """`tree`, its file names seen from the working directory instead of from `folder`. What has a wrong type is left."""
    return _section(Config, "", tree, folder)


def _section(kind: type[msgspec.Struct], path: str, tree: Tree, folder: Path) -> Tree:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    return {
        name: _value(fields[name].type, f"{path}.{name}" if path else name, value, folder) if name in fields else value
        for name, value in tree.items()
    }


def _value(kind: Any, path: str, value: Any, folder: Path) -> Any:
    section, repeated = section_of(kind)
    if section is not None:
        if repeated and isinstance(value, list):
            return [_section(section, path, item, folder) if isinstance(item, dict) else item for item in value]
        return _section(section, path, value, folder) if isinstance(value, dict) else value
    if (
        isinstance(value, str)
        and value
        and (path.endswith("_file") or pattern_of(path) in NAMES)
        and not value.startswith(OLLAMA)
    ):
        return str(folder / Path(value).expanduser())
    return value
