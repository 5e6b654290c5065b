"""Where the configuration comes from: defaults, then the file, `.env`, the environment, and flags; the last one wins.

Every source is checked by itself, so that an error can name the file, line, variable or flag at fault, and all errors are told
at once. What only the whole can get wrong is checked at the end, in `consistency`. No message repeats a secret.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from quiver.schemas.config import Config

from .check import faults
from .complaint import SettingsError, raise_all
from .consistency import consistent
from .credentials import Secrets
from .dotenv import FILE as DOTENV
from .dotenv import read_dotenv
from .environment import from_environment
from .files import DEFAULT_FILES, default_file, read_layer
from .layer import DEFAULT, Layer, Origin, Tree

__all__ = ["Loaded", "Origin", "Sources", "Tree", "load"]


@dataclass(frozen=True)
class Loaded:
    """A whole configuration, secrets read from their files. `origins` says where each value that is no default comes from,
    by path; `files` are all that were read; `warnings` are for the operator's eyes.
    """

    config: Config
    origins: Mapping[str, Origin]
    files: tuple[Path, ...]
    warnings: tuple[str, ...]

    def origin(self, path: str) -> Origin:
        """Where the value at `path` comes from."""
        while path:
            if path in self.origins:
                return self.origins[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return DEFAULT


@dataclass
class Sources:
    """What a configuration is read from, now and again. `file` None: the one in the working directory, if there is one.
    `flags` maps a flag's name to the settings it stands for, as nested as in the file; `models` are files that come on top of
    those configured. A file that was there once has to be there ever after.
    """

    file: Path | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    flags: Mapping[str, Tree] = field(default_factory=dict)
    models: Sequence[str] = ()
    _dotenv_seen: bool = False
    _spoke: bool = False
    _secrets: tuple[Path, ...] = ()

    def watched(self, files: Sequence[Path]) -> list[Path]:
        """Files whose change may change the configuration: those that `files` says were read, those that were looked for,
        and those that a configuration named which could not be used.
        """
        own = [Path(name) for name in DEFAULT_FILES] if self.file is None else [self.file]
        return list(dict.fromkeys((*own, Path(DOTENV), *files, *self._secrets)))

    def read(self) -> Loaded:
        """The configuration as it stands in its sources now. Raises `SettingsError`, or `SettingsErrors` for several."""
        layers, errors = self._layers()
        raise_all(errors)
        tree, origins = _merged(layers)
        self._add_models(tree, origins)
        secrets = Secrets()
        config = secrets.fill(msgspec.convert(tree, Config))
        self._secrets = tuple(secrets.files)
        raise_all([_located(error, origins) for error in secrets.errors])
        try:
            consistent(config)
        except SettingsError as error:
            raise _located(error, origins) from None
        own = [Path(layer.origin.name) for layer in layers if layer.origin.kind in ("file", "dotenv")]
        files = tuple(dict.fromkeys((*own, *secrets.files)))
        return Loaded(config, origins | secrets.origins, files, tuple(secrets.warnings))

    def _own(self, layer: Layer) -> Layer:
        """Raises `SettingsError` for a file that said something before and says nothing now: it is being written."""
        if self._spoke and not layer.tree:
            raise SettingsError(f"`{self.file}` is empty", "restart the gateway if that is meant")
        self._spoke = self._spoke or bool(layer.tree)
        return layer

    def _add_models(self, tree: Tree, origins: dict[str, Origin]) -> None:
        configured = tree.get("models", [])
        for index in range(len(configured), len(configured) + len(self.models)):
            origins[f"models[{index}].path"] = Origin("flag", "--model")
        tree["models"] = [*configured, *({"path": model} for model in self.models)]

    def _layers(self) -> tuple[list[Layer], list[SettingsError]]:
        """Every source, the strongest last, and what is wrong with them."""
        layers: list[Layer] = []
        errors: list[SettingsError] = []
        for found in self._sources():
            if isinstance(found, SettingsError):
                errors += found.all
            else:
                layers.append(found)
                # Variables have been checked one by one, as each is a source of its own.
                errors += faults(found) if found.origin.kind in ("file", "flag") else ()
        return layers, errors

    def _sources(self) -> Iterator[Layer | SettingsError]:
        try:
            if self.file is None:
                self.file = default_file()
            if self.file is not None:
                yield self._own(read_layer(self.file))
        except SettingsError as error:
            yield error
        try:
            dotenv = read_dotenv()
        except SettingsError as error:
            yield error
        else:
            if dotenv.file is None and self._dotenv_seen:
                yield SettingsError(f"`{DOTENV}` is gone", "put it back, or restart without it")
            self._dotenv_seen = self._dotenv_seen or dotenv.file is not None
            yield from from_environment(dotenv.values, dotenv)
        yield from from_environment(self.environ)
        for name, settings in self.flags.items():
            yield Layer(Origin("flag", name), settings)


def load(
    file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, Tree] | None = None,
    models: Sequence[str] = (),
) -> Config:
    """The whole configuration, for whoever does not care where it comes from. See `Sources`."""
    return Sources(file, environ, flags or {}, models).read().config


def _merged(layers: Sequence[Layer]) -> tuple[Tree, dict[str, Origin]]:
    """The settings of all layers, and where each comes from. A section's fields are replaced one by one, a list of sections
    as a whole.
    """
    tree: Tree = {}
    origins: dict[str, Origin] = {}
    for layer in layers:
        for name, value in layer.tree.items():
            if isinstance(value, dict):
                tree.setdefault(name, {}).update(value)
                origins |= {f"{name}.{item}": layer.origin_of(f"{name}.{item}") for item in value}
                continue
            tree[name] = value
            origins = {path: origin for path, origin in origins.items() if not path.startswith(f"{name}[")}
            for index, entry in enumerate(value):
                origins |= {f"{name}[{index}].{item}": layer.origin_of(f"{name}[{index}].{item}") for item in entry}
    return tree, origins


def _located(error: SettingsError, origins: Mapping[str, Origin]) -> SettingsError:
    """`error` with the place of the setting that it begins with."""
    if not error.message.startswith("`"):
        return error
    path = error.message.split("`", 2)[1]
    below = (origin for other, origin in origins.items() if other.startswith((f"{path}.", f"{path}[")))
    origin = origins.get(path) or origins.get(re.sub(r"\[\d+\]$", "", path)) or next(below, None)
    return error if origin is None else SettingsError(f"{origin.label}: {error.message}", error.hint)
