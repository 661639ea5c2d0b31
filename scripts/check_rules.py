#!/usr/bin/env python3
"""Checks the rules of the project that no other linter knows, over the tracked files.

Usage: check_rules.py [--list] [FILE...]

Each finding is one line, FILE:LINE: what is wrong; exit status 1 where there is one. --list prints the rules.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
Finding = tuple[int, str]

TOP_LEVEL = {
    "CMakeLists.txt", "CMakePresets.json", "Dockerfile", "README.md", "LICENSE", "client", "cmake", "compressor",
    "deploy", "docs", "proto", "scripts", "server", "storage", "tests",
}  # fmt: skip
CODE_SUFFIXES = {".cc", ".cu", ".h"}
MAXIMUM_LINES = 800
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}
# Options that choose where packages come from: builds use whatever the machine's clients are configured for.
REGISTRY_CHOICES = re.compile(
    r"--(extra-)?index-url\b|--find[-]links\b|\bGO(PROXY|SUMDB)=|\bCARGO_REGISTRIES_|\b(npm|yarn) .*--registry\b"
)
MACHINE_PATHS = re.compile(
    r"(?<![\w$}.~-])/(root|work|home/(?!nonroot\b|quicksave\b)[a-z]\w*|Users/\w+|tmp/setup)(/|\b(?![-\w]))"
)
LOCK_FILES = {"Cargo.lock"}
# A folder's own includes may start with these; generated protos are "quicksave/..." and end in .pb.h.
OWN_FOLDERS = ("client/", "compressor/", "server/", "storage/", "tests/")
ARROWS = {
    "client": ("client/",),
    "compressor": ("compressor/",),
    "storage": ("storage/",),
    "server": ("server/", "compressor/", "storage/"),
}
TORCH_FOLDERS = ("server/engine/", "server/sidecar/", "compressor/neural/")
TORCH_INCLUDE = re.compile(r"^(torch|ATen|c10|caffe2)/")
GRPC_INCLUDE = re.compile(r"^(grpc|grpcpp)/|\.grpc\.pb\.h$")
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')


@dataclass(frozen=True)
class SourceFile:
    """A tracked text file: its path from the root, and its lines."""

    path: PurePosixPath
    lines: list[str]

    @property
    def folder(self) -> str:
        """The first part of the path, "" for files at the root."""
        return self.path.parts[0] if len(self.path.parts) > 1 else ""

    @property
    def is_code(self) -> bool:
        """Whether this is one of the project's C++ files."""
        return self.path.suffix in CODE_SUFFIXES and self.folder in {
            "client",
            "compressor",
            "server",
            "storage",
            "tests",
        }

    @property
    def is_test(self) -> bool:
        """Whether this is part of the tests."""
        return self.folder == "tests" or self.path.stem.endswith(("_test", "_testing"))

    def includes(self) -> Iterator[tuple[int, str, str]]:
        """Line, kind of bracket and path of each include."""
        for number, line in enumerate(self.lines, 1):
            match = INCLUDE.match(line)
            if match:
                yield number, match.group(1), match.group(2)


def check_layout(file: SourceFile) -> Iterator[Finding]:
    """The top level holds only what docs/conventions name; names are snake_case and say something."""
    top = file.path.parts[0]
    if not top.startswith(".") and top not in TOP_LEVEL:
        yield 1, f"'{top}' does not belong at the top level"
    if file.is_code:
        if not re.fullmatch(r"[a-z][a-z0-9_]*(-inl)?", file.path.stem):
            yield 1, "file names are snake_case"
        if file.path.stem in VAGUE_NAMES:
            yield 1, f"'{file.path.stem}' says nothing; name what is in it"


def check_size(file: SourceFile) -> Iterator[Finding]:
    """Code files are split before they reach MAXIMUM_LINES."""
    if file.is_code and len(file.lines) > MAXIMUM_LINES:
        yield len(file.lines), f"{len(file.lines)} lines; split at {MAXIMUM_LINES}"


def check_guard(file: SourceFile) -> Iterator[Finding]:
    """Headers have an include guard made from their path."""
    if file.path.suffix != ".h" or not file.is_code or file.path.stem.endswith("-inl"):
        return  # Highway includes an -inl.h once for each instruction set
    parts = [part for part in file.path.parts if part not in {"include"}]
    if file.path.parts[:2] == ("client", "include"):
        parts = list(file.path.parts[3:])
    names = {"QUICKSAVE_" + re.sub(r"[^A-Za-z0-9]", "_", "/".join(candidate)).upper() + "_"
             for candidate in (parts, ["client", *parts], file.path.parts)}  # fmt: skip
    text = "\n".join(file.lines)
    if not any(f"#ifndef {name}\n#define {name}\n" in text for name in names):
        yield 1, f"no include guard {min(names, key=len)}"


def check_arrows(file: SourceFile) -> Iterator[Finding]:
    """Folders include only what they may depend on: proto <- storage, compressor <- server; proto <- client."""
    if not file.is_code or file.folder == "tests":
        return
    for number, bracket, include in file.includes():
        if include.startswith(OWN_FOLDERS) and not include.startswith(ARROWS[file.folder]):
            yield number, f"{file.folder}/ may not include '{include}'"
        if bracket == '"' and include.startswith(".."):
            yield number, "includes start at the root of the repository"
        if include.startswith("quicksave/") and not include.endswith(".pb.h") and file.folder != "client":
            yield number, f"{file.folder}/ may not include the client library's '{include}'"
        if GRPC_INCLUDE.search(include) and file.folder in {"storage", "compressor"}:
            yield number, f"{file.folder}/ may not know gRPC ('{include}')"
        public = file.path.parts[:2] == ("client", "include")
        if public and (GRPC_INCLUDE.search(include) or include.endswith(".pb.h")):
            yield number, f"the client's public headers may not name gRPC or proto types ('{include}')"


def check_torch(file: SourceFile) -> Iterator[Finding]:
    """Torch is included in the engine only, and never beside generated protos."""
    if not file.is_code:
        return
    includes = list(file.includes())
    torch = [(number, include) for number, _, include in includes if TORCH_INCLUDE.match(include)]
    allowed = str(file.path).startswith(TORCH_FOLDERS)
    for number, include in torch:
        if not allowed:
            yield number, f"'{include}': Torch is included in {' and '.join(TORCH_FOLDERS)} only"
    for number, _, include in includes:
        if torch and include.endswith(".pb.h"):
            yield number, f"'{include}' in a file that includes Torch"


def check_places(file: SourceFile) -> Iterator[Finding]:
    """No file chooses a package registry or names a path of one machine."""
    if file.path.name in LOCK_FILES:
        return
    for number, line in enumerate(file.lines, 1):
        choice = REGISTRY_CHOICES.search(line)
        if choice:
            yield number, f"chooses a package registry ('{choice.group(0)}')"
        place = MACHINE_PATHS.search(line)
        if place:
            yield number, f"names the machine's path '{place.group(0)}'"


def check_notes(file: SourceFile) -> Iterator[Finding]:
    """No TODO, FIXME or XXX without an issue number; no banned comments of linters without a reason."""
    for number, line in enumerate(file.lines, 1):
        if re.search(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))", line) and file.folder not in {"docs", "scripts"}:
            yield number, "TODO without an issue number"
        if re.search(r"//\s*NOLINT(NEXTLINE|BEGIN)?(?!END)\s*$", line):
            yield number, "NOLINT without the name of the check"


def check_sleeps(file: SourceFile) -> Iterator[Finding]:
    """Tests wait for conditions: a sleep stands in a while loop, or its comment says what it is for."""
    if not file.is_code or not file.is_test:
        return
    for number, line in enumerate(file.lines, 1):
        before = "\n".join(file.lines[max(0, number - 4) : number])
        allowed = re.search(r"\bwhile \(|//.*\bNot to wait\b", before)  # polling has a condition
        if re.search(r"\b(sleep_for|SleepFor|usleep|sleep)\s*\(", line) and not allowed:
            yield number, "a sleep in a test: wait for the condition (or say '// Not to wait ...' above, and why)"


RULES: list[Callable[[SourceFile], Iterator[Finding]]] = [
    check_layout, check_size, check_guard, check_arrows, check_torch, check_places, check_notes, check_sleeps,
]  # fmt: skip


def tracked_files() -> list[PurePosixPath]:
    """What git tracks, and new files that it does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return sorted({PurePosixPath(name) for name in output.split("\0") if name})


def read_text(path: PurePosixPath) -> SourceFile | None:
    """The file, or None where it is gone or is not text."""
    try:
        return SourceFile(path, (ROOT / path).read_text(encoding="utf-8").splitlines())
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError):
        return None


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the rules")
    parser.add_argument("files", nargs="*", type=PurePosixPath, help="check only these, given from the root")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{rule.__name__}: {rule.__doc__}" for rule in RULES))
        return 0
    files = [file for path in arguments.files or tracked_files() if (file := read_text(path))]
    findings = 0
    for file in files:
        for rule in RULES:
            for number, text in rule(file):
                print(f"{file.path}:{number}: {text}")
                findings += 1
    print(f"{len(files)} files, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
