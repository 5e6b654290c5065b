"""Names of models turned into files: Ollama's store, and the configured folder of GGUF files. All of it reads the disk, so
it is called off the event loop.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
from quiver.schemas.config import OLLAMA
from quiver.schemas.models import AvailableModel

from . import ollama
from .ollama import SourceError

# One file of several: the parts of a large model.
_PART = re.compile(r"-\d{5}-of-\d{5}$")


class ModelFile(msgspec.Struct, frozen=True):
    """A file to load. `notes`: what of its source is not used."""

    path: str
    notes: tuple[str, ...] = ()


class Catalogue:
    """Where models are found by name. `models_dir`: the configured folder, if there is one."""

    def __init__(
        self, models_dir: str | None, environ: Mapping[str, str] = os.environ, home: Path | None = None
    ) -> None:
        self._folder = None if models_dir is None else Path(models_dir)
        self._ollama = ollama.store(environ, home or Path.home())

    def __repr__(self) -> str:
        return f"<Catalogue: {self._folder or 'no folder'}, Ollama's {self._ollama}>"

    def file(self, source: str) -> ModelFile:
        """The file of a `source`: `ollama:NAME`, or a path. Raises `SourceError`; whether a path leads to a model is found
        out by who loads it.
        """
        if not source.startswith(OLLAMA):
            return ModelFile(source)
        model = ollama.find(self._ollama, source.removeprefix(OLLAMA))
        return ModelFile(str(model.file), model.notes)

    def source(self, name: str) -> str:
        """The source called `name` in `available`. Raises `SourceError`."""
        if name.startswith(OLLAMA):
            return name
        if self._folder is None:
            raise SourceError(f"no folder of models is configured to find `{name}` in; set `engine.models_dir`")
        for file in _models(self._folder):
            if file.stem == name:
                return str(file)
        raise SourceError(f"`{self._folder}` has no model `{name}`; `quiver models available` lists what there is")

    def available(self) -> list[AvailableModel]:
        """Everything that can be loaded by name."""
        found = [] if self._folder is None else [_described(file) for file in _models(self._folder)]
        return [*found, *(self._pulled(name) for name in ollama.names(self._ollama))]

    def _pulled(self, name: str) -> AvailableModel:
        try:
            size, problem = ollama.find(self._ollama, name).size, None
        except SourceError as error:
            size, problem = 0, str(error)
        return AvailableModel(name=OLLAMA + name, origin="ollama", size=size, problem=problem)


def _models(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix.lower() == ".gguf" and file.is_file())
    except OSError:
        return []


def _described(file: Path) -> AvailableModel:
    problem = "a part of a model in several files, which is not supported" if _PART.search(file.stem) else None
    return AvailableModel(name=file.stem, origin="folder", size=file.stat().st_size, problem=problem)
