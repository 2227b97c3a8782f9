"""Where a tile gets a unit's codes and scales from: packed weights, or weights unpacked before.

One row of activations reads packed weights once, so they are taken apart in registers. Many rows would take
them apart again for each few of them: they read a panel that ``unpacked`` has written out, near the cache.

In all methods ``unit_at`` and ``block_at`` are addresses, ``j`` is the register of rows, and ``group`` a
register of operands of a chunk: four columns, or two where a word is taken for each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir

from edgeq.kernels_cpu.integer_dot import lookup
from edgeq.kernels_cpu.products.layout import REGISTERS, Layout
from edgeq.kernels_cpu.products.sums import MatrixSums, Sums
from edgeq.kernels_cpu.registers import F16, F32, I8, I16, I32, Emitter, Register, transposed

_CODES = 2  # bytes before the codes of a block of signed bytes


class Chunk(NamedTuple):
    """What is summed up before it is scaled: some groups of a unit, one digit of their codes."""

    number: int
    which: int  # sub-block of the unit
    digit: int
    first_group: int  # of the unit
    groups: int


def chunks_of(layout: Layout, sums: Sums) -> list[Chunk]:
    """All chunks of a unit, in the order in which they are unpacked."""
    in_sub = layout.sub // 4 * sums.parts
    groups = min(in_sub, sums.groups)
    parts = [
        (which, digit, which * in_sub + first)
        for which in range(layout.unit // layout.sub)
        for digit in range(len(sums.digits))
        for first in range(0, in_sub, groups)
    ]
    return [Chunk(n, *part, groups) for n, part in enumerate(parts)]


class Packed:
    """Reads what ``interleave`` writes."""

    def __init__(self, e: Emitter, layout: Layout, sums: Sums) -> None:
        self.e, self.layout, self.sums = e, layout, sums
        self.chunks = chunks_of(layout, sums)
        self.unit_bytes, self.block_bytes = layout.unit_bytes, layout.block_bytes

    def code(self, unit_at: Any, chunk: Chunk, group: int, j: int) -> Register:
        """The codes of a group, of each row, as ``sums.operand`` makes them, and ``sums.weights`` if need be."""
        if not isinstance(self.sums, MatrixSums):
            return self._operand(unit_at, chunk, group, j)
        first, half = group - group % 2, group % 2
        low, high = (self._operand(unit_at, chunk, g, j) for g in (first, first + 1))
        return self.sums.weights(low, high, half)

    def _operand(self, unit_at: Any, chunk: Chunk, group: int, j: int) -> Register:
        layout, sums, digit = self.layout, self.sums, chunk.digit
        four, part = divmod(chunk.first_group + group, sums.parts)
        step, within = divmod(four, layout.step // 4)
        code = self._code(unit_at, (step * REGISTERS + j) * layout.step_registers, within)
        if not layout.looks_up:
            return sums.operand(code, digit, part)
        levels = layout.unsigned_levels
        if len(sums.digits) == 1:
            return sums.operand(lookup(self.e, levels, code), digit, part)
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

    def scale(self, unit_at: Any, chunk: Chunk, j: int) -> Register:
        """As ``sums.scale`` makes it."""
        pairs = self._pairs(unit_at, 0, j, self.layout.format.signed_scales)
        return self.sums.scale(pairs, chunk.which, chunk.digit)

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


class OwnRows(Packed):
    """Reads encoded rows, ``stride`` bytes from one to the next, of a format with ``signed_bytes``."""

    def __init__(self, e: Emitter, layout: Layout, sums: Sums, stride: Any) -> None:
        super().__init__(e, layout, sums)
        self.block_bytes, self.stride = layout.next_block, stride
        self._columns: dict[
            tuple[Any, int], list[Register]
        ] = {}  # of the block and register of rows last asked for

    def _code(self, unit_at: Any, register: int, group: int) -> Register:
        """Four columns of as many rows as there are lanes, as the codes are packed: unsigned."""
        j, first = divmod(register, self.layout.step_registers)
        if (unit_at, j) not in self._columns:
            rows = (self._row(unit_at, j, lane) for lane in range(self.e.lanes))
            loaded = [self.e.load(at, _CODES, I32, self.e.lanes) for at in rows]
            self._columns = {(unit_at, j): transposed(loaded)}
        return self._columns[unit_at, j][first + group].bits_as(I8, self.layout.register) ^ -128

    def float(self, block_at: Any, n: int, j: int) -> Register:
        rows = (self._row(block_at, j, lane) for lane in range(self.e.lanes))
        return self.e.together([self.e.load(at, 0, F16, 1) for at in rows]).as_floats()

    def codes(self, block_at: Any) -> Register:
        """All codes of the block of one row, signed."""
        return self.e.load(block_at, _CODES, I8, self.layout.format.block)

    def d(self, block_at: Any) -> Register:
        """Its scale, in every lane."""
        one = self.e.load(block_at, 0, F16, 1).as_floats()
        return one.shuffled([0] * self.e.lanes)

    def _row(self, at: Any, j: int, lane: int) -> Any:
        return self.e.moved(at, self.stride, j * self.layout.lanes + lane)


class Unpacked:
    """Reads and writes an unpacked panel: whole registers, as the tile's instructions take them."""

    def __init__(self, e: Emitter, layout: Layout, sums: Sums) -> None:
        self.e, self.layout, self.sums = e, layout, sums
        self.chunks = chunks_of(layout, sums)
        self.digits = len(sums.digits)
        self.scaled = layout.format.sub is not None
        self.chunk_registers = (self.chunks[0].groups + self.scaled) * REGISTERS
        self.unit_registers = len(self.chunks) * self.chunk_registers + self.scaled * REGISTERS
        self.unit_bytes = self.unit_registers * layout.register
        self.block_bytes = layout.units * self.unit_bytes + layout.block_registers * layout.register

    def _load(self, at: Any, n: int, element: ir.Type) -> Register:
        count = self.layout.lanes if element is F32 else self.layout.register * 8 // element.width
        return self.e.load(at, n * self.layout.register, element, count)

    def code_slot(self, chunk: Chunk, group: int, j: int) -> int:
        """Number of the register in its unit."""
        return chunk.number * self.chunk_registers + group * REGISTERS + j

    def scale_slot(self, chunk: Chunk, j: int) -> int:
        return self.code_slot(chunk, chunk.groups, j)

    def correction_slot(self, j: int) -> int:
        return len(self.chunks) * self.chunk_registers + j

    def block_slot(self, n: int, j: int) -> int:
        """Number of the register in its block: floats, then zero points."""
        return self.layout.units * self.unit_registers + n * REGISTERS + j

    def code(self, unit_at: Any, chunk: Chunk, group: int, j: int) -> Register:
        return self._load(unit_at, self.code_slot(chunk, group, j), self.sums.element)

    def scale(self, unit_at: Any, chunk: Chunk, j: int) -> Register:
        return self._load(unit_at, self.scale_slot(chunk, j), self.sums.scale_element)

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
            for chunk in self.chunks:
                for group in range(chunk.groups):
                    put(self.code_slot(chunk, group, j), packed.code(unit_at, chunk, group, j))
                if self.scaled:
                    put(self.scale_slot(chunk, j), packed.scale(unit_at, chunk, j))
            if self.scaled:
                put(self.correction_slot(j), packed.correction(unit_at, j))

    def write_floats(self, to: Any, packed: Packed, block_at: Any) -> None:
        """Copy what a block has beside its units."""
        for j in range(REGISTERS):
            for n in range(self.layout.floats):
                self.e.store(to, self.block_slot(n, j) * self.layout.register, packed.float(block_at, n, j))
            if self.layout.has_zeros:
                self.e.store(to, self.block_slot(1, j) * self.layout.register, packed.zeros(block_at, j))


Source = Packed | Unpacked
