#!/usr/bin/env python3
"""Measures Quicksave beside Hugging Face transformers and llama.cpp, and prints both sides.

Usage: compare.py --server FILE --client FILE --model DIRECTORY --reference FILE [--transformers PYTHON]
                  [--llama PROGRAM --gguf FILE [--gguf-q8 FILE]] [--rounds N] [--quick] [--only weights|encodings]
                  [--profile FILE]... [--json FILE] [--command TEXT]

scripts/bench.sh builds what it needs and calls it. Every figure is the median of some rounds, and within a round each
participant does the same task one after the other, so that whatever else the machine does hits all of them. Tables go
to standard output as Markdown, progress to standard error, every single answer into the JSON file.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine
import report
import restore_encodings
import weights
import weights_report
from participants import Answer, BenchmarkError, Field, Participant, Programs, Server

ROOT = Path(__file__).resolve().parents[2]
QUICKSAVE = "quicksave"
MORE_TOKENS = 100


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    rounds: int
    saved_lengths: tuple[int, ...] = (256, 1000, 2000)
    contexts: tuple[int, ...] = (128, 512, 2000)
    batches: tuple[int, ...] = (1, 8)
    more_batches: tuple[int, ...] = (4, 16)  # at one context
    batch_prefill_contexts: tuple[int, ...] = (128, 512)
    branched_lengths: tuple[int, ...] = (256, 2000, 2001)
    threads: int = 2
    fewer_threads: int = 1
    common_context: int = 512
    steps: int = 32
    rpc_calls: int = 200
    weights_batches: tuple[int, ...] = weights.BATCHES

    @staticmethod
    def quick() -> "Scale":
        """A few minutes, to see that everything runs."""
        return Scale(
            rounds=1,
            contexts=(128, 512),
            more_batches=(),
            batch_prefill_contexts=(128,),
            branched_lengths=(256, 2000),
            steps=8,
            rpc_calls=50,
            weights_batches=(1, 8),
        )


@dataclass
class Comparison:
    """Runs tasks in turn and keeps the answers: results[label][participant] is a list with one answer per round."""

    all: Field
    scale: Scale
    results: dict[str, dict[str, list[Answer]]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def measure(self, label: str, participant: Participant, task: Answer) -> Answer:
        """One task of one participant."""
        minutes = (time.monotonic() - self.started) / 60
        print(f"[{minutes:5.1f} min, load {os.getloadavg()[0]:4.1f}] {label}: {participant.name}", file=sys.stderr)
        answer = participant.ask(task)
        self.results.setdefault(label, {}).setdefault(participant.name, []).append({"task": task, **answer})
        return answer

    def in_turn(self, label: str, task: Answer, who: Iterable[Participant]) -> None:
        """The same task for everyone, round after round."""
        participants = list(who)
        for _ in range(self.scale.rounds):
            for participant in participants:
                self.measure(label, participant, task)

    def quicksave(self) -> list[Participant]:
        """Only Quicksave."""
        return self.all.everyone()[:1]

    def bf16(self) -> list[Participant]:
        """Those that compute with the same precision."""
        return [participant for participant in self.all.everyone() if participant.name != report.FP32]

    def sequence(self, length: int, round_number: int) -> int:
        """Which sequence is saved: another one each time, because the store keeps equal blocks only once."""
        return 100 * (1 + self.scale.saved_lengths.index(length)) + round_number

    def release(self) -> None:
        """Frees the states that participants keep between rounds."""
        for participant in self.all.everyone():
            participant.ask({"task": "release"})

    def save(self) -> None:
        """Saves, and second saves after some more tokens."""
        for length in self.scale.saved_lengths:
            for number in range(self.scale.rounds):
                sequence = self.sequence(length, number)
                task = {"task": "save", "tokens": length, "sequence": sequence, "threads": self.scale.threads}
                for participant in self.bf16():
                    self.measure(f"save {length}", participant, task)
                extend = {"task": "extend", "tokens": length, "sequence": sequence + 50, "more": MORE_TOKENS}
                self.measure(f"extend {length}", self.quicksave()[0], extend)

    def load(self) -> None:
        """Loads what was saved, next to computing as many tokens anew."""
        for length in self.scale.saved_lengths:
            for number in range(self.scale.rounds):
                for participant in self.bf16():
                    node = self.results[f"save {length}"][QUICKSAVE][number]["node"]
                    which = {"tokens": length, "sequence": self.sequence(length, number), "node": node}
                    self.measure(f"load {length}", participant, {"task": "load", **which})
                    task = {"task": "prefill", "tokens": length, "batch": 1, "threads": self.scale.threads}
                    self.measure(f"anew {length}", participant, task)

    def prefill(self, tokens: int, batch: int, threads: int) -> None:
        """Prompts of that many tokens, `batch` at once."""
        with_fp32 = tokens == self.scale.common_context and batch == 1
        task = {"task": "prefill", "tokens": tokens, "batch": batch, "threads": threads}
        who = self.all.everyone() if with_fp32 else self.bf16()
        self.in_turn(f"prefill {tokens} x{batch} t{threads}", task, who)

    def decode(self, tokens: int, batch: int, threads: int) -> None:
        """Steps after that many tokens of context, for `batch` sequences at once."""
        task = {"task": "decode", "tokens": tokens, "batch": batch, "steps": self.scale.steps, "threads": threads}
        who = self.all.everyone() if tokens == self.scale.common_context else self.bf16()
        self.in_turn(f"decode {tokens} x{batch} t{threads}", task, who)
        self.release()

    def speeds(self) -> None:
        """Prefill and decode on all threads."""
        scale = self.scale
        for context in scale.contexts:
            self.prefill(context, 1, scale.threads)
        for context in scale.batch_prefill_contexts:
            self.prefill(context, max(scale.batches), scale.threads)
        self.release()
        for context in scale.contexts:
            batches = scale.batches + (scale.more_batches if context == scale.common_context else ())
            for batch in sorted(batches):
                self.decode(context, batch, scale.threads)

    def speeds_with_fewer_threads(self) -> None:
        """Prefill and decode at one context."""
        scale = self.scale
        self.prefill(scale.common_context, 1, scale.fewer_threads)
        for batch in scale.batches:
            self.decode(scale.common_context, batch, scale.fewer_threads)

    def branch(self) -> None:
        """Branches of one session; the first, which is not counted, makes the session and warms the way."""
        for length in self.scale.branched_lengths:
            for count in (1, 64):
                task = {"task": "branch", "tokens": length, "count": count}
                self.quicksave()[0].ask(task)
                self.in_turn(f"branch {length} x{count}", task, self.quicksave())
            self.in_turn(f"copy {length}", {"task": "branch", "tokens": length}, self.bf16()[1:])
        self.release()

    def weights(self, prompts: list[list[int]]) -> None:
        """The formats of weights, each on a server of its own, beside llama.cpp's."""
        formats = [server.start(self.scale.threads) for server in self.all.more_servers]
        scored = weights.texts(ROOT, prompts)
        weights.measure_quality(self, formats, scored)
        peers = [peer for peer in (*self.all.peers, *self.all.more_peers) if peer.name.startswith("llama.cpp")]
        everyone = [*formats, *peers]
        weights.measure_speed(self, everyone, self.scale.rounds, self.scale.threads, self.scale.weights_batches)
        for server in self.all.more_servers:
            server.stop()

    def run(self, server: Server) -> None:
        """Everything. The server is restarted before loads, so that nothing it saved is still in its memory."""
        server.start(self.scale.threads)
        for participant in self.all.everyone():
            participant.ask({"task": "prefill", "tokens": 128, "batch": 1, "threads": self.scale.threads})
        self.save()
        self.release()
        server.start(self.scale.threads)
        self.load()
        self.speeds()
        self.branch()
        mixed = {"task": "mixed", "tokens": 512, "batch": 8, "steps": 160, "prompt": 1500}
        self.in_turn("mixed", mixed, self.quicksave())
        self.in_turn("rpc", {"task": "rpc", "calls": self.scale.rpc_calls}, self.quicksave())
        self.release()
        server.start(self.scale.fewer_threads)
        self.speeds_with_fewer_threads()


def write_prompts(reference: Path, target: Path) -> list[list[int]]:
    """The token ids that all sequences are made of: the two longest recorded prompts, one after the other."""
    prompts = json.loads(reference.read_text(encoding="utf-8"))["prompts"]
    longest: list[list[int]] = sorted((prompt["token_ids"] for prompt in prompts), key=len)[-2:]
    target.write_text(json.dumps([token for prompt in longest for token in prompt]), encoding="utf-8")
    return longest


def start_peers(arguments: argparse.Namespace, prompts: Path, work: Path) -> list[Participant]:
    """The peers that were asked for."""
    peers = []
    if arguments.transformers:
        program = str(Path(__file__).with_name("transformers_bench.py"))
        command = [arguments.transformers, program, str(arguments.model), str(prompts), str(work)]
        peers.append(Participant("transformers", command))
        peers.append(Participant(report.FP32, [*command, "--dtype=float32"]))
    if arguments.llama:
        peers.append(Participant("llama.cpp", [arguments.llama, str(arguments.gguf), str(prompts), str(work)]))
    return peers


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measures Quicksave beside its peers.")
    parser.add_argument("--server", type=Path, required=True, help="quicksave-server")
    parser.add_argument("--client", type=Path, required=True, help="quicksave_bench")
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face directory of the model")
    parser.add_argument("--reference", type=Path, required=True, help="JSON file with the prompts' token ids")
    parser.add_argument("--transformers", metavar="PYTHON", help="interpreter that has torch and transformers")
    parser.add_argument("--llama", metavar="PROGRAM", help="llama_bench")
    parser.add_argument("--gguf", type=Path, help="the model for llama.cpp")
    parser.add_argument("--gguf-q8", type=Path, help="the model for llama.cpp in Q8_0, for the formats of weights")
    parser.add_argument("--only", choices=("weights", "encodings"), help="measure only this part")
    parser.add_argument("--profile", type=Path, action="append", default=[], help="latent profile, for the encodings")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of which medians are taken")
    parser.add_argument("--quick", action="store_true", help="one round of less")
    parser.add_argument("--json", type=Path, help="where to write all answers")
    parser.add_argument("--command", default=" ".join(sys.argv), help="the command to print above the tables")
    return parser.parse_args()


def measure_all(
    arguments: argparse.Namespace, comparison: Comparison, prompts: Path, ids: list[list[int]]
) -> dict[str, Answer]:
    """Starts everyone, runs what was asked for, and returns what each says of itself."""
    field_of_all = comparison.all
    programs = Programs(arguments.server, arguments.client, arguments.model)
    field_of_all.peers = start_peers(arguments, prompts, field_of_all.work)
    descriptions: dict[str, Answer] = {}
    if arguments.only is None:
        field_of_all.server = Server(programs, prompts, field_of_all.work)
        comparison.run(field_of_all.server)
        descriptions |= {who.name: who.description for who in field_of_all.everyone()}
        field_of_all.server.stop()
    if arguments.only == "encodings" or (arguments.only is None and arguments.profile):
        field_of_all.server = Server(programs, prompts, field_of_all.work)
        quicksave = field_of_all.server.start(comparison.scale.threads)
        restore_encodings.measure(comparison, quicksave, arguments.profile, comparison.scale.rounds)
        descriptions[quicksave.name] = quicksave.description
        field_of_all.server.stop()
    if arguments.only == "encodings":
        return descriptions
    if arguments.llama and arguments.gguf_q8:
        command = [arguments.llama, str(arguments.gguf_q8), str(prompts), str(field_of_all.work)]
        field_of_all.more_peers.append(Participant("llama.cpp Q8_0", command))
    field_of_all.more_servers = [Server(programs, prompts, field_of_all.work, name) for name in weights.FORMATS]
    comparison.weights(ids)
    more = [server.description for server in field_of_all.more_servers]
    descriptions |= {f"quicksave {name}": said for name, said in zip(weights.FORMATS, more, strict=True)}
    return descriptions | {peer.name: peer.description for peer in (*field_of_all.peers, *field_of_all.more_peers)}


def main() -> int:
    """Measures, prints, writes."""
    arguments = parse_arguments()
    scale = Scale.quick() if arguments.quick else Scale(rounds=arguments.rounds)
    about: dict[str, Any] = {
        "command": arguments.command,
        "quick": arguments.quick,
        "machine": machine.describe(ROOT),
        "load_at_start": os.getloadavg(),
    }
    try:
        with Field() as participants:
            prompts = participants.work / "prompts.json"
            ids = write_prompts(arguments.reference, prompts)
            comparison = Comparison(participants, scale)
            about["participants"] = measure_all(arguments, comparison, prompts, ids)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    about["load_at_end"] = os.getloadavg()
    about["minutes"] = round((time.monotonic() - comparison.started) / 60, 1)
    about["scale"] = vars(scale)
    if arguments.json:
        arguments.json.write_text(json.dumps({"about": about, "results": comparison.results}, indent=1) + "\n")
    sections = report.render(about, comparison.results)
    sections += restore_encodings.render(comparison.results)
    print("\n\n".join([*sections, *weights_report.render_weights(report.Figures(comparison.results))]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
