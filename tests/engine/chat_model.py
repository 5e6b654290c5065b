"""A chat model with random weights, made on the spot: a token for each byte, one for "th", and the special ones of ChatML.

What it says makes no sense, but at temperature 0 it always says the same.
"""

from pathlib import Path
from typing import Final

import gguf
import numpy as np

from .families import BlockType
from .fixtures import Noise, random_blocks
from .vocabularies import CONTROL, NORMAL, SPECIAL, alphabet

TOKENS: Final = (*alphabet(), "th", *SPECIAL)
LETTERS: Final = tuple(TOKENS.index(letter) for letter in "abcdefghijklmnopqrstuvwxyz")
CONTEXT: Final = 4096
TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADS, KV_HEADS, HEAD_WIDTH = 4, 2, 64
WIDTH = HEADS * HEAD_WIDTH


def write_chat_model(path: Path, *, layers: int = 4, feed_forward: int = 768) -> Path:
    """With the defaults 3.3 million weights, in Q8_0."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random chat")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    _write_shape(writer, layers, feed_forward)
    _write_vocabulary(writer)
    _write_tensors(writer, layers, feed_forward)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_shape(writer: gguf.GGUFWriter, layers: int, feed_forward: int) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(TOKENS))


def _write_vocabulary(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([SPECIAL.get(token, NORMAL) for token in TOKENS])
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(TOKENS.index("<|im_end|>"))
    writer.add_chat_template(TEMPLATE)
    assert SPECIAL["<|im_end|>"] == CONTROL


def _write_tensors(writer: gguf.GGUFWriter, layers: int, feed_forward: int) -> None:
    noise = Noise(1)

    def matrix(name: str, rows: int, columns: int) -> None:
        blocks = random_blocks(noise, BlockType.Q8_0, rows, columns, 1 / 8)
        writer.add_tensor(f"{name}.weight", blocks, raw_dtype=BlockType.Q8_0)

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))

    matrix("token_embd", len(TOKENS), WIDTH)
    matrix("output", len(TOKENS), WIDTH)
    norm("output_norm")
    for layer in range(layers):
        prefix = f"blk.{layer}"
        norm(f"{prefix}.attn_norm")
        norm(f"{prefix}.ffn_norm")
        matrix(f"{prefix}.attn_q", WIDTH, WIDTH)
        matrix(f"{prefix}.attn_k", KV_HEADS * HEAD_WIDTH, WIDTH)
        matrix(f"{prefix}.attn_v", KV_HEADS * HEAD_WIDTH, WIDTH)
        matrix(f"{prefix}.attn_output", WIDTH, WIDTH)
        matrix(f"{prefix}.ffn_gate", feed_forward, WIDTH)
        matrix(f"{prefix}.ffn_up", feed_forward, WIDTH)
        matrix(f"{prefix}.ffn_down", WIDTH, feed_forward)
