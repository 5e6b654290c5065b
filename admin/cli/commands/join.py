"""`quiver join`: a model server on this machine, behind whatever, served through a gateway that it dials out to."""

import platform
import re
import secrets
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
import quiver
import typer
from quiver.schemas.join import PROTOCOL, JoinStatus, Offer
from quiver.schemas.saved import Metadata

from ...configuration.credentials import CLIENT_KEY, key_in
from ...join.control import Control, joins_folder, running
from ...loopback import is_loopback
from ..console import fail, print_json, print_table
from ..failures import failures_explained
from ..options import Json

WORDS = ("status", "pause", "resume", "leave")
OLLAMA = "http://127.0.0.1:11434"
COLUMNS = ("NAME", "STATE", "GATEWAY", "SERVER", "IN FLIGHT", "SERVED", "TOKENS", "REASON")


def join(
    target: Annotated[
        str,
        typer.Argument(
            help="The gateway's address; or status, pause, resume or leave, for a join that runs here.",
            metavar="GATEWAY_URL",
        ),
    ],
    which: Annotated[
        str | None, typer.Argument(help="Which join is to pause, resume or leave, if several run.", metavar="NAME")
    ] = None,
    server: Annotated[str, typer.Option("--server", help="The server to offer.", metavar="URL")] = OLLAMA,
    name: Annotated[
        str | None,
        typer.Option("--name", help="What the gateway calls it; this machine's name if unset.", metavar="NAME"),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Offer only this model; may be repeated. All if unset.", metavar="NAME"),
    ] = None,
    max_concurrency: Annotated[
        int | None, typer.Option("--max-concurrency", min=1, help="Requests it gets at a time; more wait.")
    ] = None,
    weight: Annotated[float, typer.Option("--weight", help="Its share, under the policy `weighted`.")] = 1.0,
    owner: Annotated[str | None, typer.Option("--owner", help="Whose it is, for others to see.")] = None,
    description: Annotated[str | None, typer.Option("--description", help="What it is, for others to see.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="A word to find it by; may be repeated.")] = None,
    key_file: Annotated[
        str | None, typer.Option("--key-file", help="A file that holds the gateway's join key.", metavar="FILE")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", envvar=["QUIVER_JOIN_KEY", "QUIVER_ADMIN_KEY"], help="The gateway's join key.", metavar="KEY"
        ),
    ] = None,
    server_key_file: Annotated[
        str | None,
        typer.Option("--server-key-file", help="A file that holds the key the server wants.", metavar="FILE"),
    ] = None,
    detect: Annotated[
        bool, typer.Option("--detect/--no-detect", help="Find out what the server is and can do, before it is offered.")
    ] = True,
    drain: Annotated[float, typer.Option("--drain", min=0, help="Seconds for open requests when it leaves.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Offer a model server here to a gateway elsewhere. It dials out, for a gateway that cannot reach this
    machine, and stays joined until Ctrl-C.

    \b
    On a terminal p pauses, r resumes, q leaves. So do, from another one:
      quiver join pause
      quiver join status

    \b
    Example:
      quiver join https://gateway.lab --server http://127.0.0.1:11434 --key-file join.key
    """
    if target in WORDS:
        _tell(target, which, as_json=as_json)
        return
    with failures_explained():
        if which is not None:
            fail(f"`{which}` is one argument too many", "give the name with --name", code=2)
        shown = key if key_file is None else key_in("--key-file", key_file, CLIENT_KEY)
        offer = _checked(
            Offer(
                protocol=PROTOCOL,
                software=f"quiver {quiver.__version__}",
                name=name or _own_name(),
                resume=secrets.token_hex(16),
                url=server if "://" in server else f"http://{server}",
                models=tuple(model or ()),
                api_key=None if server_key_file is None else key_in("--server-key-file", server_key_file),
                max_concurrency=max_concurrency,
                weight=weight,
                metadata=Metadata(owner=owner, description=description, tags=tuple(tag or ())),
            )
        )
    if detect:
        offer = _look(offer, quiet=as_json)
    raise typer.Exit(_run(target, offer, shown, drain, Control(joins_folder(), offer.name), as_json=as_json))


def _look(offer: Offer, *, quiet: bool) -> Offer:
    """The offer with what its server is found to be."""
    from ...join.detecting import look
    from .server_views import in_words

    try:
        offer, found = look(offer)
    except ValueError as error:
        fail(f"--server: {error}", f"write it as `{OLLAMA}`", code=2)
    if not quiet:
        there = found.software is not None or found.models
        nobody = "nobody answers there yet; it is offered all the same"
        typer.echo(f"{offer.url}: {in_words(found) if there else nobody}", err=True)
    return offer


def _run(gateway: str, offer: Offer, key: str | None, drain: float, control: Control, *, as_json: bool) -> int:
    from quiver.proxy.tunnel.joiner import JoinRefused

    from ...join.run import Join, run
    from ...join.screen import Screen

    try:
        control.prepare()
        posted = control.posted()
    except OSError as error:
        fail(f"the data folder cannot be used: {error}", "choose another with QUIVER_DATA_DIR")
    if posted is not None and posted.runs:
        fail(f"a join called `{offer.name}` runs here already (process {posted.pid})", "give this one another --name")
    try:
        started = Join(
            gateway, msgspec.structs.replace(offer, paused=control.paused), key, drain, control, Screen(as_json=as_json)
        )
    except ValueError as error:
        fail(str(error), "write the gateway's address as `https://gateway.lab` or `http://127.0.0.1:8080`", code=2)
    if key is not None and not _private(gateway):
        typer.echo("warning: the key is sent unencrypted; use an https:// address", err=True)
    try:
        return run(started)
    except JoinRefused as refused:
        fail(f"{refused.message} ({refused.code})" if refused.code else refused.message, _advice(refused.code))
    finally:
        control.clear()


def _tell(word: str, name: str | None, *, as_json: bool) -> None:
    """Show the joins that run, or tell one of them something."""
    folder = joins_folder()
    found = running(folder)
    if name is not None:
        found = [posted for posted in found if posted.status.name == name]
    if not found:
        fail(
            "no join runs here" if name is None else f"no join called `{name}` runs here",
            "`quiver join GATEWAY_URL` starts one",
        )
    if word == "status":
        _show([posted.status for posted in found], as_json=as_json)
        return
    if len(found) > 1:
        names = ", ".join(posted.status.name for posted in found)
        fail(f"several joins run here: {names}", f"say which: `quiver join {word} NAME`", code=2)
    chosen = found[0].status.name
    control = Control(folder, chosen)
    if word == "leave":
        control.leave()
    else:
        control.paused = word == "pause"
    typer.echo({"pause": f"pausing `{chosen}`", "resume": f"resuming `{chosen}`", "leave": f"`{chosen}` leaves"}[word])


def _show(found: list[JoinStatus], *, as_json: bool) -> None:
    if as_json:
        for status in found:
            print_json(status)
        return
    print_table(COLUMNS, [_row(status) for status in found])


def _row(status: JoinStatus) -> tuple[str, ...]:
    tally = status.tally
    figures = ("-", "-", "-") if tally is None else (str(tally.in_flight), str(tally.served), str(tally.tokens))
    state = f"{status.state}, paused" if status.paused else status.state
    return status.name, state, status.gateway, status.server, *figures, status.reason or ""


def _checked(offer: Offer) -> Offer:
    """`offer`, whose fields a person wrote. Ends the command when one cannot be."""
    try:
        return msgspec.convert(msgspec.to_builtins(offer), Offer)
    except msgspec.ValidationError as error:
        _, _, place = str(error).partition(" - at `$.")
        message, hint = _FORMS.get(place.partition("[")[0].rstrip("`"), (str(error), None))
        fail(message, hint, code=2)


_FORMS: dict[str, tuple[str, str | None]] = {
    "url": ("--server is no address of a server", f"write it as `{OLLAMA}`, without user, query or fragment"),
    "name": ("--name takes 1 to 64 letters, digits, dots, hyphens or underscores", None),
    "models": ("--model takes a name of printable characters without blanks", None),
    "weight": ("--weight is above 0 and at most 1000", None),
}


def _own_name() -> str:
    """This machine's name as a server's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", platform.node().partition(".")[0])[:64] or "laptop"


def _private(gateway: str) -> bool:
    """Whether what is sent to the gateway cannot be read on the way."""
    parts = urlsplit(gateway if "://" in gateway else f"http://{gateway}")
    return parts.scheme.lower() in ("https", "wss") or is_loopback(parts.hostname or "")


def _advice(code: str) -> str | None:
    """What to do about a refusal."""
    match code:
        case "invalid_api_key":
            return "give the gateway's join key with --key-file or QUIVER_JOIN_KEY"
        case "join_forbidden":
            return "the gateway's operator can set `join.key`; give it here with --key-file"
        case "name_taken":
            return "choose another --name"
        case "not_found":
            return "is the gateway's Quiver as new as this one?"
        case _:
            return None
