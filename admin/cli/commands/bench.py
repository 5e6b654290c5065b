"""`quiver bench ...`: measuring what is installed here, on this machine."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from ..console import fail, print_json, print_table
from ..options import Json

app = typer.Typer(no_args_is_help=True, help="Measure the engine on this machine.")


@app.callback()
def _bench() -> None: ...


@app.command()
def engine(
    model: Annotated[
        str | None, typer.Option("--model", help="A GGUF file; the built-in model if unset.", metavar="FILE")
    ] = None,
    prompt: Annotated[
        list[int] | None, typer.Option("--prompt", min=1, help="Read prompts of so many tokens; may be repeated. 512.")
    ] = None,
    generate: Annotated[
        list[int] | None, typer.Option("--generate", min=8, help="Write so many tokens; may be repeated. 64.")
    ] = None,
    streams: Annotated[
        list[int] | None, typer.Option("--streams", min=1, help="So many answers together; may be repeated. 1 and 8.")
    ] = None,
    depth: Annotated[
        list[int] | None,
        typer.Option("--depth", min=1, help="Write after so many tokens; may be repeated. 8192."),
    ] = None,
    pause: Annotated[
        int, typer.Option("--pause", min=0, help="Let a prompt of so many tokens in while one answer is written.")
    ] = 2000,
    threads: Annotated[int, typer.Option("--threads", min=0, help="0: one per processor.")] = 0,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Rounds; medians are told.")] = 5,
    compare: Annotated[bool, typer.Option("--compare", help="Measure llama.cpp in the same rounds.")] = False,
    oracle_python: Annotated[
        str,
        typer.Option(
            "--oracle-python",
            help="A Python that has llama-cpp-python; this one if unset.",
            metavar="FILE",
            show_default=False,
        ),
    ] = sys.executable,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Json = False,
) -> None:
    """Measure how fast a model reads and writes here. Next to llama.cpp if asked to.

    \b
    Example:
      quiver bench engine --model qwen3-0.6b.gguf --threads 2 --compare --oracle-python ~/llama/bin/python
    """
    from ...measure import tables
    from ...measure.plan import Plan
    from ...measure.run import run

    asked = {"prompts": prompt, "generated": generate, "streams": streams, "depths": depth}
    plan = Plan(**{name: tuple(sizes) for name, sizes in asked.items() if sizes}, pause=pause, repeats=repeats)
    with _failures_explained():
        report = run(plan, model, threads, oracle_python if compare else None, lambda line: typer.echo(line, err=True))
    if as_json:
        print_json(tables.as_data(report))
    elif as_csv:
        typer.echo(tables.as_csv(report), nl=False)
    else:
        typer.echo("\n".join(tables.heading(report)) + "\n")
        print_table(
            tables.columns(report), [[tables.shown(cell) for cell in tables.row(each)] for each in report.results]
        )
        for line in tables.notes(report):
            typer.echo(line)


@contextmanager
def _failures_explained() -> Iterator[None]:
    from quiver.proxy.native import EngineError

    from ...measure.llama import PeerFailed
    from ...measure.quiver_engine import EngineFailed
    from ...measure.run import WrongAnswers

    try:
        yield
    except PeerFailed as error:
        fail(str(error), "name a Python that has llama-cpp-python with --oracle-python")
    except WrongAnswers as error:
        fail(f"no speed is told: {error}", "report this with the model's name: the engine computes something wrong")
    except (EngineError, EngineFailed) as error:
        fail(str(error))
