"""Which block types llama.cpp copies into another layout for its faster products on a CPU.

Source: ggml_repack_get_optimal_repack_type of llama.cpp 0c1e57098.
"""

from __future__ import annotations

from collections.abc import Collection

# By the instruction set that it needs.
_REPACKED = {
    "avx2": frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}),
    "avx512f": frozenset({"Q2_K"}),
    "dotprod": frozenset({"Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4"}),
}


def repacked(isa: Collection[str]) -> frozenset[str]:
    """The types on a CPU with these instruction sets."""
    return frozenset().union(*(types for name, types in _REPACKED.items() if name in isa))
