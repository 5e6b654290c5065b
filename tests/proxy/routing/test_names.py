"""Hints for misspelt model names."""

import pytest
from quiver.proxy.routing.names import nearest

KNOWN = ("qwen3:8b", "llama-3.1-8b", "bolt")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen3:8", "qwen3:8b"),
        ("qwen-3:8b", "qwen3:8b"),
        ("llama3.1-8b", "llama-3.1-8b"),
        ("bolt", "bolt"),
        ("blot", "bolt"),
        ("gpt-4o", None),
        ("", None),
    ],
)
def test_nearest_known_name(name: str, expected: str | None) -> None:
    assert nearest(name, KNOWN) == expected


def test_nothing_known_no_hint() -> None:
    assert nearest("bolt", ()) is None
