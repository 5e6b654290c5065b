"""`quiver models`: what is on offer, and the built-in engine's models of a running gateway, over its admin API."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

import msgspec
import typer
from quiver.schemas.config import OLLAMA, ModelOptions
from quiver.schemas.models import (
    AvailableList,
    AvailableModel,
    EstimateReport,
    LoadEvent,
    LoadReport,
    LocalModelList,
    LocalModelReport,
    ModelLoad,
    ModelRemoved,
    ModelSource,
)
from quiver.schemas.openai import ModelList
from quiver.schemas.sizes import size

from ..client import DEFAULT_URL, Client, ClientError, decoded
from ..completion import engine_models
from ..console import print_json, print_table, progress_bar
from ..failures import failures_explained
from ..options import OPERATOR, AdminKey, AdminKeyFile, ApiKey, ApiKeyFile, Json, Url, operator, user

# Unloading waits for requests, by `drain.timeout`.
UNLOAD_TIMEOUT = 3700.0
COLUMNS = ("MODEL", "STATE", "IN FLIGHT", "MEMORY", "SOURCE", "REASON")

models = typer.Typer(name="models", rich_markup_mode=None, add_completion=False)

Source = Annotated[
    str, typer.Argument(help="A GGUF file, ollama:NAME, or a name of `models available`.", metavar="SOURCE")
]
Context = Annotated[
    int | None, typer.Option("--context", min=16, help="Tokens of prompt and answer.", metavar="TOKENS")
]
Sequences = Annotated[int | None, typer.Option("--max-sequences", min=1, help="Answers written at the same time.")]
Id = Annotated[
    str, typer.Argument(help="The model, as `quiver models list` calls it.", metavar="ID", autocompletion=engine_models)
]


@models.callback(invoke_without_command=True)
def on_offer(
    context: typer.Context,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    api_key_file: ApiKeyFile = None,
    as_json: Json = False,
) -> None:
    """List the models on offer; load and unload local ones.

    \b
    Example:
      quiver models --json
    """
    if context.invoked_subcommand is not None:
        return
    with failures_explained():
        found = decoded(user(url, api_key, api_key_file, timeout=10).get("/v1/models"), ModelList)
    if as_json:
        print_json(found)
    else:
        print_table(("MODEL", "SERVER"), [(model.id, model.owned_by) for model in found.data])


@models.command("list")
def list_models(
    url: Url = DEFAULT_URL, admin_key: AdminKey = None, admin_key_file: AdminKeyFile = None, as_json: Json = False
) -> None:
    """List the built-in engine's models and how they stand.

    \b
    Example:
      quiver models list
    """
    with failures_explained(OPERATOR):
        found = decoded(operator(url, admin_key, admin_key_file).get("/admin/models"), LocalModelList)
    if as_json:
        print_json(found)
    else:
        print_table(COLUMNS, [_row(model) for model in found.models])


@models.command()
def load(
    source: Source,
    id: Annotated[str | None, typer.Option("--id", help="What to call it; its own name if unset.")] = None,
    context: Context = None,
    max_sequences: Sequences = None,
    idle_unload: Annotated[
        float | None, typer.Option("--idle-unload", min=0, help="Unload it after so many idle seconds.")
    ] = None,
    unload_first: Annotated[
        bool, typer.Option("--unload-first", help="Unload the one it replaces before, for want of memory.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Load it even if memory seems too small.")] = False,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Load a model while the gateway serves. One with the same id goes on until the new one is there.

    \b
    Example:
      quiver models load ollama:llama3.2:1b
    """
    replace: Literal["beside", "unload_first"] = "unload_first" if unload_first else "beside"
    options = ModelOptions(context_length=context, max_sequences=max_sequences, idle_unload_s=idle_unload)
    path, name = _path_or_name(source)
    asked = ModelLoad(path=path, name=name, id=id, options=options, replace=replace, force=force)
    with failures_explained(OPERATOR):
        loaded = _follow(operator(url, admin_key, admin_key_file), asked, shown=not as_json)
    if as_json:
        print_json(loaded)
    else:
        typer.echo(f"loaded `{loaded.id}` ({_memory(loaded)})")


@models.command()
def unload(
    id: Id,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Free a model's memory. Its requests end first, or get their time; a load is cancelled.

    \b
    Example:
      quiver models unload llama3.2:1b
    """
    with failures_explained(OPERATOR):
        client = operator(url, admin_key, admin_key_file, timeout=UNLOAD_TIMEOUT)
        reply = decoded(client.send("POST", f"/admin/models/{quote(id)}/unload", b"{}"), LocalModelReport)
    if as_json:
        print_json(reply)
    else:
        typer.echo(f"unloaded `{reply.id}`")


@models.command()
def remove(
    id: Id,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Unload a model and offer it no more.

    \b
    Example:
      quiver models remove llama3.2:1b
    """
    with failures_explained(OPERATOR):
        reply = decoded(
            operator(url, admin_key, admin_key_file).send("DELETE", f"/admin/models/{quote(id)}"), ModelRemoved
        )
    if as_json:
        print_json(reply)
    else:
        typer.echo(f"removed `{reply.id}`")


@models.command()
def available(
    url: Url = DEFAULT_URL, admin_key: AdminKey = None, admin_key_file: AdminKeyFile = None, as_json: Json = False
) -> None:
    """List what can be loaded by name. Ollama's models, and the files in `engine.models_dir`.

    \b
    Example:
      quiver models available
    """
    with failures_explained(OPERATOR):
        found = decoded(operator(url, admin_key, admin_key_file).get("/admin/models/available"), AvailableList)
    if as_json:
        print_json(found)
    elif found.models:
        print_table(("NAME", "SIZE", "PROBLEM"), [_available(model) for model in found.models])
    else:
        typer.echo(
            "nothing can be loaded by name\nhint: set `engine.models_dir`, or pull a model with Ollama", err=True
        )


@models.command()
def estimate(
    source: Source,
    context: Context = None,
    max_sequences: Sequences = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Say how much memory a model would take. On the gateway's machine, and whether there is so much.

    \b
    Example:
      quiver models estimate models/qwen3-8b.gguf --context 16384
    """
    path, name = _path_or_name(source)
    options = ModelOptions(context_length=context, max_sequences=max_sequences)
    asked = msgspec.json.encode(ModelSource(path=path, name=name, options=options))
    with failures_explained(OPERATOR):
        found = decoded(
            operator(url, admin_key, admin_key_file).send("POST", "/admin/models/estimate", asked), EstimateReport
        )
    if as_json:
        print_json(found)
        return
    print_table(("MEMORY", "BYTES"), _estimate(found))
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)


def _path_or_name(source: str) -> tuple[str | None, str | None]:
    """A file of this machine as an absolute path: the gateway may run in another folder."""
    if source.startswith(OLLAMA):
        return None, source
    file = Path(source).expanduser()
    if file.is_file():
        return str(file.resolve()), None
    return (source, None) if file.suffix.lower() == ".gguf" or "/" in source else (None, source)


def _follow(client: Client, asked: ModelLoad, *, shown: bool) -> LocalModelReport:
    """The model, once it is loaded; meanwhile a bar shows how far it is."""
    events = client.stream("/admin/models/load", msgspec.json.encode(asked), accept="text/event-stream")
    with _bar(shown) as show:
        for data in events:
            event = decoded(data, LoadEvent)
            if event.model is not None:
                return event.model
            if event.loading is not None:
                show(event.loading)
    raise ClientError("the connection ended before the model was loaded")


@contextmanager
def _bar(shown: bool) -> Iterator[Callable[[LoadReport], None]]:
    if not shown:
        yield lambda report: None
        return
    with progress_bar() as show:
        yield lambda report: show(report.stage, report.done, report.total)


def _row(model: LocalModelReport) -> tuple[str, ...]:
    loading = model.loading
    state = model.state if loading is None else f"{model.state}, loading {loading.fraction:.0%}"
    if model.state == "loading" and loading is not None:
        state = f"loading {loading.fraction:.0%}"
    return model.id, state, str(model.in_flight), _memory(model), model.source, model.reason or ""


def _memory(model: LocalModelReport) -> str:
    return "-" if model.memory is None else size(model.memory.total)


def _available(model: AvailableModel) -> tuple[str, ...]:
    return model.name, size(model.size) if model.size else "-", model.problem or ""


def _estimate(found: EstimateReport) -> list[tuple[str, str]]:
    memory = found.memory
    return [
        ("weights", size(memory.weights)),
        (f"keys and values of {memory.kv_tokens} tokens", size(memory.kv)),
        ("working space", size(memory.scratch)),
        ("in all", size(memory.total)),
        ("available", "unknown" if found.available is None else size(found.available)),
        ("fits", "yes" if found.fits else "no"),
    ]
