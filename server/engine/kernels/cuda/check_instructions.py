#!/usr/bin/env python3
"""Checks that the kernels for GPUs have only arithmetic whose bits are those of the CPU.

Usage: check_instructions.py FILE.ptx

Of instructions on floating-point numbers, only those of IEEE 754 are allowed that round to nearest and flush
denormals, and those that round nothing: no approximations, no doubles, and no product or sum that an optimiser might
fuse, as it may where an instruction names no rounding. Each other one is a finding. Exit status 1 where there is one,
or where there are fewer kernels or fused products than a forward pass needs.
"""

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

# PTX ISA, "Floating Point Instructions": .rn rounds to nearest even and forbids fusing, .ftz flushes denormals.
ROUNDED = re.compile(r"(add|sub|mul|fma|div|rcp|sqrt)\.rn\.ftz\.f32")
CHOICES = re.compile(r"(abs|neg|min|max)\.ftz\.f32|setp\.[a-z]+\.ftz\.f32|(selp|mov)\.f32")
CONVERSIONS = re.compile(r"cvt\.rn\.f32\.s32|cvt\.rni(\.ftz)?\.f32\.f32|cvt\.rzi\.ftz\.s32\.f32")
MEMORY = re.compile(r"(ld|st)(\.(param|global|local|const))?(\.v[24])?\.f32")
FLOATING = re.compile(r"^\s*(?:@!?%p\d+\s+)?([a-z][a-z0-9_.]*\.(?:f16|f16x2|bf16|bf16x2|f32|f64|tf32)[a-z0-9_.]*)\s")
ENTRY = re.compile(r"\.entry\s")
# A kernel for each functor of kernels/scalar.
MINIMUM_KERNELS = 17


def is_allowed(instruction: str) -> bool:
    """Whether an instruction is one of those that give the CPU's bits."""
    return any(allowed.fullmatch(instruction) for allowed in (ROUNDED, CHOICES, CONVERSIONS, MEMORY))


def main() -> int:
    """Prints the findings and what was counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ptx", type=Path)
    lines = parser.parse_args().ptx.read_text().splitlines()
    kernels = sum(1 for line in lines if ENTRY.search(line))
    found = Counter(match.group(1) for line in lines if (match := FLOATING.match(line)))
    findings = [f"{count} times {name}" for name, count in sorted(found.items()) if not is_allowed(name)]
    for name, count in sorted(found.items()):
        print(f"{count:6} {name}")
    if kernels < MINIMUM_KERNELS:
        findings.append(f"{kernels} kernels, fewer than {MINIMUM_KERNELS}")
    if found["fma.rn.ftz.f32"] == 0:
        findings.append("no fma.rn.ftz.f32")
    for finding in findings:
        print(f"error: {finding}", file=sys.stderr)
    print(f"{kernels} kernels, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
