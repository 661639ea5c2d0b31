#!/usr/bin/env python3
"""Records logits of Hugging Face transformers for a model directory, as the oracle of the engine's tests.

Usage: record_reference.py [--lengths N,N...] [--float32-only] MODEL_DIRECTORY OUTPUT.json

Needs `torch` and `transformers`, which the project itself does not; README.md in this folder gives the commands.
What is recorded, for fp32 and for bf16 arithmetic on the same (bf16) weights:
  * prompts of 1 to 2,000 tokens, as token ids: the logits after the last token, and for some prompts after inner ones;
  * a greedy continuation of a chat, or of a sentence where the model has no chat template.
A row of logits is kept as its log-sum-exp, its largest 64 values, and the values at 512 fixed ids. The ids
that the texts gave are stored, so a test needs neither this program nor a tokenizer.
"""

import argparse
import inspect
import json
import platform
import random
import string
import sys
import textwrap
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

LENGTHS = (1, 2, 17, 128, 129, 500, 1000, 2000)
INNER_POSITIONS = {129: (0, 1, 15, 63, 126, 127), 1000: (0, 127, 128, 255, 511, 900)}
TOP_COUNT = 64
SAMPLE_COUNT = 512
SAMPLE_SEED = 20251122
SENTENCE = "The capital of France is"
QUESTION = "What is the capital of France? Answer in one sentence."
CONTINUATION_LENGTH = 16
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

PROSE = """The ferry left at 6:45 in the morning, ten minutes late, with 213 people and a grey dog on board. \
Nobody had told the captain about the fog. "We will go slowly," she said, "and we will arrive." In the kitchen \
someone dropped a tray of cups; the sound went through the ship like a bell. La mer était calme, das Wasser war \
grün, и никто не спал. An old man explained to a child how a compass works: the needle follows the Earth's \
magnetic field, and the field is made by molten iron that moves 2,900 kilometres below. "Is it always right?" \
asked the child. "It is always honest," said the man, "which is not the same." At noon the sun came through, the \
harbour appeared, and the dog began to bark.
"""
LIST = """Shopping list for the week: 12 eggs, 2 litres of milk, 500 g of flour, a jar of honey (local), rice, three \
lemons, 1.5 kg of potatoes. Temperatures: Monday 14 °C, Tuesday 16 °C, Wednesday 11 °C with rain 🌧️. 東京は晴れ。
"""


def texts() -> list[str]:
    """One text per entry of LENGTHS, each long enough for it, and no two with the same beginning."""
    code = inspect.getsource(textwrap)
    more_code = inspect.getsource(string)
    return ["Hello", "Once upon", LIST, PROSE, LIST + PROSE, more_code, PROSE + LIST + more_code, code + PROSE]


def prompt_ids(tokenizer: Any, lengths: set[int]) -> list[list[int]]:
    """Token ids of the prompts of these lengths, in the order of LENGTHS."""
    prompts = []
    for length, text in zip(LENGTHS, texts(), strict=True):
        if length not in lengths:
            continue
        ids = tokenizer.encode(text, add_special_tokens=False)
        if len(ids) < length:
            raise ValueError(f"the text for {length} tokens has only {len(ids)}")
        prompts.append(ids[:length])
    return prompts


def summarize_row(logits: torch.Tensor, position: int, sample_ids: list[int]) -> dict[str, Any]:
    """What is kept of one row of logits; `position` is the index of the token after which it stands."""
    row = logits.float()
    values, ids = torch.topk(row, TOP_COUNT)
    return {
        "position": position,
        "log_sum_exp": torch.logsumexp(row.double(), dim=-1).item(),
        "top_ids": ids.tolist(),
        "top_values": values.tolist(),
        "sample_values": row[sample_ids].tolist(),
    }


def compare_rows(exact: torch.Tensor, rounded: torch.Tensor) -> dict[str, float]:
    """How far the bf16 logits of one row are from the fp32 ones."""
    difference = (rounded.float() - exact).abs().double()
    log_p = torch.log_softmax(exact.double(), dim=-1)
    log_q = torch.log_softmax(rounded.double(), dim=-1)
    return {
        "max_abs": difference.max().item(),
        "rms": difference.square().mean().sqrt().item(),
        "kl": (log_p.exp() * (log_p - log_q)).sum().item(),
        "largest_logit": exact.abs().max().item(),
    }


def run_prompt(models: dict[str, Any], ids: list[int], sample_ids: list[int]) -> dict[str, Any]:
    """The record of one prompt: its ids, rows of both dtypes, and their difference."""
    positions = [*INNER_POSITIONS.get(len(ids), ()), len(ids) - 1]
    with torch.no_grad():
        rows = {name: model(torch.tensor([ids])).logits[0, positions] for name, model in models.items()}
    record: dict[str, Any] = {"token_ids": ids}
    for name, logits in rows.items():
        record[name] = [summarize_row(row, at, sample_ids) for row, at in zip(logits, positions, strict=True)]
    if "bfloat16" in rows:
        pairs = zip(rows["float32"], rows["bfloat16"], positions, strict=True)
        record["bfloat16_against_float32"] = [{"position": at} | compare_rows(a, b) for a, b, at in pairs]
    return record


def continue_greedily(model: Any, prompt: list[int]) -> dict[str, Any]:
    """CONTINUATION_LENGTH most likely tokens, going on past the end token, and by how much each won."""
    ids, margins, cache = [], [], None
    step = torch.tensor([prompt])
    with torch.no_grad():
        for _ in range(CONTINUATION_LENGTH):
            output = model(step, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            best = torch.topk(output.logits[0, -1].float(), 2)
            ids.append(int(best.indices[0]))
            margins.append((best.values[0] - best.values[1]).item())
            step = best.indices[:1].unsqueeze(0)
    return {"token_ids": ids, "margins": margins}


def record_chat(models: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """The record of the greedy continuation of QUESTION, or of SENTENCE."""
    messages = [{"role": "user", "content": QUESTION}] if tokenizer.chat_template else []
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) if messages else SENTENCE
    prompt = tokenizer.encode(text, add_special_tokens=not messages)
    continuations = {name: continue_greedily(model, prompt) for name, model in models.items()}
    return {"messages": messages, "text": text, "token_ids": prompt, "continuation": continuations}


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="which of the prompts, by their tokens")
    parser.add_argument("--float32-only", action="store_true", help="without bf16 arithmetic")
    parser.add_argument("model", type=Path, help="a Hugging Face model directory")
    parser.add_argument("output", type=Path, help="the JSON file to write")
    arguments = parser.parse_args()

    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    models = {
        name: transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype).eval()
        for name, dtype in DTYPES.items()
        if name == "float32" or not arguments.float32_only
    }
    vocabulary = models["float32"].config.vocab_size
    sample_ids = sorted(random.Random(SAMPLE_SEED).sample(range(vocabulary), SAMPLE_COUNT))
    prompts = []
    for ids in prompt_ids(tokenizer, {int(length) for length in arguments.lengths.split(",")}):
        prompts.append(run_prompt(models, ids, sample_ids))
        last = prompts[-1].get("bfloat16_against_float32", [{}])[-1]
        print(f"{len(ids):5} tokens, bf16 against fp32:", {name: round(value, 6) for name, value in last.items()})
    result = {
        "description": "Logits of Hugging Face transformers; see README.md beside this file",
        "command": f"record_reference.py {arguments.model.name} {arguments.output.name}",
        "versions": {
            "python": platform.python_version(),
            "tokenizers": tokenizers.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "attention": models["float32"].config._attn_implementation,
        "model": arguments.model.name,
        "vocabulary_size": vocabulary,
        "sample_ids": sample_ids,
        "prompts": prompts,
        "chat": record_chat(models, tokenizer),
    }
    arguments.output.write_text(json.dumps(result, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {arguments.output} ({arguments.output.stat().st_size} bytes)")
    for name, continuation in result["chat"]["continuation"].items():
        print(name, continuation["token_ids"], [round(margin, 2) for margin in continuation["margins"]])
    return 0


if __name__ == "__main__":
    sys.exit(main())
