"""Where the configuration comes from: defaults, then `quiver.toml`, then the environment, then flags; the last one wins.

Every source is checked by itself, so that an error can name the file, variable or flag at fault. What only the whole can get
wrong - keys and addresses that contradict each other - is checked at the end. No message repeats a secret.
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from quiver.schemas.config import Config
from quiver.schemas.openai import ModelName

from .complaint import SettingsError, explain
from .credentials import with_secrets
from .environment import from_environment
from .loopback import is_loopback

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
        _merge(tree, from_file(file))
    _merge(tree, from_environment(environ))
    for name, settings in (flags or {}).items():
        _checked(name, settings)
        _merge(tree, settings)
    tree["models"] = [*tree.get("models", ()), *({"path": model} for model in models)]
    return _consistent(with_secrets(msgspec.convert(tree, Config)))


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
    named += [(model, "path") for model in tree.get("models", ())]
    named += [(backend, "api_key_file") for backend in tree.get("backends", ())]
    for section, field in named:
        if field in section:
            section[field] = str(folder / Path(section[field]).expanduser())
    return tree


def _merge(below: Tree, above: Tree) -> None:
    """Lay `above` over `below`: sections merge, anything else replaces."""
    for name, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            _merge(below[name], value)
        else:
            below[name] = value


def _consistent(config: Config) -> Config:
    """`config`, unless it contradicts itself."""
    auth, host = config.auth, config.server.host
    if auth.open and auth.keys:
        raise SettingsError("`auth.open` lets everyone in, yet client keys are set", "remove `auth.open`, or the keys")
    if not (auth.keys or auth.open or is_loopback(host)):
        raise SettingsError(
            f"`server.host` is `{host}`, which other machines can reach, and no client keys are set",
            "set `auth.keys` or `auth.keys_file`, listen on 127.0.0.1, or let everyone in with `auth.open = true`",
        )
    _refuse_backend_twins(config)
    _refuse_model_twins(config)
    return config


def _refuse_backend_twins(config: Config) -> None:
    seen: dict[tuple[str, str | None], int] = {}
    for index, backend in enumerate(config.backends):
        first = seen.setdefault((backend.url.rstrip("/").removesuffix("/v1"), backend.name), index)
        if first != index:
            raise SettingsError(
                f"`backends[{first}]` and `backends[{index}]` have the same url and name", "remove one of them"
            )


def _refuse_model_twins(config: Config) -> None:
    """Each file has a name of its own that a client can send. Whether it can be loaded is found out later: one bad file
    must not keep the other models down.
    """
    owners = {"bolt": "the built-in model"} if config.engine.bolt else {}
    for model in config.models:
        name = model.id or Path(model.path).stem
        if name in owners:
            raise SettingsError(
                f"`{model.path}` and {owners[name]} are both called `{name}`", "give it another `id` in quiver.toml"
            )
        if not _is_model_name(name):
            raise SettingsError(f"`{model.path}` makes no model name", "give it an `id` without blanks in quiver.toml")
        owners[name] = f"`{model.path}`"


def _is_model_name(name: str) -> bool:
    try:
        msgspec.convert(name, ModelName)
    except msgspec.ValidationError:
        return False
    return True
