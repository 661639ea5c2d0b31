"""What restoring takes from each encoding of a node, beside computing its tokens anew."""

from collections.abc import Iterable
from pathlib import Path

from participants import Answer, Participant
from report import Figures, Results, ms, table, times
from weights import Measurer

TOKENS = 2000


def measure(measurer: Measurer, quicksave: Participant, profiles: list[Path], rounds: int) -> None:
    """Each encoding in turn, round after round; every node is of another text, so that none shares another's blocks."""
    kinds: list[tuple[str, Answer]] = [("exact", {})]
    for profile in profiles:
        loaded = quicksave.ask({"task": "profile", "file": str(profile.resolve())})
        name = f"latent {profile.stem}, {loaded['split']} layers recomputed"
        kinds.append((name, {"codec": "latent", "profile": loaded["id"]}))
    kinds.append(("replay", {"codec": "replay"}))
    for number in range(rounds):
        for place, (name, encoding) in enumerate(kinds):
            task = {"task": "encoding", "tokens": TOKENS, "sequence": 100 * number + place, **encoding}
            measurer.measure(f"encoding {name}", quicksave, task)


def rows(figures: Figures) -> Iterable[list[str]]:
    """One for each encoding."""
    for words in figures.labels("encoding"):
        label = " ".join(["encoding", *words])
        yield [
            " ".join(words),
            f"{figures.need(label, lambda answer: answer['raw_bytes'] / answer['stored_bytes']):.2f}x",
            f"{figures.need(label, 'mean_kl'):.4f}",
            ms(figures.need(label, "encode")),
            ms(figures.need(label, "seconds")),
            ms(figures.need(label, lambda answer: answer["stages"]["decode"])),
            ms(figures.need(label, "replay")),
            ms(figures.need(label, "estimate")),
            ms(figures.need(label, "anew")),
            times(figures.need(label, lambda answer: answer["anew"] / answer["seconds"])),
        ]


def render(results: Results) -> list[str]:
    """The section, none when nothing of it was measured."""
    figures = Figures(results)
    if not figures.labels("encoding"):
        return []
    header = [
        *("encoding", "K and V smaller by", "mean KL, nats", "save or encode ms", "restore ms"),
        *("of it decode (all threads)", "replay", "its estimate", "compute anew ms", "restore is faster by"),
    ]
    return [f"## Encodings of {TOKENS:,} tokens", table(header, rows(figures))]
