"""What an instruction set offers to the kernels. This floor is handed one that ``devices.detect`` found.

No Numba here: an ``Isa`` is a value that travels down from devices to the kernels, which compile once for
each. Its lanes decide how wide the vectors are; its features, which instructions may be asked for by name.
"""

from __future__ import annotations

from typing import NamedTuple

from edgeq.formats.errors import EdgeqError


class Isa(NamedTuple):
    """An instruction set: its name, the bits of a vector register, and the LLVM features it stands for."""

    name: str
    vector_bits: int
    features: frozenset[str] = frozenset()

    @property
    def float_lanes(self) -> int:
        """float32 values in one register."""
        return self.vector_bits // 32


def has_halves(features: frozenset[str]) -> bool:
    """Is there an instruction that converts half precision? Without, LLVM would call a missing library."""
    return bool(features & {"f16c", "neon"})


_AVX2 = frozenset({"avx2", "fma", "f16c"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}

# Plain vector code with four lanes, which LLVM compiles for anything; asks for no feature.
PORTABLE = Isa("portable", 128)
AVX2 = Isa("avx2", 256, _AVX2)
AVX_VNNI = Isa("avxvnni", 256, _AVX2 | {"avxvnni"})
AVX512_VNNI = Isa("avx512vnni", 512, _AVX512 | {"avx512vnni"})
NEON = Isa("neon", 128, frozenset({"neon"}))
NEON_DOTPROD = Isa("neon-dotprod", 128, frozenset({"neon", "dotprod"}))
NEON_I8MM = Isa("neon-i8mm", 128, frozenset({"neon", "dotprod", "i8mm"}))

# Best first: a CPU gets the first one whose features it has.
ALL = (AVX512_VNNI, AVX_VNNI, AVX2, NEON_I8MM, NEON_DOTPROD, NEON, PORTABLE)


def by_name(name: str) -> Isa:
    """The instruction set of that name, any case; raises EdgeqError."""
    for isa in ALL:
        if isa.name == name.lower():
            return isa
    raise EdgeqError(f"{name}: no such instruction set; there are {', '.join(isa.name for isa in ALL)}")


def name_of(float_lanes: int, features: frozenset[str]) -> str:
    """The name of an instruction set; empty where it is none of ``ALL``."""
    return next((i.name for i in ALL if (i.float_lanes, i.features) == (float_lanes, features)), "")
