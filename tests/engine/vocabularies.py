"""Vocabularies for the tokenizer's tests, small enough to make on the spot, and texts that are hard to split.

Everything here is a function of its arguments and of nothing else, so that the goldens, which another engine makes
elsewhere, and the tests see the same files and the same texts.
"""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import gguf

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
SPECIAL = {
    "<|endoftext|>": CONTROL,
    "<|im_start|>": CONTROL,
    "<|im_end|>": CONTROL,
    "<think>": USER_DEFINED,
    "</think>": USER_DEFINED,
    "<tool_call>": USER_DEFINED,
}
BLANK = "\u2581"
MERGES = 700
WORD_MERGES = 300
WORD_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PREFIX = r"[^\r\n\p{L}\p{N}]?"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Family:
    """A pre-tokenizer: the name in GGUF files, and the expressions that `tokenizer.json` files have for it."""

    name: str
    patterns: tuple[str, ...]
    whole_words: bool = False
    """A word that is a token is not merged."""


FAMILIES = (
    Family("gpt-2", (GPT2,)),
    Family("smollm", (r"\p{N}", GPT2)),
    Family("falcon", (r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]")),
    Family("default", (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    Family(
        "llama-bpe",
        (rf"{CONTRACTIONS}|{PREFIX}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{BLANKS}",),
        whole_words=True,
    ),
    Family("qwen2", (rf"{CONTRACTIONS}|{PREFIX}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{BLANKS}",)),
    Family(
        "qwen35",
        (rf"{CONTRACTIONS}|{PREFIX}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{BLANKS}",),
    ),
    Family(
        "tekken",
        (
            rf"{PREFIX}{UPPER}*{LOWER}+|{PREFIX}{UPPER}+{LOWER}*|\p{{N}}"
            rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{BLANKS}",
        ),
        whole_words=True,
    ),
    Family(
        "gpt-4o",
        (
            rf"{PREFIX}{UPPER}*{LOWER}+{CONTRACTIONS}?|{PREFIX}{UPPER}+{LOWER}*{CONTRACTIONS}?|\p{{N}}{{1,3}}"
            rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{BLANKS}",
        ),
    ),
)
BY_NAME = {family.name: family for family in FAMILIES}
CASED = {"tekken", "gpt-4o"}
"""Families whose rules for case llama.cpp knows for ASCII letters only: there the published expression decides."""

SCRIPTS = (
    (0x21, 0x7E),
    (0xA1, 0x17F),
    (0x1C4, 0x1CC),
    (0x2B0, 0x2FF),
    (0x300, 0x36F),
    (0x370, 0x3FF),
    (0x400, 0x4FF),
    (0x5D0, 0x5EA),
    (0x600, 0x6FF),
    (0x900, 0x97F),
    (0xE00, 0xE7F),
    (0x1100, 0x11FF),
    (0x1F00, 0x1FFF),
    (0x2000, 0x206F),
    (0x20D0, 0x20F0),
    (0x2100, 0x218F),
    (0x2190, 0x25FF),
    (0x3000, 0x30FF),
    (0x4E00, 0x4FFF),
    (0xAC00, 0xACFF),
    (0xF900, 0xFA00),
    (0xFE00, 0xFE0F),
    (0xFF01, 0xFFEE),
    (0x10400, 0x1044F),
    (0x1D400, 0x1D7FF),
    (0x1F1E6, 0x1F1FF),
    (0x1F300, 0x1F64F),
    (0x20000, 0x20100),
    (0xE0100, 0xE01EF),
)
BLANK_RUNS = (
    " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "\u00a0", "\u2003", "\u3000", "\u2028", "\x85",
)  # fmt: skip
SNIPPETS = (
    "'s", "'S", "'t", "'RE", "'Ve", "'m", "'LL", "'d", "'", "''", "\u2019s", "'x",
    "<think>", "</think>", "<|im_end|>", "<|im_start|>", "<|endoftext|>", "<tool_call>", "<|im_", "<s>", "</s>", "<unk>",
    "<0x0A>", "\u2581", "\u2581\u2581", "\x00", "\x7f", "\ufeff", "\u200b", "\u200d", "\ufe0f", "\ufffd", "\U0010ffff",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\U0001f44b\U0001f3fd", "1\ufe0f\u20e3",
    "1", "12", "123", "1234", "12345678", "\u00b2", "\u2167", "\u0663\u0664", "\uff11\uff12", "3.14", "1,000",
    "Hello", "hello", "HELLO", "helloWorld", "HTTPServer", "the", "The", " the", "model", "tokens", "e\u0301", "\u00e9",
    "caf\u00e9", "\u4f60\u597d", "\u4e16\u754c", "\u3053\u3093\u306b\u3061\u306f", "\ud55c\uad6d\uc5b4",
    "\u0928\u092e\u0938\u094d\u0924\u0947", "\u041f\u0440\u0438\u0432\u0435\u0442", "\u01c5", "\u02b0",
    "!", "!!", "...", "?!", "/", "//", "#", "$", "`", "```", "~", "|",
    "(", ")", "{", "}", "[", "]", "=", "==", "->", "_", "__", "-", "@", "&", "*", ";", ":", '"', "\\", "\\n",
)  # fmt: skip
"""Pieces of text at which pre-tokenizers differ. The long s is missing on purpose: engines disagree whether `'\u017f`
is a contraction."""


@cache
def characters() -> tuple[str, ...]:
    """Characters of many scripts, all of them older than any engine's tables: assigned in Unicode 3.2."""
    found = (chr(code) for first, last in SCRIPTS for code in range(first, last + 1))
    return tuple(c for c in found if unicodedata.ucd_3_2_0.category(c) not in {"Cn", "Cs", "Co"} and c != "\u017f")


def texts(count: int, seed: int, longest: int = 12) -> list[str]:
    """Random texts: words, blanks, digits, marks and symbols of many scripts in every order."""
    chance = random.Random(seed)
    return [text(chance, chance.randint(1, longest)) for _ in range(count)]


def text(chance: random.Random, parts: int) -> str:
    return "".join(part(chance) for _ in range(parts))


def part(chance: random.Random) -> str:
    kind = chance.randrange(8)
    if kind < 3:
        return chance.choice(SNIPPETS)
    if kind < 5:
        return chance.choice(BLANK_RUNS)
    if kind == 5:
        return "".join(chance.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ0123456789", k=chance.randint(1, 8)))
    return "".join(chance.choices(characters(), k=chance.randint(1, 4)))


@cache
def words() -> tuple[str, ...]:
    """What the vocabularies are made from: parts of texts, alone and joined, so that tokens reach across the places
    where pre-tokenizers split.
    """
    chance = random.Random(1)
    made = [text(chance, 1 + n % 3) for n in range(3000)]
    return tuple(word for word in made if "<" not in word and BLANK not in word)


def merges(spelled: list[tuple[str, ...]], count: int) -> list[tuple[str, str]]:
    """Byte-pair encoding learnt from `spelled` words: the most frequent pair first, of equal ones the first by text."""
    learnt: list[tuple[str, str]] = []
    pairs = Counter(pair for word in spelled for pair in pairwise(word))
    while len(learnt) < count:
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        learnt.append(best)
        for at, word in enumerate(spelled):
            if best in pairwise(word):
                pairs.subtract(pairwise(word))
                spelled[at] = join(word, best)
                pairs.update(pairwise(spelled[at]))
    return learnt


def join(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    joined: list[str] = []
    symbols = iter(word)
    for symbol in symbols:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
            joined.append("")  # a joined symbol takes no part in this round again
        else:
            joined.append(symbol)
    return tuple(symbol for symbol in joined if symbol)


@cache
def alphabet() -> tuple[str, ...]:
    """The characters that stand for the bytes 0 to 255 in byte-level vocabularies."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    shifted = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in printable else next(shifted)) for byte in range(256))


@dataclass(frozen=True)
class ByteLevel:
    """A byte-level vocabulary: the bytes, the results of merges, the special tokens."""

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]


@cache
def byte_level(*, whole_words: bool = False) -> ByteLevel:
    """With `whole_words` the last merges are left out, so that only a whole word can become their tokens."""
    learnt = byte_merges()
    joined = dict.fromkeys(left + right for left, right in learnt)
    kept = learnt[: MERGES * 3 // 4] if whole_words else learnt
    return ByteLevel((*alphabet(), *joined, *SPECIAL), kept)


@cache
def byte_merges() -> tuple[tuple[str, str], ...]:
    spelled = [tuple(alphabet()[byte] for byte in word.encode()) for word in words()]
    return tuple(merges(spelled, MERGES))


@dataclass(frozen=True)
class Sentencepiece:
    """A sentencepiece vocabulary: (text, score, type) of each token."""

    tokens: tuple[tuple[str, float, int], ...]


@cache
def sentencepiece() -> Sentencepiece:
    """Scores fall with the rank, and three neighbours in rank share one, so that ties occur."""
    spelled = [tuple(BLANK + word.replace(" ", BLANK)) for word in words()]
    # NUL stays out: llama.cpp ends a token's text there.
    counts = Counter(character for word in spelled for character in word if character != "\0")
    common = [character for character, _ in counts.most_common(300)]
    learnt = merges([word for word in spelled if set(word) <= set(common)], MERGES)
    joined = list(dict.fromkeys(left + right for left, right in learnt))
    return Sentencepiece(
        (
            ("<unk>", 0.0, UNKNOWN),
            ("<s>", 0.0, CONTROL),
            ("</s>", 0.0, CONTROL),
            *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)),
            *((token, -float(rank // 3), NORMAL) for rank, token in enumerate(joined)),
            *((character, -1000.0, NORMAL) for character in common if character not in joined),
            ("<think>", 0.0, USER_DEFINED),
        )
    )


@cache
def word_piece() -> tuple[str, ...]:
    """A WordPiece vocabulary as GGUF files have it: tokens that start a word are marked, those that continue one not."""
    bare = (re.sub(r"[\W_]", " ", stripped(word)).split() for word in words())
    spelled = [(BLANK + word[0], *word[1:]) for parts in bare for word in parts]
    common = [character for character, _ in Counter(c.lstrip(BLANK) for word in spelled for c in word).most_common(400)]
    ascii_marks = [chr(code) for code in range(0x21, 0x7F) if not chr(code).isalnum()]
    letters = list(dict.fromkeys([*common, *ascii_marks]))
    known = [word for word in spelled if {c.lstrip(BLANK) for c in word} <= set(common)]
    joined = dict.fromkeys(left + right for left, right in merges(known, WORD_MERGES))
    return (*WORD_SPECIAL, *(BLANK + letter for letter in letters), *letters, *joined)


def stripped(text: str) -> str:
    """Lower case without accents."""
    return "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")


def published_token(token: str) -> str:
    """A token of `word_piece` as the vocabulary files of the models have it."""
    if token.startswith(BLANK):
        return token[1:]
    return token if len(token) > 2 and token.startswith("[") and token.endswith("]") else f"##{token}"


def word_piece_agrees(text: str) -> bool:
    """Whether llama.cpp splits the text as the published tokenizer does. It keeps only the first character of what
    decomposes into letters, drops spacing marks, takes some control characters for blanks and U+2581 for its own mark.
    """
    return not any(
        unicodedata.category(c) in {"Mc", "Me"} or c in "\x0b\x0c\x1c\x1d\x1e\x1f\x85\u2581" or len(stripped(c)) > 1
        for c in text
    )


def add_word_piece(writer: gguf.GGUFWriter) -> None:
    tokens = word_piece()
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if token in WORD_SPECIAL else NORMAL for token in tokens])
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)


def write_word_piece(path: Path) -> Path:
    """A GGUF file that holds nothing but a WordPiece vocabulary."""
    writer = gguf.GGUFWriter(path, "bert")
    add_word_piece(writer)
    return finish(writer, path, None)


def write_byte_level(path: Path, pre: str | None, *, template: str | None = None) -> Path:
    """A GGUF file that holds nothing but a byte-level vocabulary."""
    vocabulary = byte_level(whole_words=pre in BY_NAME and BY_NAME[pre].whole_words)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types([SPECIAL.get(token, NORMAL) for token in vocabulary.tokens])
    writer.add_token_merges([f"{left} {right}" for left, right in vocabulary.merges])
    writer.add_bos_token_id(vocabulary.tokens.index("<|endoftext|>"))
    writer.add_eos_token_id(vocabulary.tokens.index("<|im_end|>"))
    return finish(writer, path, template)


def write_sentencepiece(path: Path, *, add_space_prefix: bool | None = None, template: str | None = None) -> Path:
    """A GGUF file that holds nothing but a sentencepiece vocabulary."""
    texts, scores, types = zip(*sentencepiece().tokens, strict=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(texts)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if add_space_prefix is not None:
        writer.add_add_space_prefix(add_space_prefix)
    return finish(writer, path, template)


def finish(writer: gguf.GGUFWriter, path: Path, template: str | None) -> Path:
    if template is not None:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def golden_vocabularies() -> dict[str, Callable[[Path], Path]]:
    """The vocabularies whose tokens are compared with llama.cpp's, by name."""
    byte_level = {
        family.name: partial(write_byte_level, pre=None if family.name == "default" else family.name)
        for family in FAMILIES
        if family.name not in CASED
    }
    return {
        **byte_level,
        "sentencepiece": write_sentencepiece,
        "sentencepiece without a blank": partial(write_sentencepiece, add_space_prefix=False),
        "word pieces": write_word_piece,
    }


def golden_texts() -> list[str]:
    return texts(300, seed=2, longest=5)


def fingerprint() -> str:
    """Changes when the vocabularies or the texts change, and the goldens with them."""
    made = (byte_level(), byte_level(whole_words=True), sentencepiece(), word_piece(), golden_texts())
    return hashlib.sha256(repr(made).encode()).hexdigest()
