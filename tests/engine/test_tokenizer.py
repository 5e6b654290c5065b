"""The tokenizer beside two others: `tokenizers` with the expressions that models are published with, and llama.cpp
through goldens. Both see random texts of many scripts; the rules one by one are tested in Rust.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from quiver._engine import ModelLoadError, detokenize, tokenize
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from . import vocabularies
from .vocabularies import BLANK, FAMILIES, SPECIAL, USER_DEFINED, Family

GOLDENS = Path(__file__).parent / "goldens" / "tokenizer.json"
BYTE_LEVEL = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@pytest.fixture(name="folder", scope="module")
def made_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vocabularies")


def byte_level_file(folder: Path, family: Family) -> str:
    return str(vocabularies.write_byte_level(folder / f"{family.name}.gguf", family.name))


def published(family: Family) -> Tokenizer:
    """The tokenizer as a `tokenizer.json` file would describe it."""
    vocabulary = vocabularies.byte_level(whole_words=family.whole_words)
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(vocabulary.tokens)},
            merges=list(vocabulary.merges),
            ignore_merges=family.whole_words,
        )
    )
    splits: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in family.patterns]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    tokenizer.add_tokens(
        [AddedToken(text, special=kind != USER_DEFINED, normalized=False) for text, kind in SPECIAL.items()]
    )
    return tokenizer


@BYTE_LEVEL
def test_splits_like_the_published_expression(folder: Path, family: Family) -> None:
    path, oracle = byte_level_file(folder, family), published(family)
    for text in vocabularies.texts(1500, seed=3):
        expected = oracle.encode(text, add_special_tokens=False).ids
        assert tokenize(path, text, add_special=False, parse_special=True) == expected, text


@BYTE_LEVEL
def test_bytes_come_back_whole(folder: Path, family: Family) -> None:
    path = byte_level_file(folder, family)
    for text in vocabularies.texts(300, seed=4):
        tokens = tokenize(path, text, add_special=True, parse_special=False)
        assert detokenize(path, tokens) == text.encode()


@BYTE_LEVEL
@pytest.mark.parametrize(
    "unit", ["a", " ", "\n", "1", "'", "!", "\u6f22", "\u0301", "aB", "'s", " a", "<think>", "<|im_"]
)
def test_long_runs_split_alike(folder: Path, family: Family, unit: str) -> None:
    path, oracle = byte_level_file(folder, family), published(family)
    text = unit * 500
    expected = oracle.encode(text, add_special_tokens=False).ids
    assert tokenize(path, text, add_special=False, parse_special=True) == expected


@cache
def goldens() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(GOLDENS.read_text())
    return found


def test_goldens_are_of_these_vocabularies() -> None:
    assert goldens()["fingerprint"] == vocabularies.fingerprint(), "run regenerate_tokenizer_goldens"


@pytest.mark.parametrize("name", vocabularies.golden_vocabularies())
def test_tokens_equal_llama_cpp(folder: Path, name: str) -> None:
    path = str(vocabularies.golden_vocabularies()[name](folder / f"golden {name}.gguf"))
    for at, (text, expected) in enumerate(zip(vocabularies.golden_texts(), goldens()[name], strict=True)):
        if name == "word pieces" and not vocabularies.word_piece_agrees(text):
            continue
        parse = at % 2 == 1
        found = tokenize(path, text, add_special=parse, parse_special=parse)
        assert found == [int(token) for token in expected.split()], text


def published_word_piece() -> Tokenizer:
    """BERT's tokenizer as a `tokenizer.json` file would describe it."""
    spelled = {vocabularies.published_token(token): number for number, token in enumerate(vocabularies.word_piece())}
    tokenizer = Tokenizer(models.WordPiece(spelled, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def test_word_pieces_are_the_published_ones(folder: Path) -> None:
    path, oracle = str(vocabularies.write_word_piece(folder / "words.gguf")), published_word_piece()
    texts = [*vocabularies.texts(3000, seed=7), *(text.lower() for text in vocabularies.words()), "a" * 100, "a" * 101]
    found = [tokenize(path, text, add_special=False, parse_special=False) for text in texts]
    assert found == [oracle.encode(text, add_special_tokens=False).ids for text in texts]
    assert sum(1 not in tokens for tokens in found) > len(found) / 4, "mostly unknown words prove nothing"


def test_word_pieces_stand_between_specials(folder: Path) -> None:
    path = str(vocabularies.write_word_piece(folder / "ends.gguf"))
    bare = tokenize(path, "the model [SEP] tokens", add_special=False, parse_special=True)
    assert bare.count(3) == 1
    assert tokenize(path, "the model [SEP] tokens", add_special=True, parse_special=True) == [2, *bare, 3]


def joined_by_definition(text: str) -> list[str]:
    """Sentencepiece BPE without any cleverness: join the best-scored neighbours, the leftmost of equal ones, until no
    two make a token."""
    scores = {token: score for token, score, kind in vocabularies.sentencepiece().tokens if kind == vocabularies.NORMAL}
    parts = list(text)
    while True:
        joined = enumerate(left + right for left, right in pairwise(parts))
        pairs = ((scores[both], -at) for at, both in joined if both in scores)
        best = max(pairs, default=None)
        if best is None:
            return [byte for part in parts for byte in ([part] if part in scores else spelled(part))]
        at = -best[1]
        parts[at : at + 2] = ["".join(parts[at : at + 2])]


def spelled(character: str) -> list[str]:
    return [f"<0x{byte:02X}>" for byte in character.encode()]


def test_sentencepiece_joins_by_definition(folder: Path) -> None:
    path = str(vocabularies.write_sentencepiece(folder / "sentencepiece.gguf"))
    texts = [token for token, _, _ in vocabularies.sentencepiece().tokens]
    for text in vocabularies.texts(400, seed=5):
        if "<think>" not in text:
            found = tokenize(path, text, add_special=False, parse_special=False)
            assert [texts[token] for token in found] == joined_by_definition(BLANK + text.replace(" ", BLANK)), text


def test_sentencepiece_bytes_come_back_whole(folder: Path) -> None:
    path = str(vocabularies.write_sentencepiece(folder / "sentencepiece.gguf"))
    for text in vocabularies.texts(300, seed=6):
        if "<think>" not in text:
            tokens = tokenize(path, text, add_special=True, parse_special=False)
            # The escaped blank itself comes back as a blank: the price of escaping blanks.
            assert detokenize(path, tokens).decode() == " " + text.replace(BLANK, " ")


def test_unknown_pre_tokenizers_are_refused_by_name(folder: Path) -> None:
    path = str(vocabularies.write_byte_level(folder / "unknown.gguf", "no-such-model"))
    with pytest.raises(ModelLoadError, match="pre-tokenizer `no-such-model`"):
        tokenize(path, "text", add_special=False, parse_special=False)


def test_a_changed_file_is_read_again(folder: Path) -> None:
    path = folder / "changed.gguf"
    vocabularies.write_byte_level(path, "gpt-2")
    before = tokenize(str(path), "a", add_special=False, parse_special=False)
    vocabularies.write_sentencepiece(path)
    assert tokenize(str(path), "a", add_special=False, parse_special=False) != before
