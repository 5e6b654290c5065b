"""Writes llama.cpp's tokens of hard texts, for every kind of vocabulary, to `goldens/tokenizer.json`.

Needs an environment that has llama-cpp-python and gguf; the test suite itself does not. Run from the repository root:

    python -m tests.engine.regenerate_tokenizer_goldens
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import llama_cpp

from tests.engine.vocabularies import fingerprint, golden_texts, golden_vocabularies

GOLDENS = Path(__file__).parent / "goldens" / "tokenizer.json"


def oracle_tokens(path: Path) -> list[str]:
    """The tokens of each golden text, special tokens parsed in every other one."""
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    special = (at % 2 == 1 for at in range(len(golden_texts())))
    found = (
        model.tokenize(text.encode(), add_bos=parse, special=parse)
        for text, parse in zip(golden_texts(), special, strict=False)
    )
    return [" ".join(map(str, tokens)) for tokens in found]


def main() -> None:
    goldens: dict[str, object] = {"llama_cpp": llama_cpp.__version__, "fingerprint": fingerprint()}
    with tempfile.TemporaryDirectory() as folder:
        for name, write in golden_vocabularies().items():
            goldens[name] = oracle_tokens(write(Path(folder) / "vocabulary.gguf"))
    GOLDENS.write_text(json.dumps(goldens, indent=0) + "\n")


if __name__ == "__main__":
    main()
