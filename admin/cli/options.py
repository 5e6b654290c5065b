"""Options that several commands take."""

from typing import Annotated

import typer

Url = Annotated[str, typer.Option("--url", envvar="QUIVER_URL", help="The gateway to talk to.", metavar="URL")]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="QUIVER_API_KEY", help="Your key for the gateway.", metavar="KEY"),
]
AdminKey = Annotated[
    str | None,
    typer.Option("--admin-key", envvar="QUIVER_ADMIN_KEY", help="The gateway's admin key.", metavar="KEY"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
