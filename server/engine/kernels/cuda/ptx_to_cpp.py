#!/usr/bin/env python3
"""Translates kernels in PTX, as nvcc writes them, to C++ that a CPU runs, to test what nvcc made of the source.

Usage: ptx_to_cpp.py IN.ptx OUT.cc

Each instruction becomes one statement, with the meaning that NVIDIA's "PTX ISA" gives it. The functions have the type
PtxKernel::Function of testing/ptx_kernels.h.

Of instructions on floating-point numbers, only those of IEEE 754 are known that round to nearest (.rn, which forbids
that they are fused later) and flush denormals (.ftz, as the calling thread has to), and those that round nothing.
Another one, an approximation or a sum that might still be fused, ends the translation with exit status 1, and so does
whatever else is not known.
"""

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

C_TYPES = {
    "s8": "int8_t", "u8": "uint8_t", "b8": "uint8_t", "s16": "int16_t", "u16": "uint16_t", "b16": "uint16_t",
    "s32": "int32_t", "u32": "uint32_t", "b32": "uint32_t", "s64": "int64_t", "u64": "uint64_t", "b64": "uint64_t",
    "f32": "float", "pred": "bool",
}  # fmt: skip
SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}
REGISTERS = {"p": "bool", "rs": "uint16_t", "r": "uint32_t", "rd": "uint64_t", "f": "float"}
SPECIAL = {"%tid.x": "thread", "%ntid.x": "threads", "%ctaid.x": "block", "%nctaid.x": "blocks"}
COMPARISONS = {"eq": "{} == {}", "ne": "{} != {}", "lt": "{} < {}", "le": "{} <= {}", "gt": "{} > {}", "ge": "{} >= {}",
               "leu": "!({} > {})", "ltu": "!({} >= {})"}  # fmt: skip
INTEGER_OPERATORS = {"add": "+", "sub": "-", "mul.lo": "*", "and": "&", "or": "|", "xor": "^", "div": "/", "rem": "%"}
FLOAT_OPERATORS = {"add.rn.ftz.f32": "+", "sub.rn.ftz.f32": "-", "mul.rn.ftz.f32": "*", "div.rn.ftz.f32": "/"}
FLOAT_FUNCTIONS = {
    "fma.rn.ftz.f32": "std::fma", "sqrt.rn.ftz.f32": "std::sqrt", "rcp.rn.ftz.f32": "1.0F / ", "abs.ftz.f32": "PtxAbs",
    "neg.ftz.f32": "PtxNeg", "min.ftz.f32": "PtxMin", "max.ftz.f32": "PtxMax", "cvt.rni.f32.f32": "std::nearbyint",
    "cvt.rzi.ftz.s32.f32": "PtxTruncate",
}  # fmt: skip


class UnknownError(Exception):
    """Something in the PTX that has no translation."""


def operand(text: str) -> str:
    """A register, a constant or a special register in C++."""
    if text in SPECIAL:
        return SPECIAL[text]
    if match := re.fullmatch(r"%(p|rs|rd|r|f)(\d+)", text):
        return f"{match[1]}{match[2]}"
    if match := re.fullmatch(r"0f([0-9A-Fa-f]{8})", text):
        return f"PtxFloat(0x{match[1]}U)"
    if re.fullmatch(r"-?\d+", text):
        return f"INT64_C({text})"
    raise UnknownError(f"operand {text}")


def typed(text: str, ptx_type: str) -> str:
    """An operand as a value of a type."""
    return f"static_cast<{C_TYPES[ptx_type]}>({operand(text)})"


@dataclass
class Kernel:
    """A kernel that is being translated: where its parameters are, and its statements."""

    name: str
    offsets: dict[str, int] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    registers: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)

    def add_parameter(self, line: str) -> None:
        """Gives a parameter its place after those before it."""
        match = re.search(r"\.param (?:\.align (\d+) )?\.[busf](\d+) ([\w$]+)(?:\[(\d+)\])?", line)
        if not match:
            raise UnknownError(line)
        size = SIZES[match[2]] * int(match[4] or 1)
        alignment = int(match[1] or size)
        end = max(self.offsets.values(), default=0) + sum(self.sizes[-1:])
        self.offsets[match[3]] = (end + alignment - 1) // alignment * alignment
        self.sizes.append(size)

    def address(self, text: str) -> str:
        """[register+4] or [parameter+4]."""
        match = re.fullmatch(r"\[([\w$%]+)(?:\+(-?\d+))?\]", text)
        if not match:
            raise UnknownError(f"address {text}")
        offset = int(match[2] or 0)
        if match[1] in self.offsets:
            return f"reinterpret_cast<uintptr_t>(parameters) + {self.offsets[match[1]] + offset}"
        return f"{operand(match[1])} + INT64_C({offset})"

    def load(self, operation: str, arguments: list[str]) -> str:
        """Loads of one value, or of several that follow each other."""
        ptx_type = operation.split(".")[-1]
        c_type = C_TYPES[ptx_type]
        step = SIZES[ptx_type[1:]]
        targets = [name.strip(" {}") for name in arguments[:-1]]
        base = self.address(arguments[-1])
        return " ".join(f"{operand(to)} = *reinterpret_cast<const {c_type}*>({base} + {i * step});"
                        for i, to in enumerate(targets))  # fmt: skip

    def store(self, operation: str, arguments: list[str]) -> str:
        """Stores of one value."""
        ptx_type = operation.split(".")[-1]
        address = self.address(arguments[0])
        return f"*reinterpret_cast<{C_TYPES[ptx_type]}*>({address}) = {typed(arguments[1], ptx_type)};"


def move(arguments: list[str]) -> str:
    """Moves keep the bits: between integer and float registers, and from the halves of a register and to them, too."""
    if len(arguments) > 2:
        a, b, c = (operand(argument.strip(" {}")) for argument in arguments)
        if arguments[0].startswith("{"):
            return f"{a} = static_cast<uint16_t>({c}); {b} = static_cast<uint16_t>({c} >> 16);"
        return f"{a} = {b} | static_cast<uint32_t>({c}) << 16;"
    to, source = (operand(argument) for argument in arguments)
    if to.startswith("f") and source.startswith("r"):
        return f"{to} = PtxFloat({source});"
    if to.startswith("r") and source.startswith("f"):
        return f"{to} = PtxBits({source});"
    return f"{to} = {source};"


def arithmetic(operation: str, arguments: list[str]) -> str:
    """The right side of an assignment to the first argument."""
    name, ptx_type = operation.rsplit(".", 1)
    sources = arguments[1:]
    values = [operand(source) for source in sources]
    if operation in FLOAT_OPERATORS:
        return f"{values[0]} {FLOAT_OPERATORS[operation]} {values[1]}"
    if operation in FLOAT_FUNCTIONS:
        return f"{FLOAT_FUNCTIONS[operation]}({', '.join(values)})"
    if match := re.fullmatch(r"setp\.(\w+)\.ftz" if ptx_type == "f32" else r"setp\.(\w+)", name):
        return COMPARISONS[match[1]].format(typed(sources[0], ptx_type), typed(sources[1], ptx_type))
    if name == "selp":
        return f"{values[2]} ? {typed(sources[0], ptx_type)} : {typed(sources[1], ptx_type)}"
    if ptx_type == "f32":
        raise UnknownError(operation)
    if operation == "cvt.rn.f32.s32":
        return f"static_cast<float>({typed(sources[0], 's32')})"
    if match := re.fullmatch(r"cvt\.([us]\d+)", name):
        return f"static_cast<{C_TYPES[match[1]]}>({typed(sources[0], ptx_type)})"
    if name in INTEGER_OPERATORS:
        # Sums and products wrap; only quotients know of signs.
        unsigned = "u64" if ptx_type.endswith("64") else "u32"
        as_type = ptx_type if name in {"div", "rem"} or ptx_type == "pred" else unsigned
        return f" {INTEGER_OPERATORS[name]} ".join(typed(source, as_type) for source in sources)
    if name in {"shl", "shr"}:
        function = "PtxShiftLeft" if name == "shl" else "PtxShiftRight"
        return f"{function}({typed(sources[0], ptx_type)}, {typed(sources[1], 'u32')})"
    if name in {"min", "max"}:
        return f"std::{name}({typed(sources[0], ptx_type)}, {typed(sources[1], ptx_type)})"
    if name == "not":
        return f"{'!' if ptx_type == 'pred' else '~'}{typed(sources[0], ptx_type)}"
    if name == "mul.wide":
        wide = C_TYPES[ptx_type[0] + "64"]
        return f"static_cast<{wide}>({typed(sources[0], ptx_type)}) * {typed(sources[1], ptx_type)}"
    if operation == "mad.lo.s32":
        return f"{typed(sources[0], 'u32')} * {typed(sources[1], 'u32')} + {typed(sources[2], 'u32')}"
    if operation == "dp2a.lo.s32.s32":
        return f"PtxDotProduct({', '.join(values)})"
    if operation == "prmt.b32":
        return f"PtxPermute({', '.join(values)})"
    raise UnknownError(operation)


def statement(kernel: Kernel, operation: str, arguments: list[str]) -> str:
    """One instruction in C++."""
    special: dict[str, Callable[[], str]] = {
        "bra": lambda: f"goto {arguments[0].lstrip('$')};",
        "ret": lambda: "return;",
        "mov": lambda: move(arguments),
        "cvta": lambda: move(arguments),
        "ld": lambda: kernel.load(operation, arguments),
        "st": lambda: kernel.store(operation, arguments),
    }
    translate = special.get(operation.split(".")[0])
    return translate() if translate else f"{operand(arguments[0])} = {arithmetic(operation, arguments)};"


def add_line(kernel: Kernel, line: str) -> None:
    """One line of a kernel's body."""
    if match := re.fullmatch(r"\$(\w+):", line):
        kernel.statements.append(f"{match[1]}:;")
    elif match := re.fullmatch(r"\.reg \.\w+\s+%(\w+)<(\d+)>;", line):
        names = ", ".join(f"{match[1]}{i}" for i in range(1, int(match[2])))
        kernel.registers.append(f"{REGISTERS[match[1]]} {names};" if names else "")
    elif match := re.fullmatch(r"(?:@(!?)%(p\d+)\s+)?([a-z][\w.]*)\s*(.*);", line):
        arguments = [argument.strip() for argument in match[4].split(",")] if match[4] else []
        condition = f"if ({match[1]}{match[2]}) " if match[2] else ""
        kernel.statements.append(f"{condition}{{ {statement(kernel, match[3], arguments)} }}")
    elif not line.startswith(".pragma"):
        raise UnknownError(line)


def read_kernels(text: str) -> list[Kernel]:
    """All kernels of a file, translated."""
    kernels = []
    for match in re.finditer(r"\.entry (\w+)\((.*?)\)(.*?)\n\{(.*?)\n\}", text, re.DOTALL):
        kernel = Kernel(match[1])
        for parameter in match[2].strip().split("\n"):
            kernel.add_parameter(parameter)
        for line in match[4].split("\n"):
            stripped = line.split("//")[0].strip()
            if stripped:
                add_line(kernel, stripped)
        kernels.append(kernel)
    return kernels


FILE = """\
// Made by ptx_to_cpp.py.
#include "server/engine/testing/ptx_kernels.h"

#include "server/engine/testing/ptx_operations.h"

namespace quicksave::engine {
namespace {
$FUNCTIONS
}  // namespace

const std::vector<PtxKernel>& PtxKernels() {
  static const std::vector<PtxKernel> kernels = {
$TABLE
  };
  return kernels;
}

}  // namespace quicksave::engine
"""
FUNCTION = """
void Kernel$NUMBER(const std::byte* parameters, uint32_t block, uint32_t blocks, uint32_t thread, uint32_t threads) {
$BODY
}
"""


def write(kernels: list[Kernel]) -> str:
    """The C++ file."""
    functions = []
    rows = []
    for number, kernel in enumerate(kernels):
        body = "\n".join(f"  {line}" for line in kernel.registers + kernel.statements)
        functions.append(Template(FUNCTION).substitute(NUMBER=number, BODY=body))
        places = ", ".join(f"{{{o}, {s}}}" for o, s in zip(kernel.offsets.values(), kernel.sizes, strict=True))
        rows.append(f'      {{"{kernel.name}", {{{places}}}, &Kernel{number}}},')
    return Template(FILE).substitute(FUNCTIONS="".join(functions), TABLE="\n".join(rows))


def main() -> int:
    """Translates one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ptx", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    try:
        arguments.out.write_text(write(read_kernels(arguments.ptx.read_text())))
    except UnknownError as error:
        print(f"{arguments.ptx}: no translation of: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
