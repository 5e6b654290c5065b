"""Ollama's store of models, read by name: manifests of what was pulled, and the blobs they name. Nothing is written, and
Ollama need not run.

    manifests/HOST/NAMESPACE/NAME/TAG     JSON: layers with media type, digest and size
    blobs/sha256-HEX                      the layers; the one of the model's type is a GGUF file
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

HOST, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"
MODEL = "application/vnd.ollama.image.model"
# What else a model may come with, and what that means here.
NOTES = {
    "application/vnd.ollama.image.template": "Ollama's prompt template is not used: the file's own is",
    "application/vnd.ollama.image.params": "Ollama's parameters (stop texts, temperature) are not used: the request's are",
    "application/vnd.ollama.image.system": "Ollama's system prompt is not used: the request's is",
    "application/vnd.ollama.image.projector": "images are not read: the projector is not used",
}
# The weights would be others with it.
ADAPTER = "application/vnd.ollama.image.adapter"
MAX_MANIFEST = 1024 * 1024
# Where Ollama's own service on Linux keeps its models.
SERVICE = Path("/usr/share/ollama/.ollama/models")

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9.-]{0,127}(:[0-9]{1,5})?")
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")


class SourceError(Exception):
    """A model that cannot be read: what is wrong, and what to do."""


class Layer(msgspec.Struct, frozen=True):
    """A part of a model. Ollama writes more fields than these."""

    mediaType: str
    digest: str
    size: int


class Manifest(msgspec.Struct, frozen=True):
    """What a model is made of."""

    layers: list[Layer] = []


class OllamaModel(msgspec.Struct, frozen=True):
    """A model as it lies in the store. `notes`: what of it is not used."""

    name: str
    file: Path
    size: int
    notes: tuple[str, ...] = ()


_decode = msgspec.json.Decoder(Manifest).decode


def store(environ: Mapping[str, str], home: Path) -> Path:
    """The folder Ollama keeps its models in: `OLLAMA_MODELS`, else the user's own, else the service's."""
    if named := environ.get("OLLAMA_MODELS"):
        return Path(named).expanduser()
    own = home / ".ollama" / "models"
    return SERVICE if not own.is_dir() and SERVICE.is_dir() else own


def find(folder: Path, name: str) -> OllamaModel:
    """The model called `name`, as `ollama list` writes it. Raises `SourceError`."""
    manifest = _manifest_path(folder, name)
    if not folder.is_dir():
        raise SourceError(f"Ollama has no models here, so not `{name}`; `OLLAMA_MODELS` names its folder")
    if not manifest.is_file():
        raise SourceError(f"Ollama has no model `{name}`; pull it with `ollama pull {name}`")
    return _read(folder, manifest, name)


def names(folder: Path) -> Iterator[str]:
    """Every model there is, as `find` takes it."""
    for path in sorted(folder.glob("manifests/*/*/*/*")):
        host, namespace, name, tag = path.relative_to(folder / "manifests").parts
        if path.is_file() and _valid(host, namespace, name, tag):
            where = "" if host == HOST else f"{host}/"
            yield f"{where}{'' if not where and namespace == NAMESPACE else f'{namespace}/'}{name}:{tag}"


def _manifest_path(folder: Path, name: str) -> Path:
    """Where the manifest of `name` (`[[HOST/]NAMESPACE/]MODEL[:TAG]`) is. No part may lead out of the store."""
    *around, last = name.split("/")
    model, colon, tag = last.partition(":")
    if len(around) > 2 or (colon and not tag):
        raise SourceError(f"`{name}` is no name of an Ollama model; those look like `llama3.2:1b`")
    host, namespace = (HOST, NAMESPACE, *around)[-2:] if len(around) != 1 else (HOST, around[0])
    parts = (host, namespace, model, tag or TAG)
    if not _valid(*parts):
        raise SourceError(f"`{name}` is no name of an Ollama model; those look like `llama3.2:1b`")
    return folder.joinpath("manifests", *parts)


def _valid(host: str, *parts: str) -> bool:
    return _HOST.fullmatch(host) is not None and all(_PART.fullmatch(part) for part in parts)


def _read(folder: Path, path: Path, name: str) -> OllamaModel:
    layers = _layers(path, name)
    models = [layer for layer in layers if layer.mediaType == MODEL]
    if len(models) != 1:
        raise SourceError(f"Ollama's model `{name}` has {len(models)} GGUF files; one is what can be loaded")
    if any(layer.mediaType == ADAPTER for layer in layers):
        raise SourceError(f"Ollama's model `{name}` is an adapter on top of another, which is not supported")
    (model,) = models
    file = _blob(folder, model.digest, name)
    _refuse_partial(file, model, name)
    notes = tuple(note for kind, note in NOTES.items() if any(layer.mediaType == kind for layer in layers))
    return OllamaModel(name, file, model.size, notes)


def _layers(path: Path, name: str) -> list[Layer]:
    try:
        if path.stat().st_size > MAX_MANIFEST:
            raise SourceError(f"the manifest of Ollama's model `{name}` is over {MAX_MANIFEST} bytes")
        return _decode(path.read_bytes()).layers
    except OSError as error:
        raise SourceError(f"the manifest of Ollama's model `{name}` cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise SourceError(f"the manifest of Ollama's model `{name}` is damaged ({error}); {_again(name)}") from None


def _blob(folder: Path, digest: str, name: str) -> Path:
    """The file of a digest, which must not lead out of the store."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise SourceError(f"the manifest of Ollama's model `{name}` names no SHA-256 digest; {_again(name)}")
    return folder / "blobs" / f"sha256-{match[1]}"


def _refuse_partial(file: Path, layer: Layer, name: str) -> None:
    try:
        found = file.stat().st_size
    except FileNotFoundError:
        raise SourceError(f"the file of Ollama's model `{name}` is not there; {_again(name)}") from None
    except OSError as error:
        raise SourceError(f"the file of Ollama's model `{name}` cannot be read: {error.strerror}") from None
    if found != layer.size:
        raise SourceError(f"Ollama's model `{name}` has {found} of its {layer.size} bytes; {_again(name)}")


def _again(name: str) -> str:
    return f"`ollama pull {name}` repairs it"
