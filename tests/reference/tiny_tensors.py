"""The values of the tiny random models of record_families.py, which follow from the names of their tensors."""

import numpy as np
import numpy.typing as npt

Uint64Array = npt.NDArray[np.uint64]


def name_seed(name: str) -> int:
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def split_mix(state: Uint64Array) -> Uint64Array:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def tensor_values(name: str, count: int, mean: float, deviation: float) -> npt.NDArray[np.float32]:
    """Uniform values with this mean and deviation, representable in bfloat16; element i depends on name and i only."""
    state = np.uint64(name_seed(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    unit = (split_mix(state) >> np.uint64(40)).astype(np.float64) * 2.0**-24
    values = (mean + deviation * 1.75 * (2 * unit - 1)).astype(np.float32)
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)
