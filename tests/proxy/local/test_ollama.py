"""Ollama's store on disk: names become files, and what is damaged is said."""

import hashlib
import json
from pathlib import Path

import pytest
from quiver.proxy.local.catalogue import Catalogue
from quiver.proxy.local.ollama import MODEL, SourceError, find, names, store

TEMPLATE = "application/vnd.ollama.image.template"
ADAPTER = "application/vnd.ollama.image.adapter"
WEIGHTS = b"GGUF and more"


def pull(folder: Path, where: str, layers: list[tuple[str, bytes]] | None = None) -> str:
    """Put a model into the store as Ollama does; the digest of its first layer."""
    described = []
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    for kind, content in layers or [(MODEL, WEIGHTS), (TEMPLATE, b"{{ .Prompt }}")]:
        digest = hashlib.sha256(content).hexdigest()
        (folder / "blobs" / f"sha256-{digest}").write_bytes(content)
        described.append({"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)})
    manifest = folder / "manifests" / where
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "config": {}, "layers": described}))
    return str(described[0]["digest"]).removeprefix("sha256:")


NAMES = [
    ("llama3.2", "registry.ollama.ai/library/llama3.2/latest"),
    ("llama3.2:1b", "registry.ollama.ai/library/llama3.2/1b"),
    ("ada/tuned:v2", "registry.ollama.ai/ada/tuned/v2"),
    ("hf.co/bartowski/Llama-GGUF:Q4_K_M", "hf.co/bartowski/Llama-GGUF/Q4_K_M"),
    ("lab:5000/ada/tuned", "lab:5000/ada/tuned/latest"),
]


@pytest.mark.parametrize(("name", "where"), NAMES, ids=[name for name, _ in NAMES])
def test_names_become_files(tmp_path: Path, name: str, where: str) -> None:
    digest = pull(tmp_path, where)
    found = find(tmp_path, name)
    assert (found.file, found.size) == (tmp_path / "blobs" / f"sha256-{digest}", len(WEIGHTS))
    assert ["template" in note for note in found.notes] == [True]
    assert [listed.removesuffix(":latest") for listed in names(tmp_path)] == [name]


BAD_NAMES = [
    "",
    "..",
    "../x",
    "a/../b",
    "a/b/c/d",
    "x:",
    "x:..",
    "x:a/b",
    "/etc/passwd",
    "a//b",
    "x y",
    ".hidden",
    "x:\0",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_no_name_leads_out(tmp_path: Path, name: str) -> None:
    pull(tmp_path, "registry.ollama.ai/library/x/latest")
    with pytest.raises(SourceError, match="is no name of an Ollama model"):
        find(tmp_path, name)


def damage(folder: Path, kind: str) -> None:
    """A store in which the model `x` cannot be read."""
    manifest = folder / "manifests/registry.ollama.ai/library/x/latest"
    match kind:
        case "empty":
            return
        case "other":
            pull(folder, "registry.ollama.ai/library/y/latest")
        case "adapter":
            pull(folder, "registry.ollama.ai/library/x/latest", [(MODEL, WEIGHTS), (ADAPTER, b"lora")])
        case "two":
            pull(folder, "registry.ollama.ai/library/x/latest", [(MODEL, WEIGHTS), (MODEL, b"more")])
        case "none":
            pull(folder, "registry.ollama.ai/library/x/latest", [(TEMPLATE, b"t")])
        case _:
            digest = pull(folder, "registry.ollama.ai/library/x/latest")
            blob = folder / "blobs" / f"sha256-{digest}"
            if kind == "partial":
                blob.write_bytes(WEIGHTS[:4])
            elif kind == "gone":
                blob.unlink()
            elif kind == "json":
                manifest.write_text("{")
            elif kind == "digest":
                manifest.write_text(manifest.read_text().replace(digest, "../../../etc/passwd"))
            elif kind == "huge":
                manifest.write_text(" " * 2_000_000)


DAMAGED = {
    "empty": "has no models here",
    "other": "has no model `x`; pull it with `ollama pull x`",
    "adapter": "is an adapter",
    "two": "has 2 GGUF files",
    "none": "has 0 GGUF files",
    "partial": f"has 4 of its {len(WEIGHTS)} bytes; `ollama pull x` repairs it",
    "gone": "is not there; `ollama pull x` repairs it",
    "json": "is damaged",
    "digest": "names no SHA-256 digest",
    "huge": "is over 1048576 bytes",
}


@pytest.mark.parametrize(("kind", "words"), DAMAGED.items(), ids=list(DAMAGED))
def test_damage_is_said(tmp_path: Path, kind: str, words: str) -> None:
    damage(tmp_path / "models", kind)
    with pytest.raises(SourceError, match=words):
        find(tmp_path / "models", "x")


def test_store_is_where_ollama_says(tmp_path: Path) -> None:
    assert store({"OLLAMA_MODELS": "/data/models"}, tmp_path) == Path("/data/models")
    (tmp_path / ".ollama" / "models").mkdir(parents=True)
    assert store({}, tmp_path) == tmp_path / ".ollama" / "models"


def test_catalogue_lists_both(tmp_path: Path) -> None:
    folder, pulled = tmp_path / "files", tmp_path / "ollama"
    folder.mkdir()
    for name in ("b.gguf", "a.GGUF", "notes.txt", "big-00001-of-00002.gguf"):
        (folder / name).write_bytes(b"12345")
    pull(pulled, "registry.ollama.ai/library/x/latest")
    damage(pulled, "gone")
    catalogue = Catalogue(str(folder), {"OLLAMA_MODELS": str(pulled)})
    listed = [(model.name, model.size, model.problem is None) for model in catalogue.available()]
    assert listed == [("a", 5, True), ("b", 5, True), ("big-00001-of-00002", 5, False), ("ollama:x:latest", 0, False)]
    assert catalogue.source("a") == str(folder / "a.GGUF")
    assert catalogue.source("ollama:x") == "ollama:x"
    assert catalogue.file("plain.gguf").path == "plain.gguf"
    for missing in ("c", "../a", "notes"):
        with pytest.raises(SourceError, match="has no model"):
            catalogue.source(missing)
    with pytest.raises(SourceError, match=r"set `engine\.models_dir`"):
        Catalogue(None, {}).source("a")
