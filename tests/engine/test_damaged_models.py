"""Whatever a model file holds, Python gets an answer or one of our exceptions: never a panic, never a dead process."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .chat_model import write_chat_model

ALLOWED = {"ok", "ModelLoadError", "EngineError", "InvalidRequest", "ContextOverflow", "ValueError"}
# Metadata, vocabulary and tensor entries of the small model.
HEADER = 6000
HARD = [0, 1, 2, 31, 32, 255, 256, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1]

words = st.builds(
    lambda value, width: (value % 2 ** (8 * width)).to_bytes(width, "little"),
    st.sampled_from(HARD) | st.integers(0, 2**64 - 1),
    st.sampled_from([1, 2, 4, 8]),
)
edits = st.lists(st.tuples(st.integers(0, HEADER), words | st.binary(max_size=24)), min_size=1, max_size=6)

Use = Callable[[bytes], list[str]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("damaged") / "whole.gguf"
    return write_chat_model(path, layers=1, feed_forward=256).read_bytes()


@pytest.fixture(scope="module")
def use(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Use]:
    """What comes of a file, call by call, in a process that all cases share for as long as it lives."""
    folder, numbers = tmp_path_factory.mktemp("files"), count()
    command = [sys.executable, "-m", "tests.engine.use_model"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def use_once(file: bytes) -> list[str]:
            # Each under a name of its own: the tokenizer of a path is remembered.
            path = folder / f"{next(numbers)}.gguf"
            path.write_bytes(file)
            stdin.write(f"{path}\n")
            stdin.flush()
            line = stdout.readline()
            assert line, f"the process died with code {process.wait()} of {path}"
            path.unlink()
            told: Any = json.loads(line)
            return [str(each) for each in told]

        yield use_once
        stdin.close()


def test_whole_model_works(use: Use, whole: bytes) -> None:
    assert use(whole) == ["ok"] * 5


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(edits=edits, length=st.none() | st.integers(0, HEADER))
def test_damage_is_an_exception(use: Use, whole: bytes, edits: list[tuple[int, bytes]], length: int | None) -> None:
    file = bytearray(whole)
    for at, piece in edits:
        file[at : at + len(piece)] = piece
    assert set(use(bytes(file[:length]))) <= ALLOWED
