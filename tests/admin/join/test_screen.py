"""What the owner of a join reads."""

import msgspec
import pytest
from quiver.admin.join.screen import Screen, line, sentence
from quiver.schemas.join import JoinState, JoinStatus

from .test_control import STATUS


@pytest.mark.parametrize(
    ("state", "fields", "words"),
    [
        ("connecting", {}, "connecting to https://gateway.lab"),
        ("joined", {}, "joined https://gateway.lab as `laptop`, offering http://127.0.0.1:11434"),
        ("joined", {"paused": True}, "paused: it gets no new requests"),
        ("waiting", {"reason": "no route", "retry_at": 0.0}, "no route; trying again in 0.0 s"),
        ("leaving", {}, "leaving once open requests are over"),
        ("left", {}, "left"),
    ],
)
def test_every_state_has_words(state: JoinState, fields: dict[str, object], words: str) -> None:
    assert words in sentence(msgspec.structs.replace(STATUS, state=state, **fields))


def test_line_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: STATUS.since + 3700)
    shown = line(msgspec.structs.replace(STATUS, round_trip=0.031))
    assert shown == "joined  for 1 h 01 min  1 in flight  3 served  99 tokens  31 ms away  [p] pause  [q] leave"


def test_turns_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(as_json=False)
    waiting = msgspec.structs.replace(STATUS, state="waiting", reason="no route")
    for status in (STATUS, STATUS, waiting, msgspec.structs.replace(waiting, state="connecting"), STATUS):
        screen.show(status)
    said = capsys.readouterr().err.splitlines()
    assert [("joined" in each, "no route" in each) for each in said] == [(True, False), (False, True), (True, False)]


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(as_json=True).show(STATUS)
    assert msgspec.json.decode(capsys.readouterr().out, type=JoinStatus) == STATUS
