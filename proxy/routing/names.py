"""Model names as people type them: the nearest known one is a hint in an error, never a silent replacement."""

import difflib
from collections.abc import Sequence


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name a person most likely meant; None when none is close."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)
