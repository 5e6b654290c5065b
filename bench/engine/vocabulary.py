"""A byte-level vocabulary of any size, made by rule: every byte, then pairs and triples of ASCII, the commonest letters first.

It takes any text, and has the roles and the chat template that a server needs. Nearly every token is whole characters, so
that an engine that holds back halves of characters shows an answer's tokens one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gguf

    from .shapes import Shape

NORMAL, CONTROL = 1, 3
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The commonest first, so that early merges are those a text meets.
FREQUENT = b" etaoinshrdlcumwfgypbvkjxqz"


def letters() -> dict[int, str]:
    """The printable character that stands for each byte in byte-level vocabularies."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + index) for index, byte in enumerate(rest)}


def merges() -> Iterator[tuple[str, str]]:
    """Pairs of ASCII bytes, then pairs followed by one more."""
    shown = letters()
    order = [shown[byte] for byte in [*FREQUENT, *(byte for byte in range(128) if byte not in FREQUENT)]]
    for left in order:
        yield from ((left, right) for right in order)
    for left in order:
        for middle in order:
            yield from ((left + middle, right) for right in order)


def write_vocabulary(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """The tokenizer's keys, for exactly as many tokens as the shape has."""
    pairs = list(islice(merges(), shape.vocabulary - 256 - len(SPECIAL)))
    tokens = [*letters().values(), *(left + right for left, right in pairs), *SPECIAL]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(shape.splitting)
    writer.add_token_list(tokens)
    writer.add_token_types([NORMAL] * (len(tokens) - len(SPECIAL)) + [CONTROL] * len(SPECIAL))
    writer.add_token_merges([f"{left} {right}" for left, right in pairs])
    writer.add_bos_token_id(len(tokens) - 3)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
