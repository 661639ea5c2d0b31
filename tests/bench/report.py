"""The benchmark's tables: medians of what was measured, both sides of each comparison, and the bars."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

Answer = dict[str, Any]
Results = dict[str, dict[str, list[Answer]]]

BLOCK_TOKENS = 128
QUICKSAVE = "quicksave"
TRANSFORMERS = "transformers"
LLAMA = "llama.cpp"
FP32 = "transformers fp32"  # only beside, where bf16 has no instructions of its own and fp32 may be faster


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    columns = list(header)
    lines = [columns, ["---"] * len(columns), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ms(seconds: float | None) -> str:
    """Milliseconds with three digits that mean something."""
    if seconds is None:
        return "-"
    value = seconds * 1e3
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(ratio: float | None) -> str:
    """How many times as fast."""
    return "-" if ratio is None else f"{ratio:.0f}x" if ratio >= 20 else f"{ratio:.1f}x"


def divided(dividend: float | None, divisor: float | None) -> float | None:
    """A ratio of figures that may not have been measured."""
    return None if dividend is None or not divisor else dividend / divisor


@dataclass(frozen=True)
class Figures:
    """Medians over the rounds."""

    results: Results

    def labels(self, first_word: str) -> list[list[str]]:
        """The other words of the labels that begin so."""
        return [words[1:] for words in (label.split() for label in self.results) if words[0] == first_word]

    def answers(self, label: str, who: str) -> list[Answer]:
        """All rounds of one participant; none if it did not take part."""
        return self.results.get(label, {}).get(who, [])

    def get(self, label: str, who: str, pick: str | Callable[[Answer], float] = "seconds") -> float | None:
        """The median of one figure; None if it was not measured."""
        values = [answer[pick] if isinstance(pick, str) else pick(answer) for answer in self.answers(label, who)]
        return median(values) if values else None

    def need(self, label: str, pick: str | Callable[[Answer], float] = "seconds") -> float:
        """The median of one of Quicksave's figures, which are always measured."""
        value = self.get(label, QUICKSAVE, pick)
        assert value is not None, label
        return value


def machine_lines(about: Answer) -> str:
    """What was measured on what."""
    machine = about["machine"]
    flags = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in machine["flags"].items())
    loads = " and ".join(f"{about[when][0]:.1f}" for when in ("load_at_start", "load_at_end"))
    lines = [
        f"- Command: `{about['command']}`, {about['minutes']} minutes",
        f"- Machine: {machine['cpu']} (family/model/stepping {machine['cpu_family_model_stepping']}), "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; {flags}",
        f"- Load average before and after: {loads} (the benchmark itself makes up to {about['scale']['threads']})",
        f"- Quicksave: commit {machine['commit']}",
    ]
    for name, description in about["participants"].items():
        details = ", ".join(f"{key} {value}" for key, value in description.items())
        lines.append(f"- {name}: {details}")
    lines.append(f"- Figures are medians of {about['scale']['rounds']} rounds, all participants in turn in each")
    if about["quick"]:
        lines.append("- **Quick run: single measurements, not to be quoted**")
    return "\n".join(lines)


def save_rows(figures: Figures) -> Iterable[list[str]]:
    """One row for each length and way to save."""
    for (length,) in figures.labels("save"):
        save, load, anew = f"save {length}", f"load {length}", f"anew {length}"
        raw = figures.need(save, "raw_bytes")
        ratio = raw / figures.need(save, "block_bytes")
        ways = [
            (QUICKSAVE, QUICKSAVE, "written_bytes", "seconds", "seconds", "seconds"),
            ("transformers, torch.save", TRANSFORMERS, "bytes", "seconds", "sync_seconds", "seconds"),
            ("llama.cpp, file", LLAMA, "bytes", "seconds", "sync_seconds", "seconds"),
            ("llama.cpp, memory", LLAMA, "bytes", "memory_seconds", "", "memory_seconds"),
        ]
        for title, who, size, seconds, synced, load_seconds in ways:
            if not figures.answers(save, who):
                continue
            stored = figures.get(save, who, size)
            prefill = figures.get(anew, who)
            loaded = figures.get(load, who, load_seconds)
            yield [
                length,
                title,
                f"{stored:,.0f}",
                f"{ratio:.3f}" if who == QUICKSAVE else f"{raw / stored:.3f}" if stored else "-",
                "" if who == QUICKSAVE else ms(figures.get(save, who, seconds)),
                ms(figures.get(save, who, synced)) if synced else "",
                ms(loaded),
                ms(prefill),
                times(divided(prefill, loaded)),
            ]


def stage_time(stage: str, answer: Answer) -> float:
    """One stage of a save or restore, in seconds."""
    seconds: float = answer["stages"][stage]
    return seconds


def stage_rows(figures: Figures) -> Iterable[list[str]]:
    """Where Quicksave's time goes."""
    for (length,) in figures.labels("save"):
        row = [length]
        for label, stages in (
            (f"save {length}", ("gather", "encode", "commit", "total")),
            (f"load {length}", ("read", "decode", "load", "check", "total")),
        ):
            row += [ms(figures.need(label, partial(stage_time, stage))) for stage in stages]
        yield row


def extend_rows(figures: Figures) -> Iterable[list[str]]:
    """What a second save writes."""
    for (length,) in figures.labels("extend"):
        label = f"extend {length}"
        written = figures.need(label, "written_bytes")
        yield [
            length,
            f"{figures.need(label, 'new_blocks'):.0f} + {figures.need(label, 'shared_blocks'):.0f}",
            f"{written:,.0f}",
            f"{figures.need(label, 'logits_bytes'):,.0f}",
            f"{blocks_written(figures, length, raw=True):.2f}",
            f"{blocks_written(figures, length, raw=False):.2f}",
            ms(figures.need(label)),
        ]


def blocks_written(figures: Figures, length: str, *, raw: bool) -> float:
    """What a second save writes, in units of a full block as the engine holds it or as it is stored."""
    block = figures.need(f"save {length}", "raw_bytes" if raw else "block_bytes") / int(length) * BLOCK_TOKENS
    return figures.need(f"extend {length}", "written_bytes") / block


def branch_rows(figures: Figures) -> Iterable[list[str]]:
    """Time and memory of branches."""
    for length, count_word in figures.labels("branch"):
        label, count = f"branch {length} {count_word}", int(count_word[1:])
        yield [
            length,
            str(count),
            f"{figures.need(label, 'server_seconds') / count * 1e6:,.1f}",
            ms(figures.need(label)),
            f"{figures.need(label, 'pages'):.0f}",
            f"{figures.need(label, 'resident_bytes') / count:,.0f}",
            f"{figures.need(label, 'pages_after_one_token'):.0f}",
            ms(figures.get(f"copy {length}", TRANSFORMERS)) if count == 1 else "",
            ms(divided(figures.get(f"copy {length}", LLAMA), 64)) if count == 1 else "",
        ]


def speed_rows(figures: Figures, kind: str) -> Iterable[list[str]]:
    """Tokens per second of everyone, and how much faster Quicksave is."""
    for context, batch, threads in figures.labels(kind):
        label = f"{kind} {context} {batch} {threads}"
        speeds = {who: speed(figures, label, who) for who in (QUICKSAVE, TRANSFORMERS, FP32, LLAMA)}
        yield [
            context,
            batch[1:],
            threads[1:],
            *("-" if value is None else f"{value:,.1f}" for value in speeds.values()),
            times(divided(speeds[QUICKSAVE], speeds[TRANSFORMERS])),
            times(divided(speeds[QUICKSAVE], speeds[LLAMA])),
        ]


def speed(figures: Figures, label: str, who: str) -> float | None:
    """Tokens per second of a prefill or decode, all sequences together."""
    answers = figures.answers(label, who)
    if not answers:
        return None
    task = answers[0]["task"]
    tokens = task["batch"] * (task["steps"] if task["task"] == "decode" else task["tokens"])
    return divided(tokens, figures.get(label, who))


def rpc_rows(figures: Figures) -> Iterable[list[str]]:
    """Round trips: median and 99th percentile over the calls of all rounds."""
    names = {
        "get_status": "GetStatus",
        "get_session": "GetSession",
        "generate_overhead": "Generate of 1 token, less the server's own time for it",
    }
    for key, name in names.items():
        calls = sorted(call for answer in figures.answers("rpc", QUICKSAVE) for call in answer[key])
        yield [name, str(len(calls)), f"{median(calls) * 1e6:,.0f}", f"{calls[len(calls) * 99 // 100] * 1e6:,.0f}"]


def gaps(figures: Figures, quantile: float) -> float:
    """A quantile of the times between tokens under a mixed load, over all rounds."""
    every = sorted(gap for answer in figures.answers("mixed", QUICKSAVE) for gap in answer["gaps"])
    return float(every[int(len(every) * quantile)])


def mixed_rows(figures: Figures) -> Iterable[list[str]]:
    """Times between tokens of 8 sessions while a long prompt comes, and what that prompt waits for its first token."""
    p50, p99 = gaps(figures, 0.5), gaps(figures, 0.99)
    yield [ms(p50), ms(p99), times(p99 / p50), ms(figures.need("mixed", "first_token"))]


def bar(name: str, value: float | None, limit: float, unit: str, *, at_least: bool) -> list[str]:
    """A bar, and whether it is met."""
    wanted = f"{'at least' if at_least else 'under'} {limit:g} {unit}"
    if value is None:
        return [name, wanted, "not measured", "-"]
    met = value >= limit if at_least else value < limit
    return [name, wanted, f"{value:.3g} {unit}", "met" if met else "**missed**"]


def bar_rows(figures: Figures, about: Answer) -> Iterable[list[str]]:
    """The bars that the project has set itself."""
    restored = divided(figures.need("anew 2000"), figures.need("load 2000"))
    yield bar("restore of 2,000 tokens, against computing them anew", restored, 15, "times as fast", at_least=True)
    page_bytes = about["participants"][QUICKSAVE]["page_bytes"]
    for length, count_word in figures.labels("branch"):
        label, count = f"branch {length} {count_word}", int(count_word[1:])
        name = f"{count} branch{'es' if count > 1 else ''} of {length} tokens, each"
        yield bar(f"{name}: time, whole call", figures.need(label) / count * 1e3, 1, "ms", at_least=False)
        memory = (
            figures.need(label, "pages") / count + max(0, figures.need(label, "resident_bytes")) / count / page_bytes
        )
        yield bar(f"{name}: memory, pages and process", memory, 1, "pages", at_least=False)
    for (length,) in figures.labels("extend"):
        written = blocks_written(figures, length, raw=False)
        name = f"second save, 100 tokens after {length}: in stored blocks"
        yield bar(name, written, 1.5, "blocks", at_least=False)
    for context, batch, threads in figures.labels("decode"):
        if batch not in ("x1", "x8"):
            continue
        label = f"decode {context} {batch} {threads}"
        against = divided(speed(figures, label, QUICKSAVE), speed(figures, label, TRANSFORMERS))
        name = f"decode at context {context}, batch {batch[1:]}, {threads[1:]} threads, against transformers bf16"
        yield bar(name, against, 2, "times as fast", at_least=True)
    against_llama = (("x1", 1.1), ("x8", 2.5), ("x16", 2.5))
    for context, batch, threads in figures.labels("decode"):
        for wanted_batch, limit in against_llama:
            if batch == wanted_batch and threads == "t2":
                label = f"decode {context} {batch} {threads}"
                against = divided(speed(figures, label, QUICKSAVE), speed(figures, label, LLAMA))
                name = f"decode at context {context}, batch {batch[1:]}, {threads[1:]} threads, against llama.cpp bf16"
                yield bar(name, against, limit, "times as fast", at_least=True)
    for context, batch, threads in figures.labels("prefill"):
        if threads == "t2":
            label = f"prefill {context} {batch} {threads}"
            peers = [peer for who in (TRANSFORMERS, FP32, LLAMA) if (peer := speed(figures, label, who))]
            best = divided(speed(figures, label, QUICKSAVE), max(peers, default=None))
            name = f"prefill of {batch[1:]} x {context} tokens, {threads[1:]} threads, against the best peer"
            yield bar(name, best, 1.3, "times as fast", at_least=True)
    ratio = gaps(figures, 0.99) / gaps(figures, 0.5)
    yield bar("time between tokens beside a long prompt: p99 against p50", ratio, 3, "times", at_least=False)


def render(about: Answer, results: Results) -> list[str]:
    """The sections of the report as Markdown; only the first when only the formats of weights were measured."""
    figures = Figures(results)
    if "rpc" not in results:
        return ["## What was measured", machine_lines(about)]
    speed_header = [
        *("context", "batch", "threads", "quicksave", "transformers bf16", "transformers fp32", "llama.cpp bf16"),
        *("against transformers", "against llama.cpp"),
    ]
    save_header = [
        *("tokens", "how", "bytes", "KV ratio", "save ms", "save, synced ms", "load ms", "compute anew ms"),
        "load is faster by",
    ]
    stage_header = [
        *("tokens", "gather", "encode", "commit", "save in all"),
        *("read", "decode", "load", "check", "restore in all"),
    ]
    extend_header = [
        *("tokens before", "new + shared blocks", "bytes written", "of these logits", "in raw blocks"),
        *("in stored blocks", "save ms"),
    ]
    branch_header = [
        *("tokens", "branches", "server, us each", "whole call ms", "pages", "process bytes each"),
        *("pages after one token in one", "transformers deepcopy ms", "llama.cpp seq_cp ms"),
    ]
    return [
        "## What was measured",
        machine_lines(about),
        "## Bars",
        table(("what", "wanted", "measured", ""), bar_rows(figures, about)),
        "## Save and load",
        table(save_header, save_rows(figures)),
        "## Time by stage of Quicksave's save and restore, ms (gather, encode, decode, load: summed over threads)",
        table(stage_header, stage_rows(figures)),
        "## A second save after 100 more tokens",
        table(extend_header, extend_rows(figures)),
        "## Branch",
        table(branch_header, branch_rows(figures)),
        "## Decode, tokens/s in all",
        table(speed_header, speed_rows(figures, "decode")),
        "## Prefill, tokens/s in all",
        table(speed_header, speed_rows(figures, "prefill")),
        "## Time between tokens of 8 sessions (context 512), while a prompt of 1,500 tokens comes, ms",
        table(("p50", "p99", "p99 / p50", "first token of the prompt"), mixed_rows(figures)),
        "## One remote call, microseconds",
        table(("call", "calls", "median", "99 %"), rpc_rows(figures)),
    ]
