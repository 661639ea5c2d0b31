#!/usr/bin/env python3
"""Records fidelity metrics as torch and numpy compute them, as the oracle of the metrics' tests.

Usage: record_metrics.py OUTPUT.json

Needs `torch`, which the project itself does not; README.md in this folder gives the command. The inputs are small,
seeded and written down, as multiples of 1/1024 that decimals hold exactly. Each figure comes from a library's own
function, or where there is none from another formula than the one that is tested (CKA as a quotient of HSICs).
"""

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

SEED = 20251207
# Rows, width of the reference, width of the candidate; CKA is the only metric that takes different ones. The first two
# are computed through the products of columns, the others through those of rows.
SHAPES = {"tall": (60, 12, 12), "tall_unequal": (60, 12, 7), "wide": (10, 24, 24), "wide_unequal": (9, 24, 17)}
VOCABULARY = 160
POSITIONS = 7
TOP_KS = (1, 3, 10, 160)


def grid(values: Float64Array) -> Float32Array:
    """The nearest multiples of 1/1024."""
    return (np.round(values * 1024) / 1024).astype(np.float32)


def hsic(x: Float64Array, y: Float64Array) -> float:
    """Hilbert-Schmidt independence criterion of two linear Gram matrices, up to a factor."""
    centring = np.eye(len(x)) - np.full((len(x), len(x)), 1 / len(x))
    return float(np.trace(x @ x.T @ centring @ y @ y.T @ centring))


def matrices(random: np.random.Generator, rows: int, width: int, other_width: int) -> tuple[Float32Array, Float32Array]:
    """Two related matrices, their columns of differing mean and scale."""
    scales = np.exp2(random.normal(size=width))
    reference = random.normal(size=(rows, width)) * scales + 2 * random.normal(size=width)
    candidate = (reference + 0.3 * random.normal(size=(rows, width)))[:, :other_width]
    return grid(reference), grid(candidate)


def state_case(random: np.random.Generator, rows: int, width: int, other_width: int) -> dict[str, Any]:
    """Inputs and figures of one pair of matrices."""
    reference, candidate = matrices(random, rows, width, other_width)
    x, y = reference.astype(np.float64), candidate.astype(np.float64)
    case = {
        "width": width,
        "candidate_width": other_width,
        "reference": reference.ravel().tolist(),
        "candidate": candidate.ravel().tolist(),
        "cka": hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y)),
    }
    if width == other_width:
        tx, ty = torch.from_numpy(x), torch.from_numpy(y)
        case |= {
            "mse": functional.mse_loss(ty, tx).item(),
            "relative_mse": float((np.linalg.norm(x - y) / np.linalg.norm(x)) ** 2),
            "fraction_of_variance_unexplained": float(np.mean((x - y) ** 2, axis=0).sum() / np.var(x, axis=0).sum()),
            "cosine": functional.cosine_similarity(tx, ty, dim=1).mean().item(),
        }
    return case


def overlap(p: torch.Tensor, q: torch.Tensor, k: int) -> float:
    """Share of common ids among the k largest."""
    return len(set(torch.topk(p, k).indices.tolist()) & set(torch.topk(q, k).indices.tolist())) / k


def logit_case(random: np.random.Generator) -> dict[str, Any]:
    """Logit rows that drift apart from position to position, with what each of them and all of them measure."""
    reference = grid(3 * random.normal(size=(POSITIONS, VOCABULARY)))
    drift = np.exp2(np.arange(POSITIONS) - 5.0)[:, None]
    candidate = grid(reference + drift * random.normal(size=reference.shape))
    p, q = torch.from_numpy(reference).double(), torch.from_numpy(candidate).double()
    tokens = torch.from_numpy(random.integers(0, VOCABULARY, POSITIONS))
    log_p, log_q = functional.log_softmax(p, dim=-1), functional.log_softmax(q, dim=-1)
    kl = functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(dim=-1)
    nll = [functional.cross_entropy(logits, tokens, reduction="none") for logits in (p, q)]
    return {
        "reference": reference.tolist(),
        "candidate": candidate.tolist(),
        "next_tokens": tokens.tolist(),
        "kl": kl.tolist(),
        "top_ks": list(TOP_KS),
        "top_k_agreement": [[overlap(a, b, k) for k in TOP_KS] for a, b in zip(p, q, strict=True)],
        "reference_nll": nll[0].tolist(),
        "candidate_nll": nll[1].tolist(),
        "perplexity_ratio": (torch.exp(nll[1].mean()) / torch.exp(nll[0].mean())).item(),
        "mean_kl": kl.mean().item(),
    }


def aggregate_case(random: np.random.Generator, count: int) -> dict[str, Any]:
    """Aggregates of skewed values, as divergences are."""
    values = np.exp(2 * random.normal(size=count))
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {
        "values": values.tolist(), "mean": float(np.mean(values)), "p50": float(p50), "p95": float(p95),
        "p99": float(p99), "max": float(np.max(values)),
    }  # fmt: skip


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    random = np.random.default_rng(SEED)
    versions = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}
    record = {
        "command": "record_metrics.py metrics.json",
        "versions": versions,
        "states": {name: state_case(random, *shape) for name, shape in SHAPES.items()},
        "logits": logit_case(random),
        "aggregates": [aggregate_case(random, count) for count in (1, 2, 21, 250)],
    }
    arguments.output.write_text(json.dumps(record) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
