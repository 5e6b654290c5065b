"""The command line. Each command is a few lines over a function with the same name elsewhere in this package.

Heavy imports stand in the commands that need them, so that asking a question does not load a gateway.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import quiver
import typer

from ..api.status import COLUMNS, StatusReport, by_need, row, summary, totals
from .chat import Answer, Question
from .client import DEFAULT_URL, decoded
from .commands import bench as bench_commands
from .commands import config as config_commands
from .commands.db import db
from .commands.history import error_counts, events, history
from .commands.join import join
from .commands.keys import keys
from .commands.logs import logs
from .commands.models import models
from .commands.registering import deregister, register, update
from .commands.servers import servers
from .console import print_json, print_screenful
from .dotenv import lay_under
from .failures import failures_explained
from .options import ApiKey, ApiKeyFile, Json, ModelName, Url, user

app = typer.Typer(
    name="quiver",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="One OpenAI-compatible address for every model server you run, with an engine of its own.",
)


def main() -> None:
    """Run the command that `sys.argv` holds, and exit."""
    app(prog_name="quiver")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"quiver {quiver.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    with failures_explained():
        lay_under(context)


@app.command()
def serve(
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Read this file (TOML or YAML) instead of ./quiver.toml.", metavar="FILE"),
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Listen on this address.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Listen on this port; 0 for any free one.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Also serve this GGUF file; may be repeated.", metavar="FILE"),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", help="debug, info, warning, error or critical.", metavar="LEVEL")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON when listening.")] = False,
) -> None:
    """Serve models on one OpenAI-compatible address until Ctrl-C.

    \b
    Example:
      quiver serve --port 9000 --model models/qwen3-0.6b.gguf
    """
    from ..configuration.settings import Sources
    from ..serve import serve as run

    with failures_explained():
        flags = _flags(host, port, log_level)
        raise typer.Exit(run(Sources(config, flags=flags, models=model or ()), announce_json=as_json))


@app.command()
def chat(
    question: Annotated[str, typer.Argument(help="What to ask; - reads it from stdin.")],
    model: ModelName = "bolt",
    system: Annotated[str | None, typer.Option("--system", help="Instructions ahead of the question.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Longest answer, in tokens.")] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, max=2, help="0: always the likeliest word.")
    ] = 0.0,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    api_key_file: ApiKeyFile = None,
    stats: Annotated[bool, typer.Option("--stats", help="Print the speed to stderr.")] = False,
    as_json: Json = False,
) -> None:
    """Ask one question and print the answer as it arrives.

    \b
    Example:
      quiver chat "How do I add an Ollama server?"
    """
    text = sys.stdin.read() if question == "-" else question
    with failures_explained():
        answer = Answer(user(url, api_key, api_key_file), Question(text, model, system, max_tokens, temperature))
        for piece in answer:
            if not as_json:
                typer.echo(piece, nl=False)
                sys.stdout.flush()
    if as_json:
        print_json(answer.data())
    else:
        typer.echo()
    if stats:
        typer.echo(answer.speed(), err=True)


@app.command()
def status(
    url: Url = DEFAULT_URL, api_key: ApiKey = None, api_key_file: ApiKeyFile = None, as_json: Json = False
) -> None:
    """Show the gateway and how its servers are, on one screen. Those that need somebody come first.

    \b
    Example:
      quiver status --url http://gateway.lab:8080
    """
    with failures_explained():
        report = decoded(user(url, api_key, api_key_file, timeout=10).get("/status"), StatusReport)
    if as_json:
        print_json(report)
        return
    typer.echo(summary(report) + "\n")
    print_screenful(COLUMNS, [row(backend) for backend in by_need(report.backends)])
    typer.echo("\n" + totals(report))


app.add_typer(models)
app.add_typer(keys)
app.add_typer(db)
app.add_typer(logs)
app.command()(register)
app.command()(update)
app.command()(deregister)
app.add_typer(servers)
app.command()(join)
app.add_typer(history)
app.command("errors")(error_counts)
app.command()(events)
app.add_typer(config_commands.app)
app.add_typer(bench_commands.app, name="bench")


def _flags(host: str | None, port: int | None, log_level: str | None) -> dict[str, dict[str, Any]]:
    """The flags that were given, each with the setting it stands for."""
    given: dict[str, tuple[str, str, Any]] = {
        "--host": ("server", "host", host),
        "--port": ("server", "port", port),
        "--log-level": ("log", "level", log_level and log_level.lower()),
    }
    return {flag: {section: {field: value}} for flag, (section, field, value) in given.items() if value is not None}
