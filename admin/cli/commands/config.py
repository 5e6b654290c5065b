"""`quiver config`: what the configuration is and where it comes from, whether a file is right, one to begin with, and having a
running gateway read its own again.
"""

from pathlib import Path
from typing import Annotated

import typer
from quiver.schemas.settings import ConfigReport, Reloaded, Setting

from ..client import DEFAULT_URL, decoded
from ..console import complain, print_json, print_table
from ..failures import failures_explained
from ..options import OPERATOR, AdminKey, AdminKeyFile, Json, Url, operator

app = typer.Typer(name="config", no_args_is_help=True, help="Show, check and reload the configuration.")

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="This file instead of ./quiver.toml.", metavar="FILE", dir_okay=False)
]


@app.command()
def show(
    config: ConfigFile = None,
    sources: Annotated[bool, typer.Option("--sources", help="Say where each value comes from.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Show defaults too.")] = False,
    running: Annotated[
        bool, typer.Option("--running", help="Ask a running gateway instead of reading files here.")
    ] = False,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Show the settings that are not the defaults; secrets are masked.

    \b
    Example:
      quiver config show --sources
    """
    with failures_explained(OPERATOR):
        if running:
            report = decoded(operator(url, admin_key, admin_key_file).get("/admin/config"), ConfigReport)
            settings = report.settings
        else:
            from ...configuration.report import settings_of
            from ...configuration.settings import Sources

            loaded = Sources(config).read()
            settings = settings_of(loaded.config, loaded)
    chosen = [
        setting for setting in settings if everything or setting.source != "default" or setting.pending is not None
    ]
    if as_json:
        print_json(chosen)
    elif not chosen:
        typer.echo("everything is as by default\nhint: `--all` shows it", err=True)
    else:
        columns = ("SETTING", "VALUE", *(("SOURCE",) if sources else ()), *(("AFTER A RESTART",) if running else ()))
        print_table(columns, [_row(setting, sources=sources, running=running) for setting in chosen])
    if running and report.refused is not None:
        complain(f"the last reload was refused: {report.refused}")


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="A TOML or YAML file; ./quiver.toml if unset.", metavar="FILE")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what is wrong with the configuration. With file and line; exits with 2 if anything is.

    The environment, `.env` and the files of secrets count as they do for `quiver serve`.

    \b
    Example:
      quiver config check /etc/quiver/quiver.yaml
    """
    from ...configuration.settings import Sources

    with failures_explained():
        loaded = Sources(file).read()
    if as_json:
        print_json({"files": [str(read) for read in loaded.files], "warnings": loaded.warnings})
        return
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    read = ", ".join(str(name) for name in loaded.files)
    typer.echo(f"the configuration is right ({read or 'defaults only'})")


@app.command()
def example(
    yaml: Annotated[bool, typer.Option("--yaml", help="YAML instead of TOML.")] = False,
    env: Annotated[bool, typer.Option("--env", help="Variables for `.env` instead of TOML.")] = False,
) -> None:
    """Print a configuration file with every setting. Each is a comment, with its meaning, range and default.

    \b
    Example:
      quiver config example > quiver.toml
    """
    from ...configuration.example import example as example_file

    typer.echo(example_file("yaml" if yaml else "env" if env else "toml"), nl=False)


@app.command()
def reload(
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Have a gateway read its configuration again. Says what changed; on an error nothing does.

    \b
    Example:
      quiver config reload
    """
    with failures_explained(OPERATOR):
        reply = operator(url, admin_key, admin_key_file).send("POST", "/admin/config/reload", b"{}")
        found = decoded(reply, Reloaded)
    if as_json:
        print_json(found)
        return
    for change in found.changed:
        typer.echo(f"changed {change}")
    for change in found.pending:
        typer.echo(f"needs a restart: {change}")
    if not (found.changed or found.pending):
        typer.echo("nothing has changed")


def _row(setting: Setting, *, sources: bool, running: bool) -> tuple[str, ...]:
    from ...configuration.report import written

    source = (setting.source,) if sources else ()
    pending = (written(setting.pending),) if running else ()
    return setting.path, written(setting.value), *source, *pending
