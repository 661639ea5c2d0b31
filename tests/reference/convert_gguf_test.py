#!/usr/bin/env python3
"""Checks scripts/convert_gguf.py: what is written to GGUF as llama.cpp does it comes back, bit for bit.

Usage: convert_gguf_test.py

The models are the tiny ones of families/. Exit status 1 where one does not come back.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter, TokenType
from safetensors import deserialize
from tiny_tensors import tensor_values
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
CONVERTER = HERE.parent.parent / "scripts" / "convert_gguf.py"
# Family -> architecture in GGUF.
FAMILIES = {"llama2": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3"}
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
GEMMA_NAMES = NAMES | {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
# Settings that must come back as they were.
CONFIG_KEYS = (
    "architectures", "eos_token_id", "head_dim", "hidden_act", "hidden_activation", "hidden_size", "intermediate_size",
    "max_position_embeddings", "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "rms_norm_eps",
    "sliding_window", "tie_word_embeddings", "use_sliding_window", "vocab_size",
)  # fmt: skip


def gguf_name(name: str, architecture: str) -> str:
    """llama.cpp's name of a tensor."""
    names = GEMMA_NAMES if architecture == "gemma3" else NAMES
    stem, _, kind = name.rpartition(".")
    if stem.startswith("model.layers."):
        _, _, layer, inner = stem.split(".", 3)
        return f"blk.{layer}.{names[inner]}.{kind}"
    return f"{names[stem]}.{kind}"


def interleave_halves(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """What llama.cpp's converter does to the query and key projections of Llama."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def weights_of(record: dict[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
    """All tensors of a tiny model by Hugging Face's names."""
    return {
        name: tensor_values(name, int(np.prod(entry["shape"])), entry["mean"], entry["deviation"]).reshape(
            entry["shape"]
        )
        for name, entry in record["tensors"].items()
    }


def write_tokens(writer: GGUFWriter, count: int, architecture: str) -> None:
    """A vocabulary of the kind that the architecture has."""
    letters = [chr(ord("a") + i) for i in range(26)]
    pieces = ["<bos>", "<eos>", "<unk>", "\u2581", *letters, "ab", "abc", "\u2581abc", "  "]
    tokens = pieces + [f"<unused{i}>" for i in range(count - len(pieces))]
    types = [TokenType.CONTROL if token.startswith("<") else TokenType.NORMAL for token in tokens]
    types[tokens.index("  ")] = TokenType.USER_DEFINED
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(count - 1)
    if architecture == "gemma3":
        writer.add_tokenizer_model("llama")
        writer.add_token_scores([-float(len(token) < 2) * 9 - i / 1000 for i, token in enumerate(tokens)])
        writer.add_unk_token_id(2)
        writer.add_add_space_prefix(False)
        writer.add_add_bos_token(True)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_merges(["a b", "ab c"])


def write_gguf(record: dict[str, Any], architecture: str, path: Path) -> None:
    """Writes a tiny model as llama.cpp's converter does, in fp32."""
    config = record["config"]
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if config.get("head_dim"):
        writer.add_key_length(config["head_dim"])
    if architecture == "gemma3":
        writer.add_sliding_window(config["sliding_window"])
    write_tokens(writer, config["vocab_size"], architecture)
    for name, values in weights_of(record).items():
        written = values
        for projection, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if architecture == "llama" and projection in name:
                written = interleave_halves(values, config[heads])
        if architecture == "gemma3" and "norm" in name:
            written = values + np.float32(1)
        writer.add_tensor(gguf_name(name, architecture), np.ascontiguousarray(written))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def differences(record: dict[str, Any], architecture: str, directory: Path) -> list[str]:
    """What did not come back."""
    found = []
    config = json.loads((directory / "config.json").read_text())
    expected = record["config"]
    for key in CONFIG_KEYS:
        if key in expected and expected[key] is not None and config.get(key) != expected[key]:
            found.append(f"{key} is {config.get(key)}, was {expected[key]}")
    read: Any = deserialize  # has no types
    tensors = {name: entry["data"] for name, entry in read((directory / "model.safetensors").read_bytes())}
    weights = weights_of(record)
    if set(tensors) != set(weights):
        found.append(f"tensors {sorted(set(tensors) ^ set(weights))}")
    for name, values in weights.items():
        bits = (np.ascontiguousarray(values).view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes()
        # 1 + w keeps the last bits of small weights only in part.
        if architecture == "gemma3" and "norm" in name:
            got = (np.frombuffer(tensors[name], "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
            if np.abs(got - values.ravel()).max() > 2.0**-23:
                found.append(f"the values of {name}")
        elif bytes(tensors[name]) != bits:
            found.append(f"the values of {name}")
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    wanted = ["<bos>", "\u2581\u2581", "\u2581abc", "d"] if architecture == "gemma3" else ["abc", "d"]
    text = "   abcd" if architecture == "gemma3" else "abcd"
    if tokenizer.encode(text).tokens != wanted:
        found.append(f"'{text}' is {tokenizer.encode(text).tokens}, not {wanted}")
    return found


def main() -> int:
    """Runs all families."""
    failed = False
    for family, architecture in FAMILIES.items():
        record = json.loads((HERE / "families" / f"{family}.json").read_text())
        with tempfile.TemporaryDirectory() as folder:
            gguf = Path(folder) / "model.gguf"
            write_gguf(record, architecture, gguf)
            converted = Path(folder) / "converted"
            subprocess.run([sys.executable, str(CONVERTER), str(gguf), str(converted)], check=True)
            found = differences(record, architecture, converted)
        failed = failed or bool(found)
        print(f"{family}: {'; '.join(found) or 'came back'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
