"""Where a tile gets a unit's codes and scales from: packed weights, or weights unpacked before.

One row of activations reads packed weights once, so they are taken apart in registers. Many rows would take
them apart again for each few of them: they read a panel that ``unpacked`` has written out, near the cache.

In all methods ``unit_at`` and ``block_at`` are addresses, ``j`` is the register of rows, ``which`` the
sub-block of the unit, ``group`` four columns of it, and ``digit`` that of the code.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from edgeq.kernels_cpu.integer_dot import lookup
from edgeq.kernels_cpu.products.layout import REGISTERS, Layout
from edgeq.kernels_cpu.products.sums import Sums
from edgeq.kernels_cpu.registers import F16, F32, I8, I16, I32, Emitter, Register


class Packed:
    """Reads what ``interleave`` writes."""

    def __init__(self, e: Emitter, layout: Layout, sums: Sums) -> None:
        self.e, self.layout, self.sums = e, layout, sums
        self.unit_bytes, self.block_bytes = layout.unit_bytes, layout.block_bytes

    def code(self, unit_at: Any, which: int, group: int, j: int, digit: int) -> Register:
        """Four columns of each row: one digit of their codes, uint8."""
        layout, sums = self.layout, self.sums
        step, within = divmod(which * layout.sub // 4 + group, layout.step // 4)
        code = self._code(unit_at, (step * REGISTERS + j) * layout.step_registers, within)
        if not layout.looks_up:
            return sums.digit(code, digit)
        levels = layout.unsigned_levels
        if len(sums.digits) == 1:
            return sums.digit(lookup(self.e, levels, code), digit)
        return lookup(self.e, [level >> 4 * digit & 15 for level in levels], code)

    def _code(self, unit_at: Any, register: int, group: int) -> Register:
        """The planes of a group put together; the step's planes begin at that register."""
        whole: Register | None = None
        shift = 0
        for bits in self.layout.planes:
            held = 8 // bits  # groups in a register
            at = (register + group // held) * self.layout.register
            words = self.e.load(unit_at, at, I16, 2 * self.layout.lanes)  # no CPU shifts bytes
            place = group % held * bits
            words = words >> (place - shift) if place >= shift else words << (shift - place)
            part = words.bits_as(I8, self.layout.register) & (((1 << bits) - 1) << shift)
            whole = part if whole is None else whole | part
            register += self.layout.step // 4 // held
            shift += bits
        assert whole is not None
        return whole

    def scale(self, unit_at: Any, which: int, j: int, digit: int) -> Register:
        """As ``sums.scale`` makes it."""
        return self.sums.scale(self._pairs(unit_at, 0, j, self.layout.format.signed_scales), which, digit)

    def correction(self, unit_at: Any, j: int) -> Register:
        """Pairs of int16 that the activations' sums are multiplied with: mins, else scales."""
        if self.layout.has_mins:
            return self._pairs(unit_at, 1, j, signed=False)
        return self._pairs(unit_at, 0, j, self.layout.format.signed_scales)

    def _pairs(self, unit_at: Any, n: int, j: int, signed: bool) -> Register:
        at = self.layout.code_bytes + n * self.layout.pair_bytes + j * 2 * self.layout.lanes
        return self.e.load(unit_at, at, I8, 2 * self.layout.lanes).extended(I16, signed)

    def float(self, block_at: Any, n: int, j: int) -> Register:
        """float32: d (n = 0), dmin or m (1)."""
        layout = self.layout
        part = layout.float_bytes // REGISTERS
        at = layout.units * layout.unit_bytes + n * layout.float_bytes + j * part
        loaded = self.e.load(block_at, at, F16 if layout.halves else F32, layout.lanes)
        return loaded.as_floats() if layout.halves else loaded

    def zeros(self, block_at: Any, j: int) -> Register:
        """Zero points, int32."""
        at = self.block_bytes - self.layout.rows + j * self.layout.lanes
        return self.e.load(block_at, at, I8, self.layout.lanes).extended(I32, signed=False)


class Unpacked:
    """Reads and writes an unpacked panel: whole registers, as the tile's instructions take them."""

    def __init__(self, e: Emitter, layout: Layout, sums: Sums) -> None:
        self.e, self.layout, self.sums = e, layout, sums
        self.digits, self.groups = len(sums.digits), layout.sub // 4
        self.subs = layout.unit // layout.sub
        self.codes = self.subs * self.digits * self.groups * REGISTERS  # registers of codes in a unit
        scales = self.subs * self.digits * REGISTERS
        scaled = layout.format.sub is not None
        self.unit_bytes = (self.codes + (scales + REGISTERS if scaled else 0)) * layout.register
        self.scales = scales
        self.block_bytes = layout.units * self.unit_bytes + layout.block_registers * layout.register

    def _load(self, at: Any, n: int, element: ir.Type) -> Register:
        count = self.layout.register * 8 // element.width if element is not F32 else self.layout.lanes
        return self.e.load(at, n * self.layout.register, element, count)

    def code_slot(self, which: int, group: int, j: int, digit: int) -> int:
        """Number of the register in its unit."""
        return ((which * self.digits + digit) * self.groups + group) * REGISTERS + j

    def scale_slot(self, which: int, j: int, digit: int) -> int:
        return self.codes + (which * self.digits + digit) * REGISTERS + j

    def correction_slot(self, j: int) -> int:
        return self.codes + self.scales + j

    def block_slot(self, n: int, j: int) -> int:
        """Number of the register in its block: floats, then zero points."""
        return self.layout.units * self.unit_bytes // self.layout.register + n * REGISTERS + j

    def code(self, unit_at: Any, which: int, group: int, j: int, digit: int) -> Register:
        return self._load(unit_at, self.code_slot(which, group, j, digit), I8)

    def scale(self, unit_at: Any, which: int, j: int, digit: int) -> Register:
        return self._load(unit_at, self.scale_slot(which, j, digit), self.sums.scale_element)

    def correction(self, unit_at: Any, j: int) -> Register:
        return self._load(unit_at, self.correction_slot(j), I16)

    def float(self, block_at: Any, n: int, j: int) -> Register:
        return self._load(block_at, self.block_slot(n, j), F32)

    def zeros(self, block_at: Any, j: int) -> Register:
        return self._load(block_at, self.block_slot(1, j), I32)

    def write_unit(self, to: Any, packed: Packed, unit_at: Any) -> None:
        """Copy a unit from packed weights."""

        def put(slot: int, register: Register) -> None:
            self.e.store(to, slot * self.layout.register, register)

        for j in range(REGISTERS):
            for which in range(self.subs):
                for digit in range(self.digits):
                    for group in range(self.groups):
                        code = packed.code(unit_at, which, group, j, digit)
                        put(self.code_slot(which, group, j, digit), code)
                    if self.layout.format.sub:
                        put(self.scale_slot(which, j, digit), packed.scale(unit_at, which, j, digit))
            if self.layout.format.sub:
                put(self.correction_slot(j), packed.correction(unit_at, j))

    def write_floats(self, to: Any, packed: Packed, block_at: Any) -> None:
        """Copy what a block has beside its units."""
        for j in range(REGISTERS):
            for n in range(self.layout.floats):
                self.e.store(to, self.block_slot(n, j) * self.layout.register, packed.float(block_at, n, j))
            if self.layout.has_zeros:
                self.e.store(to, self.block_slot(1, j) * self.layout.register, packed.zeros(block_at, j))


Source = Packed | Unpacked
