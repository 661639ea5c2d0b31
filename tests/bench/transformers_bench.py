#!/usr/bin/env python3
"""The benchmark's tasks on Hugging Face transformers, in this process.

Usage: transformers_bench.py MODEL_DIRECTORY PROMPTS.json DIRECTORY [--dtype bfloat16|float32]

Reads one task per line from standard input and answers each with one line on standard output, both JSON; compare.py
says which tasks there are. Saved caches are written to DIRECTORY. Decoding is a bare loop of forward passes and argmax,
which is faster than `generate()`.
"""

import argparse
import copy
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, DynamicCache

STRIDE = 97  # as in task_loop.h

Answer = dict[str, Any]


def seconds(work: Callable[[], Any]) -> float:
    """Wall-clock seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class TransformersBench:
    """The model, and the caches that decoding goes on from."""

    def __init__(self, model: Path, prompts: Path, directory: Path, dtype: str) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self.ids: list[int] = json.loads(prompts.read_text(encoding="utf-8"))
        self.directory = directory
        self.dtype = dtype
        self.kept: dict[tuple[int, int], Any] = {}  # by tokens and batch

    def describe(self) -> Answer:
        """What takes part."""
        attention = self.model.config._attn_implementation
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        return {**versions, "dtype": self.dtype, "attention": attention}

    def serve(self, task: Answer) -> Answer:
        """Runs one task."""
        if "threads" in task:
            torch.set_num_threads(task["threads"])
        handlers: dict[str, Callable[[Answer], Answer]] = {
            "prefill": self.prefill,
            "decode": self.decode,
            "save": self.save,
            "load": self.load,
            "branch": self.branch,
            "release": self.release,
        }
        with torch.inference_mode():
            return handlers[task["task"]](task)

    def sequence(self, index: int, length: int) -> list[int]:
        """The first `length` tokens of sequence `index`."""
        return [self.ids[(index * STRIDE + i) % len(self.ids)] for i in range(length)]

    def batch(self, tokens: int, batch: int) -> torch.Tensor:
        """Token ids [batch, tokens]."""
        return torch.tensor([self.sequence(index, tokens) for index in range(batch)])

    def compute(self, input_ids: torch.Tensor, cache: Any) -> torch.Tensor:
        """Feeds tokens [batch, tokens] and returns the most likely next ones [batch, 1]."""
        output = self.model(input_ids=input_ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        next_tokens: torch.Tensor = output.logits[:, -1].argmax(-1, keepdim=True)
        return next_tokens

    def prefill(self, task: Answer) -> Answer:
        """A whole prompt for each sequence of a batch, in one forward pass."""
        input_ids = self.batch(task["tokens"], task["batch"])
        return {"seconds": seconds(lambda: self.compute(input_ids, DynamicCache()))}

    def decode(self, task: Answer) -> Answer:
        """Steps of one token; every sequence goes on from a copy of the same prompt's cache."""
        tokens, batch, steps = task["tokens"], task["batch"], task["steps"]
        if (tokens, batch) not in self.kept:
            cache = DynamicCache()
            self.compute(self.batch(tokens, 1), cache)
            cache.batch_repeat_interleave(batch)
            self.kept[tokens, batch] = cache
        cache = self.kept[tokens, batch]
        next_tokens = self.compute(self.batch(1, batch), cache)
        cache.crop(-1)

        def run() -> None:
            step_tokens = next_tokens
            for _ in range(steps):
                step_tokens = self.compute(step_tokens, cache)

        elapsed = seconds(run)
        cache.crop(-steps)
        return {"seconds": elapsed}

    def file(self, task: Answer) -> Path:
        """Where the cache of a sequence is saved."""
        return self.directory / f"transformers-{task['tokens']}-{task['sequence']}.pt"

    def save(self, task: Answer) -> Answer:
        """torch.save of a cache (not synced, as it does it; and then the sync apart)."""
        cache = DynamicCache()
        self.compute(torch.tensor([self.sequence(task["sequence"], task["tokens"])]), cache)
        file = self.file(task)
        elapsed = seconds(lambda: torch.save([(layer.keys, layer.values) for layer in cache.layers], file))

        def sync() -> None:
            with file.open("rb") as stream:
                os.fsync(stream.fileno())

        return {"seconds": elapsed, "sync_seconds": elapsed + seconds(sync), "bytes": file.stat().st_size}

    def load(self, task: Answer) -> Answer:
        """torch.load into a cache that the model can go on with."""
        cache = DynamicCache()

        def run() -> None:
            for layer, (keys, values) in enumerate(torch.load(self.file(task))):
                cache.update(keys, values, layer)

        elapsed = seconds(run)
        if cache.get_seq_length() != task["tokens"]:
            raise ValueError("transformers cannot load a cache")
        return {"seconds": elapsed}

    def branch(self, task: Answer) -> Answer:
        """A copy of a cache, which is how one branches with transformers."""
        cache = DynamicCache()
        self.compute(self.batch(task["tokens"], 1), cache)
        return {"seconds": seconds(lambda: copy.deepcopy(cache)), "count": 1}

    def release(self, _task: Answer) -> Answer:
        """Forgets all caches."""
        self.kept.clear()
        return {}


def main() -> int:
    """Answers tasks until standard input ends."""
    parser = argparse.ArgumentParser(description="Hugging Face transformers' side of the benchmark.")
    parser.add_argument("model", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    arguments = parser.parse_args()
    bench = TransformersBench(arguments.model, arguments.prompts, arguments.directory, arguments.dtype)
    print(json.dumps(bench.describe()), flush=True)
    for line in sys.stdin:
        try:
            answer = bench.serve(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
