"""The admin API's wire format for the built-in engine's models: what loads one, and what is told of them.

Moments are Unix time, durations seconds, sizes bytes.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .config import ModelOptions
from .openai import ModelName

ModelState = Literal["loading", "ready", "idle", "unloading", "unloaded", "failed"]


class ModelSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A model to load or to size: `path`, a GGUF file on the gateway's machine, or `name`, one of those that
    `/admin/models/available` lists. `options`: what is not as in `[engine]`.
    """

    path: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    name: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    options: ModelOptions = ModelOptions()


class ModelLoad(ModelSource, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A model to load as `id`, by default its own name. Where a model of that id runs, the new one takes its place once it
    is loaded; with `unload_first` the old one goes before. `force`: whatever memory there seems to be. Without `wait` the
    reply comes at once.
    """

    id: ModelName | None = None
    replace: Literal["beside", "unload_first"] = "beside"
    force: bool = False
    wait: bool = True


class MemoryReport(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes a model takes: weights, keys and values of `kv_tokens` tokens, working space."""

    weights: int
    kv: int
    kv_tokens: int
    scratch: int
    total: int


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """A load under way: its stage, bytes of weights in place and in all, and the share of them."""

    stage: str
    done: int
    total: int
    fraction: float
    seconds: float


class ModelDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What a loaded file says of itself. `context_length`: as it is run."""

    architecture: str
    name: str
    parameters: int
    context_length: int
    size_bytes: int
    file_type: str


class LocalModelReport(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the built-in engine. `idle`: the next request loads it; `unloaded`: only `/admin/models/load` does.
    `loading` is told also of what takes a running model's place. `unloads_at`: when it will have been idle for long
    enough, null while it is used. `draining`: requests on what it was before.
    """

    id: str
    state: ModelState
    source: str
    reason: str | None
    in_flight: int
    draining: int
    loading: LoadReport | None
    memory: MemoryReport | None
    model: ModelDescription | None
    idle_unload_s: float
    unloads_at: float | None


class LocalModelList(msgspec.Struct, frozen=True):
    """The built-in engine's models."""

    models: list[LocalModelReport]


class LoadEvent(msgspec.Struct, frozen=True):
    """One event of a load that is followed: how far it is, and at its end the model."""

    loading: LoadReport | None
    model: LocalModelReport | None = None


class ModelRemoved(msgspec.Struct, frozen=True):
    """The model is not offered any more; requests on it go on."""

    id: str
    status: Literal["removed"]


class EstimateReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a model would take, and what there is: null when the machine does not say. `notes`: what is not used of it."""

    source: str
    file: str
    memory: MemoryReport
    available: int | None
    fits: bool
    notes: list[str]


class AvailableModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that can be loaded by `name`, unless there is a `problem`."""

    name: str
    origin: Literal["ollama", "folder"]
    size: int
    problem: str | None = None


class AvailableList(msgspec.Struct, frozen=True):
    """What can be loaded by name."""

    models: list[AvailableModel]
