"""Our tokens beside llama.cpp's and those of the published tokenizers, for many random texts of every family. By hand:

    python -m tests.engine.differential FOLDER [--count 100000] [--seed 1] [--only NAME...] [--measure tokens]

FOLDER holds vocabulary files, `ggml-vocab-*.gguf`, as they come with the sources of llama.cpp; the environment has
llama-cpp-python beside the test suite's own packages. Families without a file of their own borrow another's tokens.

A text counts as wrong when ours are neither llama.cpp's tokens nor, where llama.cpp differs from what a model was trained
with, the published ones: it knows case for ASCII only, and splits WordPiece differently where `word_piece_agrees` says no.
"""

from __future__ import annotations

import argparse
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
from quiver._engine import ModelLoadError, tokenize
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from .vocabularies import BY_NAME, CONTROL, FAMILIES, UNKNOWN, USER_DEFINED, published_token, texts

Encode = Callable[[str, bool], list[int]]

BORROWERS = {
    "tekken": "llama-bpe",
    "gpt-4o": "llama-bpe",
    "smollm": "llama-bpe",
    "dbrx": "llama-bpe",
    "smaug-bpe": "llama-bpe",
}
"""Pre-tokenizers of models whose vocabulary is not at hand, and whose tokens they borrow."""
PATTERNS = {"dbrx": "llama-bpe", "smaug-bpe": "llama-bpe", "refact": "smollm", "starcoder": "smollm", "mpt": "gpt-2"}
MEGABYTE = 1 << 20


@dataclass
class Count:
    """What came of one family's texts."""

    texts: int = 0
    equal: int = 0
    published: int = 0
    wrong: int = 0
    example: str = ""

    def add(self, text: str, special: bool, ours: list[int], theirs: list[int], published: Encode | None) -> None:
        self.texts += 1
        if ours == theirs:
            self.equal += 1
        elif published is not None and ours == published(text, special):
            self.published += 1
        else:
            self.wrong += 1
            self.example = self.example or f"{text!r}: {ours} against {theirs}"

    def __str__(self) -> str:
        line = f"{self.texts:7} texts {self.equal:7} as llama.cpp {self.published:6} as published {self.wrong:6} wrong"
        return f"{line}  {self.example}".rstrip()


SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


class Metadata:
    """The keys and values of a GGUF file, read at once: the `gguf` package takes half a minute for a large vocabulary."""

    def __init__(self, path: Path) -> None:
        self._bytes, self._at = path.read_bytes(), 16
        self.values = {self._string(): self._value(self._number("I")) for _ in range(self._number("Q"))}

    def _number(self, kind: str) -> Any:
        value = struct.unpack_from(f"<{kind}", self._bytes, self._at)[0]
        self._at += struct.calcsize(f"<{kind}")
        return value

    def _string(self) -> str:
        length = self._number("Q")
        self._at += length
        return self._bytes[self._at - length : self._at].decode(errors="replace")

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            return self._number(SCALARS[kind])
        inner, count = self._number("I"), self._number("Q")
        if inner == STRING:
            return [self._string() for _ in range(count)]
        values = struct.unpack_from(f"<{count}{SCALARS[inner]}", self._bytes, self._at)
        self._at += struct.calcsize(f"<{count}{SCALARS[inner]}")
        return list(values)


def borrowed(path: Path, name: str, folder: Path) -> Path:
    """A copy of a vocabulary file under another pre-tokenizer's name."""
    key = b"tokenizer.ggml.pre"
    whole = path.read_bytes()
    at = whole.index(key) + len(key) + 4
    length = struct.unpack_from("<Q", whole, at)[0]
    copy = folder / f"ggml-vocab-{name}.gguf"
    copy.write_bytes(whole[:at] + struct.pack("<Q", len(name)) + name.encode() + whole[at + 8 + length :])
    return copy


def published(path: Path, pre: str) -> Encode | None:
    """The tokenizer as a `tokenizer.json` would describe it, from the file's own tokens; None where none is known."""
    fields = Metadata(path).values
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    kinds: list[int] = fields["tokenizer.ggml.token_type"]
    model = fields["tokenizer.ggml.model"]
    if model == "bert":
        tokenizer = word_piece(tokens)
    elif PATTERNS.get(pre, pre) in BY_NAME and model == "gpt2":
        tokenizer = byte_level(tokens, fields["tokenizer.ggml.merges"], PATTERNS.get(pre, pre))
    else:
        return None
    special = [
        (token, kind) for token, kind in zip(tokens, kinds, strict=True) if kind in (CONTROL, USER_DEFINED, UNKNOWN)
    ]
    both = {True: tokenizer, False: Tokenizer.from_str(tokenizer.to_str())}
    for parse, found in both.items():
        found.add_tokens(
            [
                AddedToken(token, special=kind != USER_DEFINED, normalized=False)
                for token, kind in special
                if parse or kind == USER_DEFINED
            ]
        )
    return lambda text, parse: list(both[parse].encode(text, add_special_tokens=False).ids)


def word_piece(tokens: list[str]) -> Tokenizer:
    """BERT's tokenizer; GGUF marks the start of a word, the published vocabulary what continues one."""
    spelled = {published_token(token): number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(spelled, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def byte_level(tokens: list[str], merges: list[str], family: str) -> Tokenizer:
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=pairs,
            ignore_merges=BY_NAME[family].whole_words,
        )
    )
    splits: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in BY_NAME[family].patterns]
    alphabet = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, alphabet])
    return tokenizer


def compare(path: Path, pre: str, count: int, seed: int) -> Count:
    oracle = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    third = published(path, pre)
    found = Count()
    for at, text in enumerate(texts(count, seed)):
        special = at % 2 == 1
        ours = tokenize(str(path), text, add_special=False, parse_special=special)
        theirs = oracle.tokenize(text.encode(), add_bos=False, special=special)
        found.add(text, special, ours, theirs, third)
    return found


def speed(path: Path, pre: str, text: str) -> str:
    """Megabytes a second, the best of a few."""
    oracle = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    third = published(path, pre)
    encoders: dict[str, Callable[[], list[int]]] = {
        "ours": lambda: tokenize(str(path), text, add_special=False, parse_special=False),
        "llama.cpp": lambda: oracle.tokenize(text.encode(), add_bos=False, special=False),
    }
    if third is not None:
        encoders["tokenizers"] = lambda: third(text, False)
    return "  ".join(
        f"{name} {len(text.encode()) / best_time(encode) / 1e6:6.2f} MB/s" for name, encode in encoders.items()
    )


def best_time(encode: Callable[[], list[int]]) -> float:
    times: list[float] = []
    while len(times) < 5 and sum(times) < 2:
        began = time.perf_counter()
        encode()
        times.append(time.perf_counter() - began)
    return min(times)


def megabyte() -> str:
    """Prose and code of this repository, again and again until it is a megabyte."""
    root = Path(__file__).parents[2]
    files = [*sorted(root.glob("docs/*.md")), root / "README.md", *sorted(root.glob("proxy/**/*.py"))]
    whole = "\n".join(path.read_text() for path in files)
    return (whole * (MEGABYTE // len(whole) + 1))[:MEGABYTE]


def vocabulary_files(folder: Path, copies: Path) -> dict[str, tuple[Path, str]]:
    """Files by name, with the pre-tokenizer each names."""
    found = {path.stem.removeprefix("ggml-vocab-"): path for path in sorted(folder.glob("ggml-vocab-*.gguf"))}
    for name, lender in BORROWERS.items():
        if lender in found and name not in found:
            found[name] = borrowed(found[lender], name, copies)
    names = {}
    for name, path in found.items():
        names[name] = (path, str(Metadata(path).values.get("tokenizer.ggml.pre", "default")))
    return names


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--count", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--only", nargs="*", help="names of families")
    arguments.add_argument("--measure", choices=["both", "tokens", "speed"], default="both")
    chosen = arguments.parse_args()
    text, wrong = megabyte(), 0
    print(f"llama.cpp {llama_cpp.__version__}, seed {chosen.seed}, {len(FAMILIES)} published expressions", flush=True)
    with tempfile.TemporaryDirectory() as copies:
        for name, (path, pre) in vocabulary_files(chosen.folder, Path(copies)).items():
            if chosen.only and name not in chosen.only:
                continue
            try:
                tokenize(str(path), "", add_special=False, parse_special=False)
            except ModelLoadError as error:
                print(f"{name:14} refused: {error}", flush=True)
                continue
            if chosen.measure != "speed":
                found = compare(path, pre, chosen.count, chosen.seed)
                wrong += found.wrong
                print(f"{name:14} {found}", flush=True)
            if chosen.measure != "tokens":
                print(f"{name:14} {speed(path, pre, text)}", flush=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
