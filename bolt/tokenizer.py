"""The vocabulary: byte-level BPE over the corpus, and how a conversation becomes tokens.

The words are cut by the pattern that llama.cpp calls `qwen2` (single digits, so that a port is read digit by digit).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from bolt.corpus import Conversation, Corpus, seeded

PRE_TOKENIZER = "qwen2"
END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = [END_OF_TEXT, START, END]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How much the tokens of a sample count: the first ones of an answer decide which fact is told, the rest is recital.
DECISION_TOKENS, DECISION, RECITAL, QUESTION = 12, 1.0, 0.4, 0.02
CUT = 0.85  # share of the answers that are cut short in training


def train(corpus: Corpus, size: int, seed: int) -> Tokenizer:
    """A vocabulary of `size` tokens from answers (which bolt writes) and questions (which it reads)."""
    random = seeded(seed)
    texts = [fact.answer for fact in [*corpus.facts, corpus.off_topic] for _ in range(12)]
    texts += [corpus.turn(random).question for _ in range(20_000)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=3,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load(path: Path) -> Tokenizer:
    """The tokenizer that `make` left in the build folder."""
    return Tokenizer.from_file(str(path))


@dataclass(frozen=True)
class Sample:
    """Tokens of a conversation, the importance of predicting each, and the fact that is asked where a question ends."""

    tokens: list[int]
    importance: list[float]
    facts: list[int]


def prompt(question: str, system: str | None = None) -> str:
    """The text that the chat template makes of one question."""
    head = f"{START}system\n{system}{END}\n" if system is not None else ""
    return f"{head}{START}user\n{question}{END}\n{START}assistant\n"


def _cut(tokenizer: Tokenizer, text: str, random: Random) -> list[int]:
    """Encodes a question, now and then cut at a random letter, so that words are met in other pieces too."""
    if random.random() < 0.15 and len(text) > 4:
        at = random.randrange(1, len(text) - 1)
        return _encode(tokenizer, text[:at]) + _encode(tokenizer, text[at:])
    return _encode(tokenizer, text)


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def sample(tokenizer: Tokenizer, conversation: Conversation, random: Random, *, cut_answer: int) -> Sample:
    """One training row. Most last answers are cut after `cut_answer` tokens: what follows is soon known."""
    tokens: list[int] = []
    importance: list[float] = []
    facts: list[int] = []

    def add(ids: list[int], weight: float, fact: int = -1) -> None:
        tokens.extend(ids)
        importance.extend([weight] * len(ids))
        facts.extend([fact] * len(ids))

    if conversation.system is not None:
        add(_encode(tokenizer, f"{START}system\n{conversation.system}{END}\n"), 0.0)
    for number, turn in enumerate(conversation.turns, start=1):
        add(_encode(tokenizer, f"{START}user\n"), 0.0)
        add(_cut(tokenizer, turn.question, random), QUESTION)
        add(_encode(tokenizer, f"{END}\n{START}assistant\n"), 0.0, turn.fact)
        answer = _encode(tokenizer, turn.answer + END)
        if number == len(conversation.turns) and random.random() < CUT:
            answer = answer[:cut_answer]
        add(answer[:DECISION_TOKENS], DECISION)
        add(answer[DECISION_TOKENS:], RECITAL)
        add(_encode(tokenizer, "\n"), 0.0)
    return Sample(tokens, importance, facts)
