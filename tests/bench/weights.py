"""The formats of weights beside each other and beside llama.cpp's Q8_0: speed, and what each costs in quality."""

from pathlib import Path
from typing import Any, Protocol

from participants import Answer, Participant

FORMATS = ("bf16", "int8", "fp32")
CONTEXT = 512
BATCHES = (1, 8, 16)
MORE_STEPS = 32
# What is scored: the benchmark's own prompts, which are prose and a program, and two of the project's documents.
DOCUMENTS = ("docs/engine.md", "docs/constraints.md")
TOKENS_OF_A_TEXT = 1000
LIKELIEST = 400


class Measurer(Protocol):
    """What Comparison offers here."""

    def measure(self, label: str, participant: Participant, task: Answer) -> Answer:
        """One task of one participant, whose answer is kept."""


def texts(root: Path, prompts: list[list[int]]) -> list[Answer]:
    """The texts that every format scores."""
    documents = [{"text": (root / name).read_text(encoding="utf-8")} for name in DOCUMENTS]
    return [*({"ids": ids} for ids in prompts), *documents]


def measure_quality(measurer: Measurer, formats: list[Participant], scored: list[Answer]) -> None:
    """The log-probabilities that each format gives the same texts."""
    for number, text in enumerate(scored):
        task = {"task": "quality", "tokens": TOKENS_OF_A_TEXT, "top": LIKELIEST, **text}
        for participant in formats:
            measurer.measure(f"quality {number}", participant, task)


def measure_speed(
    measurer: Measurer, everyone: list[Participant], rounds: int, threads: int, batches: tuple[int, ...]
) -> None:
    """Decode and prefill at one context, all in turn in each round."""
    prefill: dict[str, Any] = {"task": "prefill", "tokens": CONTEXT, "batch": 1, "threads": threads}
    for _ in range(rounds):
        for participant in everyone:
            measurer.measure(f"weights-prefill {CONTEXT} x1 t{threads}", participant, prefill)
    for batch in batches:
        task = {"task": "decode", "tokens": CONTEXT, "batch": batch, "steps": MORE_STEPS, "threads": threads}
        for _ in range(rounds):
            for participant in everyone:
                measurer.measure(f"weights-decode {CONTEXT} x{batch} t{threads}", participant, task)
        for participant in everyone:
            participant.ask({"task": "release"})
