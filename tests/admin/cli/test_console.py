"""What others say is shown, and commands no terminal."""

import msgspec
import pytest
import typer
from quiver.admin.cli.console import fail, harmless, print_table
from quiver.admin.join.screen import Screen

from ..join.test_control import STATUS

HOSTILE = "\x1b]0;gone\x07\x1b[2Jwords\x9b31m\r"


def test_controls_are_spelled_out() -> None:
    assert harmless(HOSTILE) == r"\x1b]0;gone\x07\x1b[2Jwords\x9b31m\x0d"
    assert harmless("zwei\nWörter\t✓") == "zwei\nWörter\t✓"


def test_nobody_elses_words_reach_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME",), [(HOSTILE,)])
    with pytest.raises(typer.Exit):
        fail(HOSTILE)
    Screen(as_json=False).show(msgspec.structs.replace(STATUS, state="waiting", reason=HOSTILE))
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert "words" in text
        assert not set("\x1b\x07\x9b\r") & set(text)
