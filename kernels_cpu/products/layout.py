"""How packed weights lie in memory, as data: what a type says about itself, and what follows for an isa.

A *panel* is two registers of rows (16 rows with AVX2). A *block* is the columns that share a float scale. It
is stored as its *units* and then its floats; a unit is what the innermost run-time loop takes: the codes of
some columns, and their integer scales and mins, if any. ``interleave`` writes this, ``tiles`` reads it.

Codes are stored in *planes* of bits, since no 5- or 6-bit code fits a byte evenly: Q5_K is a plane of low
nibbles and one of fifth bits. A register of a plane holds, in each 32-bit lane, 4 columns of one row; those
4 bytes hold ``8 / bits`` such groups of 4 columns, the first one in the lowest bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from edgeq.kernels_cpu.integer_dot import has_lookup, has_signs
from edgeq.kernels_cpu.isa import Isa, has_halves

VERSION = 1  # of what packed bytes mean; files of another one are made anew
REGISTERS = 2  # registers of rows in a panel: two chains of sums share each broadcast activation

Correction = Literal["bias", "mins", "floats", "zero points"]
Activation = Literal["Q8_K", "Q8_0", "Q8_1", "blocked"]


@dataclass(frozen=True)
class Format:
    """A weight type: w = d · scale · (code − bias) − the correction that it names.

    ``correction`` "bias": nothing more. "mins": − dmin · min, an integer min per sub-block. "floats": + m, a
    float for each block. "zero points": − d · zero, an integer for each block.
    """

    name: str
    block: int  # columns that share a float scale
    planes: tuple[int, ...]  # bits of each plane, low ones first
    activation: Activation
    sub: int | None = None  # columns that share an integer scale; None: there are none
    signed_scales: bool = False
    correction: Correction = "bias"
    bias: int = 0
    levels: tuple[int, ...] | None = None  # the codes are indices into these
    halves: bool = True  # floats are stored in half precision
    signed_bytes: bool = False  # an encoded block is d in half precision, then the codes as signed bytes


@dataclass(frozen=True)
class Layout:
    """A format on an instruction set; offsets and sizes in bytes. Hashable, and the type of its kernels."""

    format: Format
    lanes: int
    features: frozenset[str]
    own_rows: bool = (
        False  # nothing is rearranged: a panel is its rows as they are encoded, one after the other
    )

    def __reduce__(self) -> tuple[type[Layout], tuple[Format, int, frozenset[str], bool]]:
        """Pickled (into the cache of kernels) without what is remembered beside the fields."""
        return Layout, (self.format, self.lanes, self.features, self.own_rows)

    @cached_property
    def rows(self) -> int:
        """Rows of a panel."""
        return REGISTERS * self.lanes

    @cached_property
    def planes(self) -> tuple[int, ...]:
        """Without an instruction that looks bytes up, a code is stored as its level, a byte."""
        return self.format.planes if self.looks_up or not self.format.levels else (8,)

    @cached_property
    def looks_up(self) -> bool:
        return bool(self.format.levels) and has_lookup(self.features)

    @cached_property
    def code_bits(self) -> int:
        """Of a code as it is multiplied; levels are bytes."""
        return 8 if self.format.levels else sum(self.planes)

    @cached_property
    def unit(self) -> int:
        """Columns of a unit: two sub-blocks, whose scales are one pair; without scales 32 or the block."""
        return 2 * self.format.sub if self.format.sub else min(32, self.format.block)

    @cached_property
    def step(self) -> int:
        """Columns whose planes lie together."""
        return min(32, self.unit)

    @cached_property
    def sub(self) -> int:
        """Columns whose sum is scaled at once."""
        return self.format.sub or self.unit

    @cached_property
    def units(self) -> int:
        return self.format.block // self.unit

    @cached_property
    def register(self) -> int:
        return 4 * self.lanes

    @cached_property
    def step_registers(self) -> int:
        """Registers of one step, for one of the registers of rows."""
        return self.step // 4 * sum(self.planes) // 8

    @cached_property
    def code_bytes(self) -> int:
        """Codes of a unit."""
        return self.unit // self.step * REGISTERS * self.step_registers * self.register

    @cached_property
    def pair_bytes(self) -> int:
        """Integer scales of a unit, or its mins: a pair of bytes for each row."""
        return 2 * self.rows

    @cached_property
    def has_mins(self) -> bool:
        return self.format.correction == "mins"

    @cached_property
    def unit_bytes(self) -> int:
        pairs = (self.format.sub is not None) + self.has_mins
        return self.code_bytes + pairs * self.pair_bytes

    @cached_property
    def halves(self) -> bool:
        return self.format.halves and has_halves(self.features)

    @cached_property
    def float_bytes(self) -> int:
        """One float of each row."""
        return self.rows * (2 if self.halves else 4)

    @cached_property
    def floats(self) -> int:
        """Floats of a block and row."""
        return 2 if self.format.correction in ("mins", "floats") else 1

    @cached_property
    def has_zeros(self) -> bool:
        return self.format.correction == "zero points"

    @cached_property
    def block_bytes(self) -> int:
        zeros = self.rows if self.has_zeros else 0
        return self.units * self.unit_bytes + self.floats * self.float_bytes + zeros

    @cached_property
    def next_block(self) -> int:
        """From a block of a panel's first row to the one of the next columns."""
        return self.block_bytes // self.rows if self.own_rows else self.block_bytes

    @cached_property
    def block_registers(self) -> int:
        """Registers that an unpacked block has beside its units."""
        return REGISTERS * (self.floats + self.has_zeros)

    @cached_property
    def unsigned_levels(self) -> list[int]:
        """The format's levels, bias added."""
        return [level + self.format.bias for level in self.format.levels or ()]


def layout_of(format_: Format, isa: Isa) -> Layout:
    """The layout of a format on an instruction set."""
    return Layout(format_, isa.float_lanes, isa.features)


def own_rows_of(format_: Format, isa: Isa) -> Layout | None:
    """The layout that takes encoded rows as they are; None where products would be slower than with packed ones.

    That is wherever a register does not hold just a block, or there is no multiplication of signed bytes (vpsignb).
    """
    fits = format_.signed_bytes and format_.block == 4 * isa.float_lanes and has_signs(isa.features)
    return Layout(format_, isa.float_lanes, isa.features, own_rows=True) if fits else None
