"""Where the configuration comes from: defaults, then `quiver.toml`, then the environment, then flags; the last one wins.

Every source is checked by itself, so that an error can name the file, variable or flag at fault. What only the whole can get
wrong is checked at the end, in `consistency`. No message repeats a secret.
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from quiver.schemas.config import OLLAMA, Config

from .complaint import SettingsError, explain
from .consistency import consistent
from .credentials import with_secrets
from .environment import from_environment

DEFAULT_FILE = "quiver.toml"

Tree = dict[str, Any]


def load(
    file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, Tree] | None = None,
    models: Sequence[str] = (),
) -> Config:
    """The whole configuration, keys read from their files.

    `file` None: `quiver.toml` of the working directory, if there is one. `flags` maps a flag's name to the settings it
    stands for, as nested as in the file; `models` are files that come on top of those configured. Raises `SettingsError`.
    """
    tree: Tree = {}
    if file is not None or (file := _default_file()) is not None:
        _lay_over(tree, from_file(file))
    _lay_over(tree, from_environment(environ))
    for name, settings in (flags or {}).items():
        _checked(name, settings)
        _lay_over(tree, settings)
    tree["models"] = [*tree.get("models", ()), *({"path": model} for model in models)]
    return consistent(with_secrets(msgspec.convert(tree, Config)))


def from_file(file: Path) -> Tree:
    """The settings in one TOML file; paths in it are relative to its folder. Raises `SettingsError`."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(f"there is no configuration file `{file}`") from None
    except OSError as error:
        raise SettingsError(f"`{file}` cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"`{file}` is not text in UTF-8") from None
    tree = _parsed(file, text)
    _checked(str(file), tree)
    return _anchored(tree, file.parent)


def _parsed(file: Path, text: str) -> Tree:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        lines = text.rstrip().splitlines() or [""]
        place = f"at line {len(lines)}, column {len(lines[-1]) + 1}"
        words = str(error).replace("at end of document", place)
        raise SettingsError(f"{file}: not valid TOML: {words}", "text needs quotes, sections are `[name]`") from None


def _default_file() -> Path | None:
    file = Path(DEFAULT_FILE)
    return file if file.exists() else None


def _checked(source: str, tree: Tree) -> None:
    try:
        msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        raise explain(source, error) from None


def _anchored(tree: Tree, folder: Path) -> Tree:
    """`tree` with its file names seen from the working directory instead of from `folder`."""
    named = [(tree.get("auth", {}), "keys_file")]
    named += [(tree.get("auth", {}), "admin_key_file")]
    named += [(key, "key_file") for key in tree.get("keys", ())]
    named += [(tree.get("join", {}), "key_file")]
    named += [(tree.get("engine", {}), "models_dir")]
    named += [(model, "path") for model in tree.get("models", ()) if not str(model.get("path")).startswith(OLLAMA)]
    named += [(backend, "api_key_file") for backend in tree.get("backends", ())]
    log = tree.get("log", {})
    named += [(log, "file")] if isinstance(log.get("file"), str) and log["file"] else []
    for section, field in named:
        if field in section:
            section[field] = str(folder / Path(section[field]).expanduser())
    return tree


def _lay_over(tree: Tree, above: Tree) -> None:
    """Lay `above` over `tree`: a section's fields one by one, lists of sections as a whole."""
    for name, value in above.items():
        if isinstance(value, dict):
            tree.setdefault(name, {}).update(value)
        else:
            tree[name] = value
