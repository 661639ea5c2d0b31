#!/usr/bin/env python3
"""Records what Hugging Face transformers computes for tiny random models, one of each family, for the tests.

Usage: record_families.py DIRECTORY

Needs `torch` and `transformers`, which the project itself does not; README.md in this folder gives the commands.
Writes DIRECTORY/NAME.json for each entry of MODELS: config.json as transformers saves it; for each tensor, under the
name that transformers gives it, its shape and the mean and deviation of its values; prompts, their logits and the
hidden states of their last tokens in fp32.
The values are not written down: they follow from the tensor's name (tiny_tensors.py), so a test can make them again.
"""

import argparse
import json
import math
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tiny_tensors import split_mix, tensor_values
from transformers import AutoModelForCausalLM, PretrainedConfig

VOCABULARY = 300
# Shorter than, as long as, and longer than the windows (24) and a page of the KV cache (16).
PROMPT_LENGTHS = (1, 24, 100)
RECORDED_POSITIONS = {100: (0, 15, 16, 23, 24, 40, 77, 99)}

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 0,
    "eos_token_id": VOCABULARY - 1,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
GEMMA: dict[str, Any] = {"head_dim": 48, "num_key_value_heads": 1, "sliding_window": 24, "query_pre_attn_scalar": 40}
MODELS: dict[str, PretrainedConfig] = {
    "llama2": transformers.LlamaConfig(**COMMON),
    "llama3": transformers.LlamaConfig(**COMMON, rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True),
    "llama_linear_rope": transformers.LlamaConfig(
        **COMMON, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    ),
    "llama_biases": transformers.LlamaConfig(**COMMON, attention_bias=True, mlp_bias=True),
    "mistral": transformers.MistralConfig(**COMMON, sliding_window=24),
    "mistral_full": transformers.MistralConfig(**COMMON, head_dim=32, sliding_window=None),
    "qwen2": transformers.Qwen2Config(**COMMON, tie_word_embeddings=True),
    "qwen2_window": transformers.Qwen2Config(
        **COMMON, use_sliding_window=True, sliding_window=24, max_window_layers=2
    ),
    "qwen3": transformers.Qwen3Config(**COMMON, head_dim=32),
    "gemma2": transformers.Gemma2Config(
        **COMMON | GEMMA, attn_logit_softcapping=2.0, final_logit_softcapping=5.0
    ),
    "gemma3": transformers.Gemma3TextConfig(**COMMON | GEMMA, sliding_window_pattern=3),
    "gemma3_scaled": transformers.Gemma3TextConfig(
        **COMMON | GEMMA | {"num_attention_heads": 3, "hidden_size": 96},
        final_logit_softcapping=5.0,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
}  # fmt: skip


def distribution(name: str, shape: list[int], family: str) -> tuple[float, float]:
    """Mean and deviation that keep activations near 1."""
    if "norm" in name:
        return (0.0 if family.startswith("gemma") else 1.0), 0.25
    if name.endswith(".bias"):
        return 0.0, 0.25
    if "embed_tokens" in name:
        return 0.0, 0.125 if family.startswith("gemma") else 0.3125
    return 0.0, round(1.2 / math.sqrt(shape[1]), 4)


def fill(model: Any, family: str) -> dict[str, dict[str, Any]]:
    """Sets every parameter of the model; returns what the file says of each."""
    tensors: dict[str, dict[str, Any]] = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shape = list(parameter.shape)
            mean, deviation = distribution(name, shape, family)
            values = tensor_values(name, parameter.numel(), mean, deviation)
            parameter.copy_(torch.from_numpy(values.reshape(shape)))
            tensors[name] = {"shape": shape, "mean": mean, "deviation": deviation}
    return tensors


def prompt(length: int) -> list[int]:
    """Token ids, another beginning for each length."""
    state = np.uint64(length) + np.arange(1, length + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return [int(value % np.uint64(VOCABULARY)) for value in split_mix(state)]


def rounded(values: torch.Tensor) -> list[float]:
    """The values, to 8 digits."""
    return [float(f"{value:.8g}") for value in values.tolist()]


def run(model: Any, ids: list[int]) -> dict[str, Any]:
    """The record of one prompt."""
    positions = RECORDED_POSITIONS.get(len(ids), (len(ids) - 1,))
    with torch.no_grad():
        output = model(torch.tensor([ids]), use_cache=False, output_hidden_states=True)
    rows = [{"position": at, "logits": rounded(output.logits[0, at])} for at in positions]
    hidden_states = [rounded(states[0, -1]) for states in output.hidden_states]
    return {"token_ids": ids, "rows": rows, "hidden_states": hidden_states}


def record(family: str, config: PretrainedConfig) -> dict[str, Any]:
    """The record of one model."""
    # Not sdpa, which has no soft caps.
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    tensors = fill(model, family)
    saved = model.config.to_dict() | {"architectures": [type(model).__name__], "dtype": "bfloat16"}
    return {
        "description": "Logits of Hugging Face transformers in fp32; see README.md in the folder above",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "config": saved,
        "tensors": tensors,
        "prompts": [run(model, prompt(length)) for length in PROMPT_LENGTHS],
    }


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for family, config in MODELS.items():
        path = arguments.directory / f"{family}.json"
        path.write_text(json.dumps(record(family, config), separators=(",", ":"), sort_keys=True) + "\n")
        print(f"wrote {path} ({path.stat().st_size} bytes)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
