"""The GGUF file: written from the trained weights, and read back for evaluation.

Matrices are Q8_0, norms F32. There is no `output.weight`: the output is tied to the embedding.
"""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import jax.numpy as jnp
import numpy as np
from gguf import quants
from tokenizers import Tokenizer

from bolt import model
from bolt.tokenizer import END, END_OF_TEXT, PRE_TOKENIZER, SPECIAL, TEMPLATE

_QUANTISED = gguf.GGMLQuantizationType.Q8_0
_DESCRIPTION = "The built-in model of Quiver: answers questions about Quiver and nothing else."


def write(path: Path, shape: model.Shape, parameters: model.Parameters, tokenizer: Tokenizer) -> None:
    """Writes the whole model, tokenizer and chat template included, to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), "llama")
    _add_metadata(writer, shape)
    _add_tokenizer(writer, tokenizer)
    for name, values in parameters.items():
        if name == model.FACTS:
            continue
        matrix = np.asarray(values, dtype=np.float32)
        if matrix.ndim == 2:
            writer.add_tensor(name, quants.quantize(matrix, _QUANTISED), raw_dtype=_QUANTISED)
        else:
            writer.add_tensor(name, matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_metadata(writer: gguf.GGUFWriter, shape: model.Shape) -> None:
    writer.add_name("bolt")
    writer.add_description(_DESCRIPTION)
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(shape.vocabulary)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    described = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(described["vocab"], key=described["vocab"].__getitem__)
    kinds = [gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in described["merges"]])
    writer.add_bos_token_id(tokens.index(END_OF_TEXT))
    writer.add_eos_token_id(tokens.index(END))
    writer.add_pad_token_id(tokens.index(END_OF_TEXT))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def read(path: Path) -> tuple[model.Shape, model.Parameters]:
    """Shape and weights of the file, as a program that loads it sees them: after quantisation."""
    reader = gguf.GGUFReader(str(path))

    def number(key: str) -> float:
        return float(reader.fields[key].contents())

    shape = model.Shape(
        vocabulary=int(number("llama.vocab_size")),
        width=int(number("llama.embedding_length")),
        layers=int(number("llama.block_count")),
        heads=int(number("llama.attention.head_count")),
        hidden=int(number("llama.feed_forward_length")),
        rope_base=number("llama.rope.freq_base"),
        epsilon=number("llama.attention.layer_norm_rms_epsilon"),
        context=int(number("llama.context_length")),
    )
    weights = {item.name: jnp.asarray(quants.dequantize(item.data, item.tensor_type)) for item in reader.tensors}
    return shape, weights
