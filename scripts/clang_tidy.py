#!/usr/bin/env python3
"""Runs clang-tidy over the project's C++ files, in parallel, and remembers what passed.

Usage: clang_tidy.py BUILD_DIRECTORY [--jobs N] [--budget SECONDS] [FILE...]

BUILD_DIRECTORY is a built Ninja tree: its compile_commands.json says how each file is compiled, and its dependency log
which headers each file reads. A file that passed is not checked again until it, one of the project's headers that it
includes, its compile command or .clang-tidy changes. Passes are kept in $QUICKSAVE_CACHE/clang-tidy.

Nearly all of clang-tidy's time goes into headers of libraries, so files that are compiled with the same options are
checked together, as one file that includes them. Where that fails, the halves are checked apart, and so on; findings
are printed only from a run on a single file. (What looks at the main file only, such as misc-unused-using-decls, finds
nothing in files that pass together.)

With a budget, checking stops when it is spent; files that were not reached are counted, and are no failure. Their order
is shuffled by the commit, so that runs of different commits reach different files. Exit status 1 when a file fails.
"""

import argparse
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLANG_TIDY = "clang-tidy-14"
ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("client", "compressor", "server", "storage", "tests")
# The commands are GCC's; clang's own warnings are the dev preset's business.
BATCH_SIZE = 8
EXTRA_ARGUMENTS = ("--extra-arg=-Wno-unknown-warning-option", "--extra-arg=-Wno-error", "--quiet")


@dataclass(frozen=True)
class Unit:
    """One C++ file, how it is compiled, and the state of everything that decides its result, as a digest."""

    file: Path
    command: str
    digest: str

    @property
    def options(self) -> str:
        """The compile command without what names this file; equal for files that can be checked together."""
        return re.sub(r" -(o|MF|MT|c) \S+", "", self.command)


def run_text(*command: str) -> str:
    """Standard output of a command that has to succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def dependencies(build: Path) -> dict[str, list[Path]]:
    """For each object file, the files below the checkout that it was made from, as Ninja recorded them."""
    result: dict[str, list[Path]] = {}
    current: list[Path] = []
    for line in run_text("ninja", "-C", str(build), "-t", "deps").splitlines():
        if not line.startswith(" "):
            current = result.setdefault(line.partition(": ")[0], [])
        elif line.strip():
            path = (build / line.strip()).resolve()
            if path.is_relative_to(ROOT) and path.is_file():
                current.append(path)
    return result


def digest_of(command: dict[str, Any], files: list[Path], settings: bytes, contents: dict[Path, bytes]) -> str:
    """Digest of a compile command, of clang-tidy's settings and of the given files."""
    total = hashlib.sha256(settings + command["command"].encode())
    for path in sorted(files):
        if path not in contents:
            contents[path] = hashlib.sha256(path.read_bytes()).digest()
        total.update(str(path).encode() + contents[path])
    return total.hexdigest()


def find_units(build: Path, only: set[Path]) -> list[Unit]:
    """The project's own files of the build, without generated ones."""
    commands = json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))
    settings = (ROOT / ".clang-tidy").read_bytes() + run_text(CLANG_TIDY, "--version").encode()
    known = dependencies(build)
    contents: dict[Path, bytes] = {}
    units: dict[Path, Unit] = {}
    for command in commands:
        file = Path(command["file"])
        own = file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[0] in FOLDERS
        if own and file.exists() and (not only or file in only):
            output = re.search(r" -o (\S+)", command["command"])
            files = [file, *known.get(output.group(1) if output else "", [])]
            digest = digest_of(command, files, settings, contents)
            units.setdefault(file, Unit(file, command["command"], digest))
    return [units[file] for file in sorted(units)]


def make_batches(units: list[Unit]) -> list[list[Unit]]:
    """Batches of at most BATCH_SIZE units with equal options, shuffled by the commit."""
    by_options: dict[str, list[Unit]] = {}
    for unit in units:
        by_options.setdefault(unit.options, []).append(unit)
    batches = [
        group[start : start + BATCH_SIZE] for group in by_options.values() for start in range(0, len(group), BATCH_SIZE)
    ]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False).stdout
    random.Random(commit).shuffle(batches)
    return batches


class Checker:
    """Runs clang-tidy on batches and collects the results. Batches may be checked from several threads."""

    def __init__(self, build: Path, passed_folder: Path, deadline: float) -> None:
        self._build = build
        self._passed_folder = passed_folder
        self._deadline = deadline
        self.passed: list[Path] = []
        self.failed: list[Path] = []
        self.not_reached: list[Path] = []

    def check(self, batch: list[Unit]) -> None:
        """Sorts the batch's files into passed, failed (their findings are printed) and not reached."""
        if time.monotonic() > self._deadline:
            self.not_reached += [unit.file for unit in batch]
            return
        result = self._run_one(batch[0]) if len(batch) == 1 else self._run_together(batch)
        if result.returncode == 0:
            for unit in batch:
                (self._passed_folder / unit.digest).touch()
            self.passed += [unit.file for unit in batch]
        elif len(batch) == 1:
            errors = "".join(line + "\n" for line in result.stderr.splitlines() if "error:" in line)
            print(f"{result.stdout}{errors}", end="", flush=True)
            self.failed.append(batch[0].file)
        else:
            self.check(batch[: len(batch) // 2])
            self.check(batch[len(batch) // 2 :])

    def _run_one(self, unit: Unit) -> subprocess.CompletedProcess[str]:
        command = (CLANG_TIDY, "-p", str(self._build), *EXTRA_ARGUMENTS, str(unit.file))
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)

    def _run_together(self, batch: list[Unit]) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as folder:
            joined = Path(folder) / "joined.cc"
            joined.write_text("".join(f'#include "{unit.file}"\n' for unit in batch), encoding="utf-8")
            compile_command = batch[0].command.replace(str(batch[0].file), str(joined))
            entry = {"directory": str(self._build), "command": compile_command, "file": str(joined)}
            (Path(folder) / "compile_commands.json").write_text(json.dumps([entry]), encoding="utf-8")
            header_filter = f"--header-filter=^{ROOT}/({'|'.join(FOLDERS)})/"
            settings = f"--config-file={ROOT / '.clang-tidy'}"
            command = (CLANG_TIDY, "-p", folder, settings, header_filter, *EXTRA_ARGUMENTS, str(joined))
            return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, help="a built tree, for example build/release")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="files to check at a time")
    parser.add_argument("--budget", type=float, default=0, help="seconds; 0 is no limit")
    parser.add_argument("files", type=Path, nargs="*", help="check only these")
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    cache = Path(os.environ.get("QUICKSAVE_CACHE", Path.home() / ".cache" / "quicksave"))
    passed = cache / "clang-tidy"
    passed.mkdir(parents=True, exist_ok=True)

    units = find_units(build, {path.resolve() for path in arguments.files})
    todo = [unit for unit in units if not (passed / unit.digest).exists()]
    print(f"{len(units)} files, {len(units) - len(todo)} unchanged since they passed", flush=True)
    deadline = time.monotonic() + arguments.budget if arguments.budget > 0 else float("inf")
    checker = Checker(build, passed, deadline)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(checker.check, make_batches(todo)))
    results = (len(checker.passed), len(checker.failed), len(checker.not_reached))
    print("{} passed, {} failed, {} not reached within the budget".format(*results))
    for file in sorted(checker.failed):
        print(f"failed: {file.relative_to(ROOT)}")
    return 1 if checker.failed else 0


if __name__ == "__main__":
    sys.exit(main())
