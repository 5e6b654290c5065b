"""The admin API's wire format for the configuration: every setting with its source, and what a reload did."""

from typing import Annotated, Any

import msgspec

from .config import said
from .settings import Change


class Setting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One setting. Secrets are masked, and so is what waits for a restart."""

    path: Annotated[str, said("such as `server.port` or `backends[0].url`")]
    value: Annotated[Any, said("what is in force")]
    source: Annotated[str, said("`default`, a file and line, a variable or a flag")]
    live: Annotated[bool, said("whether a change takes effect without a restart")]
    pending: Annotated[Any, said("what it will be after a restart, where that differs")] = None


class ConfigReport(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration in force. `files` are those that are watched; `refused` says why the last reload was not done, null
    when it was; moments are Unix time.
    """

    settings: list[Setting]
    files: list[str]
    loaded: float
    pending: list[Change]
    warnings: list[str] = []
    refused: str | None = None
    refused_at: float | None = None


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload changed, and what it left for a restart."""

    changed: list[Change]
    pending: list[Change]
