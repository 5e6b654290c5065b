"""The control plane's replies."""

import msgspec
from quart import Blueprint, Response


def json_reply(value: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`value` as JSON."""
    return Response(msgspec.json.encode(value), status, headers, content_type="application/json")


def add_options(api: Blueprint, rule: str, *methods: str) -> None:
    """Answer OPTIONS for a path that also fits a wider rule, whose methods are not meant here."""

    async def options(**parts: str) -> Response:
        return Response(b"", headers={"Allow": ", ".join(sorted({"OPTIONS", *methods}))})

    api.add_url_rule(rule, f"options of {rule.replace('.', ' ')}", options, methods=["OPTIONS"])
