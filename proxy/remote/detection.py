"""What a model server is, by its answers to the questions in `questions`: one pure function over what was heard.

Servers imitate each other: llama.cpp answers on some of Ollama's paths, and everybody on OpenAI's. So each kind is known by
what only it says, and the list of kinds is in order of how sure a sign is.
"""

from collections.abc import Mapping
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta
from quiver.schemas.openai import MOST_MODELS, ModelName
from quiver.schemas.servers import DetectedModel, Detection, Software

T = TypeVar("T")

ENDPOINTS = ("chat/completions", "completions", "embeddings")
REFUSED = (401, 403)
# A path that is not there, or is switched off.
ABSENT = (404, 405, 501)


class Answer(msgspec.Struct, frozen=True):
    """What a server said to one question. `server`: how its reply calls it."""

    status: int
    server: bytes
    body: bytes


class _Meta(msgspec.Struct, frozen=True):
    n_ctx: int | None = None


class _Card(msgspec.Struct, frozen=True):
    """One entry of a `/v1/models`, with what vLLM and llama.cpp add."""

    id: str
    owned_by: str | None = None
    max_model_len: int | None = None
    meta: _Meta | None = None


class _Cards(msgspec.Struct, frozen=True):
    data: Annotated[list[_Card], Meta(max_length=MOST_MODELS)]


class _Version(msgspec.Struct, frozen=True):
    """`/version` of vLLM and Quiver, `/api/version` of Ollama."""

    version: str


class _Health(msgspec.Struct, frozen=True):
    status: str
    version: str


class _Info(msgspec.Struct, frozen=True):
    title: str = ""
    version: str = ""


class _Description(msgspec.Struct, frozen=True):
    info: _Info


class _Generation(msgspec.Struct, frozen=True):
    n_ctx: int | None = None


class _Props(msgspec.Struct, frozen=True):
    """`/props` of llama.cpp. `n_ctx` is of one slot."""

    total_slots: int
    default_generation_settings: _Generation = _Generation()
    build_info: str | None = None


class _StudioModel(msgspec.Struct, frozen=True):
    """One entry of LM Studio's `/api/v0/models`."""

    id: str
    type: str
    state: str
    max_context_length: int | None = None
    loaded_context_length: int | None = None


class _StudioModels(msgspec.Struct, frozen=True):
    data: list[_StudioModel]


class _Running(msgspec.Struct, frozen=True):
    """One entry of Ollama's `/api/ps`."""

    name: str
    context_length: int | None = None


class _RunningModels(msgspec.Struct, frozen=True):
    models: list[_Running]


def detection(answers: Mapping[str, Answer]) -> Detection:
    """What the server is, by what it answered to each question."""
    found = _Heard(answers)
    software, version = _software(found)
    return Detection(
        software=software,
        version=None if version is None else version[:100],
        models=_models(found, software),
        endpoints=_endpoints(answers),
        slots=_slots(found, software),
        needs_key=_needs_key(answers),
    )


class _Heard:
    """The answers as what they would be if each server were what the question asks for; None where it is not."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = answers
        self.cards = self._read("models", _Cards) or self._read("models without key", _Cards)
        self.version = self._read("version", _Version)
        self.health = self._read("health", _Health)
        self.description = self._read("description", _Description)
        self.props = self._read("llama.cpp", _Props)
        self.studio = self._read("lm-studio", _StudioModels)
        self.ollama = self._read("ollama", _Version)
        self.loaded = self._read("ollama loaded", _RunningModels)

    def _read(self, question: str, kind: type[T]) -> T | None:
        answer = self._answers.get(question)
        if answer is None or answer.status != 200:
            return None
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    @property
    def title(self) -> str:
        """What its description calls it."""
        return "" if self.description is None else self.description.info.title

    def says(self, question: str, words: bytes) -> bool:
        answer = self._answers.get(question)
        return answer is not None and answer.status == 200 and words in answer.body

    def calls_itself(self, name: bytes) -> bool:
        return any(answer.server.lower().startswith(name) for answer in self._answers.values())

    def owned_by(self, owner: str) -> bool:
        return self.cards is not None and any(card.owned_by == owner for card in self.cards.data)


def _software(found: _Heard) -> tuple[Software | None, str | None]:
    version = None if found.version is None else found.version.version
    if found.title == "Quiver" or (found.health and found.version and found.health.version == version):
        return "quiver", version
    if found.props is not None or found.calls_itself(b"llama.cpp"):
        return "llama.cpp", found.props.build_info if found.props else None
    if "llama.cpp Python" in found.title and found.description is not None:
        return "llama-cpp-python", found.description.info.version or None
    if found.owned_by("vllm") or found.says("metrics", b"vllm:"):
        return "vllm", version
    if found.studio is not None:
        return "lm-studio", None
    if found.ollama is not None:
        return "ollama", found.ollama.version
    return ("openai" if found.cards is not None else None), None


def _models(found: _Heard, software: Software | None) -> list[DetectedModel]:
    """The models that a check would find, with what is known of each."""
    if found.cards is None:
        return []
    studio = {model.id: model for model in found.studio.data} if found.studio else {}
    running = {model.name: model.context_length for model in found.loaded.models} if found.loaded else {}
    models = []
    for card in found.cards.data:
        try:
            id = msgspec.convert(card.id, ModelName)
        except msgspec.ValidationError:
            continue
        length, embeds = card.max_model_len, False
        if software == "llama.cpp" and found.props is not None:
            length = found.props.default_generation_settings.n_ctx
        elif (entry := studio.get(id)) is not None:
            length, embeds = entry.loaded_context_length, entry.type == "embeddings"
        elif software == "ollama":
            length = running.get(id)
        models.append(DetectedModel(id=id, context_length=length if length and length > 0 else None, embeds=embeds))
    return models


def _endpoints(answers: Mapping[str, Answer]) -> tuple[str, ...] | None:
    """The paths that are there, or None when nothing was heard of any. That a model is missing is no missing path."""
    heard = {name: answers.get(f"{name} with key") or answers.get(name) for name in ENDPOINTS}
    if not any(heard.values()):
        return None
    there = tuple(
        name
        for name, answer in heard.items()
        if answer is not None and (answer.status not in ABSENT or (answer.status == 404 and b"model" in answer.body))
    )
    return there or None


def _slots(found: _Heard, software: Software | None) -> int | None:
    if software == "llama.cpp" and found.props is not None and found.props.total_slots > 0:
        return found.props.total_slots
    if software == "llama-cpp-python":
        return 1  # one at a time, and by its default a second request cuts the first one's stream off
    return None


def _needs_key(answers: Mapping[str, Answer]) -> bool | None:
    """Some servers list their models for everybody, and want a key for the rest only."""
    asked = [answers[name] for name in ("models without key", *ENDPOINTS) if name in answers]
    return any(answer.status in REFUSED for answer in asked) if asked else None
