"""The tables of the formats of weights."""

import math
from collections.abc import Iterable

from report import Figures, divided, speed, table, times
from weights import FORMATS

Answer = dict[str, object]
REFERENCE = "quicksave fp32"


def column(weights: str) -> str:
    """How Quicksave with these weights is called among the participants."""
    return f"quicksave {weights}"


def divergence(reference: Answer, other: Answer) -> float:
    """KL from the reference's distribution, in nats: over the tokens that both list, and the others as one.

    Taking tokens together can only make it smaller; what is taken together here has a few per cent of the probability.
    """
    others = dict(zip(other["ids"], other["logprobs"], strict=True))  # type: ignore[call-overload]
    total, rest, other_rest = 0.0, 1.0, 1.0
    for token, logprob in zip(reference["ids"], reference["logprobs"], strict=True):  # type: ignore[call-overload]
        if token not in others:
            continue
        total += math.exp(logprob) * (logprob - others[token])
        rest -= math.exp(logprob)
        other_rest -= math.exp(others[token])
    if rest > 1e-6 and other_rest > 1e-6:
        total += rest * math.log(rest / other_rest)
    return total


def scored_tokens(figures: Figures, who: str) -> list[Answer]:
    """All tokens of all texts."""
    labels = [f"quality {words[0]}" for words in figures.labels("quality")]
    return [token for label in labels for token in figures.answers(label, who)[0]["tokens"]]


def quality_rows(figures: Figures) -> Iterable[list[str]]:
    """Perplexity of each format, and how far it is from fp32."""
    reference = scored_tokens(figures, REFERENCE)
    for weights in FORMATS:
        tokens = scored_tokens(figures, column(weights))
        perplexity = math.exp(-sum(token["logprob"] for token in tokens) / len(tokens))  # type: ignore[misc]
        pairs = list(zip(reference, tokens, strict=True))
        same = sum(a["ids"][0] == b["ids"][0] for a, b in pairs)  # type: ignore[index]
        mean = sum(divergence(a, b) for a, b in pairs) / len(pairs)
        yield [
            weights,
            f"{len(tokens):,}",
            f"{perplexity:.3f}",
            *(("-", "-") if weights == "fp32" else (f"{same / len(pairs):.1%}", f"{mean:.5f}")),
        ]


def weights_speed_rows(figures: Figures, participants: list[str]) -> Iterable[list[str]]:
    """Tokens per second, and int8 against the others."""
    for kind in ("decode", "prefill"):
        for context, batch, threads in figures.labels(f"weights-{kind}"):
            label = f"weights-{kind} {context} {batch} {threads}"
            speeds = {who: speed(figures, label, who) for who in participants}
            yield [
                f"{kind} {context}",
                batch[1:],
                threads[1:],
                *("-" if value is None else f"{value:,.1f}" for value in speeds.values()),
                times(divided(speeds[column("int8")], speeds[column("bf16")])),
                times(divided(speeds[column("int8")], speeds.get("llama.cpp Q8_0"))),
            ]


def render_weights(figures: Figures) -> list[str]:
    """The sections, none when nothing of it was measured."""
    decoded = figures.labels("weights-decode")
    if not decoded:
        return []
    participants = list(figures.results[" ".join(["weights-decode", *decoded[0]])])
    header = ["what", "batch", "threads", *participants, "int8 against bf16", "int8 against Q8_0"]
    return [
        "## Formats of weights: tokens/s in all",
        table(header, weights_speed_rows(figures, participants)),
        "## Formats of weights: quality, scored over the wire",
        table(("weights", "tokens", "perplexity", "top-1 as fp32", "mean KL from fp32, nats"), quality_rows(figures)),
    ]
