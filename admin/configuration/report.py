"""A configuration as it is shown: every setting with its value, secrets masked, and its source."""

from collections.abc import Sequence
from typing import Any

import msgspec
from quiver.schemas.config import Config
from quiver.schemas.settings import Change, Setting, flat, is_live, masked

from .settings import Loaded


def settings_of(config: Config, loaded: Loaded, pending: Sequence[Change] = ()) -> list[Setting]:
    """Every setting of `config`, which came from where `loaded` says."""
    waiting = {change.path: change.after for change in pending}
    return [
        Setting(
            path=path,
            value=masked(path, value),
            source=str(loaded.origin(path)),
            live=is_live(path),
            pending=waiting.get(path),
        )
        for path, value in flat(config).items()
    ]


def written(value: Any) -> str:
    """A value as one would write it."""
    return "" if value is None else msgspec.json.encode(value).decode()
