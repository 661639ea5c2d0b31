#!/usr/bin/env python3
"""Converts a GGUF file to a Hugging Face model directory with bfloat16 weights.

Usage: convert_gguf.py MODEL.gguf DIRECTORY

DIRECTORY gets config.json, generation_config.json, tokenizer.json, tokenizer_config.json, special_tokens_map.json,
model.safetensors and, where the file has one, chat_template.jinja. The same input and the same package versions
(scripts/requirements/python.txt) give the same bytes, so that callers can pin checksums. Quantised weights are
dequantised to fp32 and rounded to the nearest bfloat16, ties to even.

What is not known to convert correctly (an architecture, a tensor, a tokenizer model, a pre-tokenizer) is refused with
exit status 1, never guessed. A further architecture is one more entry in ARCHITECTURES; a further pre-tokenizer one
more in PRE_TOKENIZERS; a further tokenizer model one more in TOKENIZER_MODELS.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, TokenType, dequantize
from safetensors import TensorSpec, serialize_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

Float32Array = npt.NDArray[np.float32]


class ConversionError(Exception):
    """The file cannot be converted; the message says what about it is not supported."""


class Metadata:
    """Typed access to the key-value pairs of a GGUF file."""

    def __init__(self, reader: GGUFReader) -> None:
        self._fields = reader.fields

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, or `default` where the file does not have it."""
        field = self._fields.get(key)
        return default if field is None else field.contents()

    def require(self, key: str) -> Any:
        """The value of `key`; raises ConversionError where the file does not have it."""
        value = self.get(key)
        if value is None:
            raise ConversionError(f"the file has no '{key}'")
        return value

    def keys_below(self, prefix: str) -> set[str]:
        """The keys that start with `prefix`."""
        return {key for key in self._fields if key.startswith(prefix)}


@dataclass(frozen=True)
class Architecture:
    """How the weights and the configuration of one GGUF architecture are called in Hugging Face's form."""

    config: Callable[[Metadata, set[str]], dict[str, Any]]
    global_tensors: dict[str, str]
    layer_tensors: dict[str, str]
    # Tensor in a layer -> config key with its number of heads: llama.cpp interleaves the halves of these heads.
    permuted_heads: dict[str, str] = field(default_factory=dict)
    # What llama.cpp adds to the weights of the norms.
    norm_offset: float = 0.0


# The settings below "llama." and the like that common_config reads.
COMMON_SETTINGS = {
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
    "attention.layer_norm_rms_epsilon", "block_count", "context_length", "embedding_length", "feed_forward_length",
    "rope.dimension_count", "rope.freq_base", "vocab_size",
}  # fmt: skip


def common_config(metadata: Metadata, tensors: set[str], name: str, more_settings: set[str]) -> dict[str, Any]:
    """What every family's config.json has; raises ConversionError for settings that nothing here describes."""
    known = {f"{name}.{key}" for key in COMMON_SETTINGS | more_settings}
    unknown = metadata.keys_below(f"{name}.") - known
    if unknown:
        raise ConversionError(f"unknown settings of the {name} architecture: {', '.join(sorted(unknown))}")
    hidden = int(metadata.require(f"{name}.embedding_length"))
    heads = int(metadata.require(f"{name}.attention.head_count"))
    head_dim = int(metadata.get(f"{name}.attention.key_length", hidden // heads))
    if int(metadata.get(f"{name}.rope.dimension_count", head_dim)) != head_dim:
        raise ConversionError("rotary embedding of a part of the head is not supported")
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": int(metadata.require("tokenizer.ggml.bos_token_id")),
        "dtype": "bfloat16",
        "eos_token_id": int(metadata.require("tokenizer.ggml.eos_token_id")),
        "head_dim": head_dim,
        "hidden_size": hidden,
        "intermediate_size": int(metadata.require(f"{name}.feed_forward_length")),
        "max_position_embeddings": int(metadata.require(f"{name}.context_length")),
        "num_attention_heads": heads,
        "num_hidden_layers": int(metadata.require(f"{name}.block_count")),
        "num_key_value_heads": int(metadata.get(f"{name}.attention.head_count_kv", heads)),
        "pad_token_id": int(metadata.get("tokenizer.ggml.padding_token_id", 0)),
        "rms_norm_eps": float(f"{float(metadata.require(f'{name}.attention.layer_norm_rms_epsilon')):.6g}"),
        "rope_scaling": None,
        "rope_theta": float(metadata.get(f"{name}.rope.freq_base", 10000.0)),
        "tie_word_embeddings": "output.weight" not in tensors,
        "use_cache": True,
        "vocab_size": len(metadata.require("tokenizer.ggml.tokens")),
    }


def llama_config(metadata: Metadata, tensors: set[str]) -> dict[str, Any]:
    """config.json of a Llama model."""
    family = {"architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "mlp_bias": False, "model_type": "llama"}
    return common_config(metadata, tensors, "llama", set()) | family


def qwen2_config(metadata: Metadata, tensors: set[str]) -> dict[str, Any]:
    """config.json of a Qwen 2 or 2.5 model. GGUF has no windows, which these models do not use."""
    config = common_config(metadata, tensors, "qwen2", set())
    del config["attention_bias"]
    return config | {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_act": "silu",
        "model_type": "qwen2",
        "use_sliding_window": False,
    }


def qwen3_config(metadata: Metadata, tensors: set[str]) -> dict[str, Any]:
    """config.json of a Qwen 3 model."""
    family = {
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_act": "silu",
        "model_type": "qwen3",
        "use_sliding_window": False,
    }
    return common_config(metadata, tensors, "qwen3", set()) | family


def gemma3_config(metadata: Metadata, tensors: set[str]) -> dict[str, Any]:
    """config.json of a text model of Gemma 3. What GGUF leaves out is what llama.cpp assumes."""
    scaling_settings = {"rope.scaling.type", "rope.scaling.factor"}
    config = common_config(metadata, tensors, "gemma3", {"attention.sliding_window", *scaling_settings})
    layers = config["num_hidden_layers"]
    scaling = metadata.get("gemma3.rope.scaling.type", "none")
    if scaling not in {"none", "linear"}:
        raise ConversionError(f"rope scaling of type '{scaling}' is not supported")
    if scaling == "linear":
        factor = float(metadata.require("gemma3.rope.scaling.factor"))
        config["rope_scaling"] = {"rope_type": "linear", "factor": factor}
    # The model of 27 billion parameters scales by the width of a head if it were hidden_size / heads.
    is_largest = layers == 62
    scalar = config["hidden_size"] // config["num_attention_heads"] if is_largest else config["head_dim"]
    return config | {
        "architectures": ["Gemma3ForCausalLM"],
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "hidden_activation": "gelu_pytorch_tanh",
        "layer_types": ["sliding_attention" if (i + 1) % 6 else "full_attention" for i in range(layers)],
        "model_type": "gemma3_text",
        "query_pre_attn_scalar": scalar,
        "rope_local_base_freq": 10000.0,
        "sliding_window": int(metadata.require("gemma3.attention.sliding_window")),
    }


GLOBAL_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_TENSORS = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
ARCHITECTURES = {
    "llama": Architecture(
        config=llama_config,
        global_tensors=GLOBAL_TENSORS,
        layer_tensors=LAYER_TENSORS | {"ffn_norm.weight": "post_attention_layernorm.weight"},
        permuted_heads={"attn_q.weight": "num_attention_heads", "attn_k.weight": "num_key_value_heads"},
    ),
    "qwen2": Architecture(
        config=qwen2_config,
        global_tensors=GLOBAL_TENSORS,
        layer_tensors=LAYER_TENSORS
        | {
            "attn_q.bias": "self_attn.q_proj.bias",
            "attn_k.bias": "self_attn.k_proj.bias",
            "attn_v.bias": "self_attn.v_proj.bias",
            "ffn_norm.weight": "post_attention_layernorm.weight",
        },
    ),
    "qwen3": Architecture(
        config=qwen3_config,
        global_tensors=GLOBAL_TENSORS,
        layer_tensors=LAYER_TENSORS
        | {
            "attn_q_norm.weight": "self_attn.q_norm.weight",
            "attn_k_norm.weight": "self_attn.k_norm.weight",
            "ffn_norm.weight": "post_attention_layernorm.weight",
        },
    ),
    "gemma3": Architecture(
        config=gemma3_config,
        global_tensors=GLOBAL_TENSORS,
        layer_tensors=LAYER_TENSORS
        | {
            "attn_q_norm.weight": "self_attn.q_norm.weight",
            "attn_k_norm.weight": "self_attn.k_norm.weight",
            "post_attention_norm.weight": "post_attention_layernorm.weight",
            "ffn_norm.weight": "pre_feedforward_layernorm.weight",
            "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
        },
        norm_offset=1.0,
    ),
}


def smollm_pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """Single digits, then the byte-level alphabet with GPT-2's regular expression."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def regex_pre_tokenizer(pattern: str) -> pre_tokenizers.PreTokenizer:
    """Words by a regular expression, then the byte-level alphabet."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS: dict[str, Callable[[], Any]] = {
    "smollm": smollm_pre_tokenizer,
    "qwen2": lambda: regex_pre_tokenizer(QWEN2_WORDS),
}
# Pre-tokenizers before which text is brought into Unicode's normal form C.
NORMALIZED = {"qwen2"}


def undo_head_permutation(weight: Float32Array, heads: int) -> Float32Array:
    """Rows of a query or key projection from llama.cpp's order (pairs interleaved) to Hugging Face's (halves)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def to_bfloat16(values: Float32Array) -> npt.NDArray[np.uint16]:
    """Bit patterns of the nearest bfloat16, ties to even; raises ConversionError for values that are not finite."""
    if not np.isfinite(values).all():
        raise ConversionError("a weight is not finite")
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return ((bits + half) >> np.uint32(16)).astype(np.uint16)


def huggingface_name(name: str, architecture: Architecture) -> tuple[str, str]:
    """Hugging Face's name of a GGUF tensor, and the tensor's name inside its layer ("" outside of layers)."""
    if name in architecture.global_tensors:
        return architecture.global_tensors[name], ""
    prefix, _, rest = name.partition(".")
    layer, _, inner = rest.partition(".")
    if prefix == "blk" and layer.isdigit() and inner in architecture.layer_tensors:
        return f"model.layers.{layer}.{architecture.layer_tensors[inner]}", inner
    raise ConversionError(f"tensor '{name}' has no known place in this architecture")


def require_complete(names: set[str], config: dict[str, Any], architecture: Architecture) -> None:
    """Raises ConversionError unless every tensor of the architecture is among `names`."""
    expected = {name for name in architecture.global_tensors if name != "output.weight"}
    for layer in range(config["num_hidden_layers"]):
        expected |= {f"blk.{layer}.{name}" for name in architecture.layer_tensors}
    missing = sorted(expected - names)
    if missing:
        raise ConversionError(f"{len(missing)} tensors are missing, the first is '{missing[0]}'")


def convert_weights(reader: GGUFReader, config: dict[str, Any], architecture: Architecture, path: Path) -> None:
    """Writes every tensor of the file to `path` as bfloat16 safetensors."""
    require_complete({tensor.name for tensor in reader.tensors}, config, architecture)
    tensors: dict[str, npt.NDArray[np.uint16]] = {}
    for tensor in reader.tensors:
        name, inner = huggingface_name(tensor.name, architecture)
        values = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        if inner in architecture.permuted_heads:
            values = undo_head_permutation(values, config[architecture.permuted_heads[inner]])
        if tensor.name.endswith("norm.weight"):
            values = values - np.float32(architecture.norm_offset)
        tensors[name] = to_bfloat16(values)
    # A spec holds a bare address: `tensors` has to outlive the call.
    specs = {
        name: TensorSpec(dtype="bfloat16", shape=bits.shape, data_ptr=bits.ctypes.data, data_len=bits.nbytes)
        for name, bits in tensors.items()
    }
    serialize_file(specs, str(path), metadata={"format": "pt"})


# What SentencePiece writes for a space.
SPACE = "\u2581"


def special_tokens(metadata: Metadata) -> dict[int, AddedToken]:
    """The control tokens of the file by id: matched verbatim in text, never split, skipped when decoding."""
    tokens = metadata.require("tokenizer.ggml.tokens")
    types = metadata.require("tokenizer.ggml.token_type")
    return {
        index: AddedToken(token, special=True, normalized=False)
        for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind == TokenType.CONTROL
    }


def require_token_types(metadata: Metadata, supported: set[TokenType]) -> None:
    """Raises ConversionError unless every token is of one of these types."""
    other = {int(kind) for kind in metadata.require("tokenizer.ggml.token_type")} - {int(kind) for kind in supported}
    if other:
        raise ConversionError(f"tokens of type {sorted(other)} are not supported")


def build_byte_level_tokenizer(metadata: Metadata) -> Tokenizer:
    """The byte-level BPE tokenizer that the file describes."""
    kind = metadata.require("tokenizer.ggml.pre")
    if kind not in PRE_TOKENIZERS:
        raise ConversionError(f"pre-tokenizer '{kind}' is not supported (known: {', '.join(PRE_TOKENIZERS)})")
    require_token_types(metadata, {TokenType.NORMAL, TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNUSED})
    vocabulary = {token: index for index, token in enumerate(metadata.require("tokenizer.ggml.tokens"))}
    merges = [tuple(merge.split(" ", 1)) for merge in metadata.require("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[kind]()
    if kind in NORMALIZED:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special_tokens(metadata).values()))
    kinds = metadata.require("tokenizer.ggml.token_type")
    defined = [token for token, kind in zip(vocabulary, kinds, strict=True) if kind == TokenType.USER_DEFINED]
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in defined])
    return tokenizer


def merges_of_scores(scores: dict[str, float], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The merges of a SentencePiece BPE model, best first: every way to make a scored piece of two pieces.

    Ties are broken as transformers' converter breaks them.
    """
    merges = []
    for piece, score in scores.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in scores and right in scores:
                merges.append((-score, len(left), len(right), vocabulary[left], vocabulary[right], left, right))
    return [(merge[5], merge[6]) for merge in sorted(merges, key=lambda merge: merge[:5])]


def build_sentencepiece_tokenizer(metadata: Metadata) -> Tokenizer:
    """The SentencePiece BPE tokenizer with byte fallback that the file describes."""
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        raise ConversionError("tokenizers that put a space before the text are not supported")
    require_token_types(metadata, {TokenType.NORMAL, TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.BYTE})
    kinds = metadata.require("tokenizer.ggml.token_type")
    # GGUF writes runs of spaces, which the user defined, as spaces.
    tokens = [token.replace(" ", SPACE) for token in metadata.require("tokenizer.ggml.tokens")]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise ConversionError("the vocabulary names a token twice")
    scores = {}
    for token, kind, score in zip(tokens, kinds, metadata.require("tokenizer.ggml.scores"), strict=True):
        if kind in {TokenType.NORMAL, TokenType.USER_DEFINED}:
            # User-defined pieces come before all others; GGUF replaces their score.
            scores[token] = 1.0 if kind == TokenType.USER_DEFINED else score
    unknown = tokens[metadata.require("tokenizer.ggml.unknown_token_id")]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=merges_of_scores(scores, vocabulary),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(list(special_tokens(metadata).values()))
    # Pieces that the user defined are found before all merging, the longest first; spaces only after the normalizer.
    defined = [token for token, kind in zip(tokens, kinds, strict=True) if kind == TokenType.USER_DEFINED]
    tokenizer.add_tokens([AddedToken(token, normalized=SPACE in token, special=False) for token in defined])
    return tokenizer


TOKENIZER_MODELS = {"gpt2": build_byte_level_tokenizer, "llama": build_sentencepiece_tokenizer}


def build_tokenizer(metadata: Metadata) -> Tokenizer:
    """The tokenizer that the file describes."""
    model = metadata.require("tokenizer.ggml.model")
    if model not in TOKENIZER_MODELS:
        raise ConversionError(f"tokenizer model '{model}' is not supported (known: {', '.join(TOKENIZER_MODELS)})")
    if metadata.get("tokenizer.ggml.add_eos_token", False):
        raise ConversionError("tokenizers that add a last token by themselves are not supported")
    tokenizer = TOKENIZER_MODELS[model](metadata)
    if metadata.get("tokenizer.ggml.add_bos_token", False):
        index = int(metadata.require("tokenizer.ggml.bos_token_id"))
        token = metadata.require("tokenizer.ggml.tokens")[index]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, index)]
        )
    return tokenizer


def special_token_names(metadata: Metadata) -> dict[str, str]:
    """The tokens with a role (bos, eos, unk, pad) that the file names."""
    tokens = metadata.require("tokenizer.ggml.tokens")
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    ids = {role: metadata.get(f"tokenizer.ggml.{key}_token_id") for role, key in roles.items()}
    return {f"{role}_token": tokens[index] for role, index in ids.items() if index is not None}


def tokenizer_config(metadata: Metadata, context_length: int) -> dict[str, Any]:
    """tokenizer_config.json; the chat template is in a file of its own."""
    special = special_tokens(metadata)
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(index): {"content": token.content, **flags} for index, token in special.items()},
        **special_token_names(metadata),
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_length,
        # Not GPT2Tokenizer: transformers 5 would rebuild the pre-tokenizer and lose the single digits.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "vocab_size": len(metadata.require("tokenizer.ggml.tokens")),
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes `value` with sorted keys, so that the bytes depend on the content only."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tokenizer(metadata: Metadata, directory: Path, context_length: int) -> None:
    """Writes the tokenizer, its settings and the chat template."""
    build_tokenizer(metadata).save(str(directory / "tokenizer.json"))
    write_json(directory / "tokenizer_config.json", tokenizer_config(metadata, context_length))
    write_json(directory / "special_tokens_map.json", special_token_names(metadata))
    template = metadata.get("tokenizer.chat_template")
    if template is not None:
        (directory / "chat_template.jinja").write_text(template, encoding="utf-8")


def convert(source: Path, directory: Path) -> None:
    """Converts `source` into the existing `directory`; raises ConversionError for what is not supported."""
    reader = GGUFReader(source)
    metadata = Metadata(reader)
    name = metadata.require("general.architecture")
    if name not in ARCHITECTURES:
        raise ConversionError(f"architecture '{name}' is not supported (known: {', '.join(ARCHITECTURES)})")
    architecture = ARCHITECTURES[name]
    config = architecture.config(metadata, {tensor.name for tensor in reader.tensors})
    write_json(directory / "config.json", config)
    roles = ("bos_token_id", "eos_token_id", "pad_token_id")
    write_json(directory / "generation_config.json", {"_from_model_config": True} | {key: config[key] for key in roles})
    write_tokenizer(metadata, directory, config["max_position_embeddings"])
    convert_weights(reader, config, architecture, directory / "model.safetensors")


def main() -> int:
    """Runs the command line; 0 on success, 1 where the file cannot be converted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the GGUF file")
    parser.add_argument("directory", type=Path, help="where to write; made if absent")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    try:
        convert(arguments.source, arguments.directory)
    except (ConversionError, OSError, ValueError) as error:
        print(f"convert_gguf: {arguments.source}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
