"""The files of random weights that engines are measured with: they load, and their vocabulary takes any text."""

import array
import math
from dataclasses import replace
from pathlib import Path

import pytest
from quiver._engine import detokenize, evaluate, render_chat, tokenize

from bench.engine.models import write_weights
from bench.engine.shapes import SHAPES, Shape
from bench.engine.vocabulary import SPECIAL

TEXTS = ("", "the thing", "caf\u00e9 12\n\t x", "\U0001f600\u4e2d", "\x00\x7f")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_recipe_makes_working_models(tmp_path: Path, shape: Shape) -> None:
    path = tmp_path / "model.gguf"
    small = replace(shape, width=64, layers=2, heads=4, kv_heads=2, head_width=16, feed_forward=96, vocabulary=5000)
    write_weights(path, small)
    for text in TEXTS:
        tokens = tokenize(str(path), text, add_special=False, parse_special=False)
        assert detokenize(str(path), tokens).decode() == text
        assert all(token < 5000 - len(SPECIAL) for token in tokens)
    chat = render_chat(str(path), b'[{"role": "user", "content": "hi"}]')
    tokens = tokenize(str(path), chat, add_special=False, parse_special=True)
    assert tokens[0] == 5000 - 2
    logits = array.array("f", evaluate(str(path), tokens))
    assert len(logits) == 5000 * len(tokens)
    assert all(map(math.isfinite, logits))
