#!/usr/bin/env python3
"""Runs clang-tidy over the project's C++ files, in parallel, and remembers what passed.

Usage: clang_tidy.py BUILD_DIRECTORY [--jobs N] [--budget SECONDS] [FILE...]

BUILD_DIRECTORY is a built Ninja tree: its compile_commands.json says how each file is compiled, and its dependency log
which headers each file reads. A file that passed is not checked again until it, one of the project's headers that it
includes, its compile command or .clang-tidy changes. Passes are kept in $QUICKSAVE_CACHE/clang-tidy.

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
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLANG_TIDY = "clang-tidy-14"
ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("client", "compressor", "server", "storage", "tests")
# The commands are GCC's; clang's own warnings are the dev preset's business.
EXTRA_ARGUMENTS = ("--extra-arg=-Wno-unknown-warning-option", "--extra-arg=-Wno-error", "--quiet")


@dataclass(frozen=True)
class Unit:
    """One C++ file with the state of everything that decides its result, as a digest."""

    file: Path
    digest: str


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
    """The project's own files of the build, shuffled; without generated ones."""
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
            units.setdefault(file, Unit(file, digest_of(command, files, settings, contents)))
    ordered = [units[file] for file in sorted(units)]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False).stdout
    random.Random(commit).shuffle(ordered)
    return ordered


def check(unit: Unit, build: Path, passed: Path, deadline: float) -> bool | None:
    """True where the file passes, False where it fails (and its findings are printed), None past the deadline."""
    if time.monotonic() > deadline:
        return None
    command = (CLANG_TIDY, "-p", str(build), *EXTRA_ARGUMENTS, str(unit.file))
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if result.returncode == 0:
        (passed / unit.digest).touch()
        return True
    errors = "".join(line + "\n" for line in result.stderr.splitlines() if "error:" in line)
    print(f"{result.stdout}{errors}", end="", flush=True)
    return False


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
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(lambda unit: check(unit, build, passed, deadline), todo))
    failed = [unit.file.relative_to(ROOT) for unit, result in zip(todo, results, strict=True) if result is False]
    print(f"{results.count(True)} passed, {len(failed)} failed, {results.count(None)} not reached within the budget")
    for file in sorted(failed):
        print(f"failed: {file}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
