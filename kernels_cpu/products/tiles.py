"""The code of a product's inner part, emitted: some rows of activations times one panel of weights.

``tile`` is compiled once for a layout, a source of weights and a number of rows. Loops over blocks and units
run; those over the groups, registers and rows of a unit are written out, and no more than that: with more of
them, LLVM runs out of registers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from llvmlite import ir
from numba.core import types
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox

from edgeq.kernels_cpu.compiling import Purpose
from edgeq.kernels_cpu.integer_dot import multiply_pairs
from edgeq.kernels_cpu.isa import name_of
from edgeq.kernels_cpu.products.layout import REGISTERS, Layout
from edgeq.kernels_cpu.products.sources import Chunk, OwnRows, Packed, Source, Unpacked
from edgeq.kernels_cpu.products.sums import MatrixSums, SignSums, Sums, sums_for
from edgeq.kernels_cpu.registers import F32, I8, I16, I32, I64, Cell, Emitter, Register, Variable

_LINE = 64  # bytes of a cache line
ROWS = 4  # of activations in a tile: with 2 registers of weight rows, 8 sums in 16 registers


class LayoutType(types.Type):
    """The type of a ``Layout`` in a kernel, which is compiled once for each."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.purpose = Purpose(layout.format.name, name_of(layout.lanes, layout.features))
        features = " ".join(sorted(layout.features))
        own = ", own rows" if layout.own_rows else ""
        super().__init__(name=f"LayoutType({layout.format}, {layout.lanes}, {features}{own})")


register_model(LayoutType)(models.OpaqueModel)


@typeof_impl.register(Layout)
def _typeof_layout(layout: Layout, _context: Any) -> LayoutType:
    known = vars(layout)  # making a type takes microseconds, at every call of a kernel
    if "_type" not in known:
        known["_type"] = LayoutType(layout)
    return cast(LayoutType, known["_type"])


@unbox(LayoutType)
def _unbox_layout(_type: LayoutType, _value: Any, c: Any) -> NativeValue:
    return NativeValue(c.context.get_dummy_value())


Grid = list[list[Register]]  # [row of activations][register of rows of weights]


class Row(NamedTuple):
    """Addresses in a row of activations, as ``activations`` writes them."""

    codes: Any
    scales: Any
    words: Any  # sums, or s of Q8_1


class Tile:
    """Emits ``rows`` × one panel. ``results[i][j]`` belong to row i of x and register j of weight rows.

    They are in memory, as there are no registers for them beside the integers.
    """

    def __init__(
        self, e: Emitter, layout: Layout, source: Source, sums: Sums, results: list[list[Cell]]
    ) -> None:
        self.e, self.layout, self.source, self.sums, self.results = e, layout, source, sums, results
        self.scaled, self.rows = layout.format.sub is not None, len(results)
        self.totals, self.corrections = self._grid(I32), self._grid(I32)

    def _grid(self, element: ir.Type) -> list[list[Variable]]:
        zero = self.e.zero(element)
        return [[self.e.variable(zero) for _ in range(REGISTERS)] for _ in range(self.rows)]

    def emit(self, blocks: Any, weights_at: Any, x: Row, ahead_at: Any) -> None:
        """Some blocks. Meanwhile as many packed blocks come near from ``ahead_at``, unless that is 0."""
        e, layout = self.e, self.layout
        columns, words = layout.format.block * self.sums.parts, 4 * layout.units if self.scaled else 4
        with e.loop(blocks) as b:
            block_at = e.moved(weights_at, b, self.source.block_bytes)
            self._bring_near(ahead_at, b)
            first = Row(*map(e.moved, x, [b] * 3, (self.rows * columns, self.rows * 4, self.rows * words)))
            here = [Row(*map(e.offset, first, (i * columns, i * 4, i * words))) for i in range(self.rows)]
            for i in range(self.rows):
                for j in range(REGISTERS):
                    self.totals[i][j].set(e.zero(I32))
                    self.corrections[i][j].set(e.zero(I32))
            with e.loop(ir.Constant(I64, layout.units)) as u:
                columns = layout.unit * self.sums.parts
                unit = [Row(e.moved(r.codes, u, columns), None, e.moved(r.words, u, 4)) for r in here]
                self._unit(e.moved(block_at, u, self.source.unit_bytes), unit)
            self._finish_block(block_at, here)

    def _bring_near(self, ahead_at: Any, b: Any) -> None:
        """Prefetch packed block b. Where the tile itself reads them, CPUs see the next one coming."""
        if not isinstance(self.source, Unpacked):
            return
        builder = self.e.builder
        with builder.if_then(builder.icmp_signed("!=", ahead_at, ir.Constant(I64, 0))):
            packed_at = self.e.moved(ahead_at, b, self.layout.block_bytes)
            for line in range(0, self.layout.block_bytes, _LINE):
                self.e.prefetch(packed_at, line)

    def _unit(self, unit_at: Any, rows: list[Row]) -> None:
        layout, source = self.layout, self.source
        chunks = source.chunks
        if isinstance(source, Unpacked) and source.digits == 1:  # chunks are alike: let them be a loop
            with self.e.loop(ir.Constant(I64, len(chunks))) as k:
                moved = [row._replace(codes=self.e.moved(row.codes, k, 4 * chunks[0].groups)) for row in rows]
                self._chunk(
                    self.e.moved(unit_at, k, source.chunk_registers * layout.register), moved, chunks[0]
                )
        else:
            for chunk in chunks:
                self._chunk(unit_at, rows, chunk)
        if self.scaled and self._corrects():
            for j in range(REGISTERS):
                pairs = source.correction(unit_at, j)
                for i, row in enumerate(rows):
                    x_sums = self.e.load_word(row.words, 0, I32).bits_as(I16, 2 * layout.lanes)
                    total = self.corrections[i][j]
                    total.set(total.get() + multiply_pairs(self.e, pairs, x_sums))

    def _corrects(self) -> bool:
        return self.layout.format.correction != "bias" or self._bias() != 0

    def _bias(self) -> int:
        """What codes are too large by, as they reach the instructions."""
        return self.layout.format.bias - (128 if self.sums.signed_codes else 0)

    def _chunk(self, unit_at: Any, rows: list[Row], chunk: Chunk) -> None:
        """Groups whose sum cannot overflow, scaled and added to the totals."""
        partial = (
            [self._groups(unit_at, [row], chunk, 0, 2)[0] for row in rows] if chunk.groups == 2 else None
        )
        if partial is None and isinstance(self.source, Unpacked) and chunk.groups > self.sums.step:
            partial = self._looped(unit_at, rows, chunk)
        elif partial is None:
            partial = self._groups(unit_at, rows, chunk, 0, chunk.groups)
        if isinstance(self.sums, MatrixSums):
            for i, j in itertools.product(range(0, self.rows, 2), range(REGISTERS)):
                partial[i][j], partial[i + 1][j] = self.sums.by_row(partial[i][j], partial[i + 1][j])
        for j in range(REGISTERS):
            scale = self.source.scale(unit_at, chunk, j) if self.scaled else None
            for i in range(self.rows):
                total = self.totals[i][j]
                total.set(self.sums.scaled(total.get(), partial[i][j], scale, chunk.digit))

    def _looped(self, unit_at: Any, rows: list[Row], chunk: Chunk) -> Grid:
        """The sums of a chunk, some groups in each round of a run-time loop."""
        e, step = self.e, self.sums.step
        assert chunk.groups % step == 0
        first = self._groups(unit_at, rows, chunk, 0, step)
        sums = [[e.variable(register) for register in row] for row in first]
        with e.loop(ir.Constant(I64, chunk.groups // step - 1)) as k:
            moved = [row._replace(codes=e.moved(row.codes, k, 4 * step)) for row in rows]
            codes_at = e.moved(unit_at, k, step * REGISTERS * self.layout.register)
            before = [[variable.get() for variable in row] for row in sums]
            after = self._groups(codes_at, moved, chunk, step, 2 * step, before)
            for variables, registers in zip(sums, after, strict=True):
                for variable, register in zip(variables, registers, strict=True):
                    variable.set(register)
        return [[variable.get() for variable in row] for row in sums]

    def _groups(
        self, unit_at: Any, rows: list[Row], chunk: Chunk, first: int, last: int, before: Grid | None = None
    ) -> Grid:
        """``before`` and the groups first..last of the chunk."""
        result: list[list[Any]] = before or [[None] * REGISTERS for _ in rows]
        if isinstance(self.sums, MatrixSums):
            self._paired_groups(self.sums, unit_at, rows, chunk, range(first, last), result)
            return result
        for group in range(first, last):
            codes = [self.source.code(unit_at, chunk, group, j) for j in range(REGISTERS)]
            for i, row in enumerate(rows):
                at = 4 * (chunk.first_group + group)
                x = self.e.load_word(row.codes, at, I32).bits_as(
                    self.sums.element, self.layout.register // (self.sums.element.width // 8)
                )
                result[i] = [self.sums.added(b, code, x) for b, code in zip(result[i], codes, strict=True)]
        return result

    def _paired_groups(
        self, sums: MatrixSums, unit_at: Any, rows: list[Row], chunk: Chunk, groups: range, result: Any
    ) -> None:
        """The same with paired operands: result 2·k holds rows 2·k and 2·k + 1 of x times one half of the rows
        of weights, result 2·k + 1 times the other half."""
        for group in groups:
            at, half = 4 * (chunk.first_group + group - group % 2), group % 2
            codes = [self.source.code(unit_at, chunk, group, j) for j in range(REGISTERS)]
            for i in range(0, self.rows, 2):
                x = sums.activations(*(self.e.load(row.codes, at, I64, 1) for row in rows[i : i + 2]))
                before = result[i + half]
                result[i + half] = [sums.added(b, code, x) for b, code in zip(before, codes, strict=True)]

    def _finish_block(self, block_at: Any, rows: list[Row]) -> None:
        """Integers times the float scales, added to the results."""
        e, source = self.e, self.source
        for j in range(REGISTERS):
            d = source.float(block_at, 0, j)
            second = source.float(block_at, 1, j) if self.layout.floats > 1 else None
            zeros = source.zeros(block_at, j) if self.layout.has_zeros else None
            for i, row in enumerate(rows):
                d_x = e.load_word(row.scales, 0, F32)
                result = self.results[i][j]
                total = self._corrected(self.totals[i][j].get(), self.corrections[i][j].get(), row, zeros)
                new = e.fma(d * d_x, total.as_floats(), result.get())
                if self.layout.has_mins and second is not None:
                    low = self.corrections[i][j].get().as_floats()
                    new = e.fma(second * d_x * -1.0, low, new)
                elif second is not None:
                    new = e.fma(second, e.load_word(row.words, 0, F32), new)
                result.set(new)

    def _corrected(self, total: Register, correction: Register, row: Row, zeros: Register | None) -> Register:
        """Take the bias, or the zero points, off the int32 total."""
        bias = self._bias()
        if zeros is not None:
            return total - (zeros + bias) * self.e.load_word(row.words, 0, I32)
        if not bias:
            return total
        return total - (correction if self.scaled else self.e.load_word(row.words, 0, I32)) * bias


def emit_tile(builder: ir.IRBuilder, layout: Layout, rows: int, addresses: Sequence[Any]) -> None:
    """``tile`` by LLVM values: blocks, weights, codes, scales, words, out, out_stride, ahead."""
    blocks, weights, codes, scales, words, out, stride, ahead = addresses
    e = Emitter(builder, layout.lanes, layout.features)
    if layout.own_rows and rows == 1:
        _emit_dots(e, layout, blocks, weights, codes, scales, out)
        return
    sums = sums_for(e, layout.code_bits, rows)
    source = (Packed if rows == 1 else Unpacked)(e, layout, sums)
    rows_at = [e.moved(out, stride, i) for i in range(rows)]
    results = [[Cell(e, e.offset(at, j * layout.register), F32) for j in range(REGISTERS)] for at in rows_at]
    Tile(e, layout, source, sums, results).emit(blocks, weights, Row(codes, scales, words), ahead)


def _emit_dots(
    e: Emitter, layout: Layout, blocks: Any, rows_at: Any, codes: Any, scales: Any, out: Any
) -> None:
    """One row of activations × a panel of encoded rows, each by itself, since memory is read in its order."""
    stride, sums = e.moved(ir.Constant(I64, 0), blocks, layout.next_block), SignSums(e, layout.code_bits)
    source = OwnRows(e, layout, sums, stride)
    with e.loop(ir.Constant(I64, layout.rows)) as row:
        row_at = e.builder.add(rows_at, e.builder.mul(row, stride))
        total = e.variable(e.zero(F32))
        with e.loop(blocks) as b:
            block_at, x_at = e.moved(row_at, b, layout.next_block), e.moved(codes, b, layout.format.block)
            sum_ = sums.added(None, source.codes(block_at), e.load(x_at, 0, I8, layout.register))
            d = source.d(block_at) * e.load_word(e.moved(scales, b, 4), 0, F32)
            total.set(e.fma(d, sum_.as_floats(), total.get()))
        to = e.moved(out, row, 4)
        e.store(to, 0, e.load(to, 0, F32, 1) + e.sum_of(total.get()))


@intrinsic(prefer_literal=True)
def tile(_typing, layout, rows, blocks, weights, codes, scales, words, out, out_stride, ahead):
    """``rows`` (a literal) of activations × one panel, added to float32 at ``out``, rows ``out_stride`` bytes apart.

    One row is multiplied with packed weights, more, arranged by ``arrange``, with unpacked ones; meanwhile the
    packed panel at ``ahead`` (any address, or 0) comes near. All but ``blocks`` and ``out_stride`` are addresses.
    """
    if not isinstance(layout, LayoutType) or not isinstance(rows, types.IntegerLiteral):
        return None

    def codegen(context, builder, sig, args):
        emit_tile(builder, layout.layout, rows.literal_value, args[2:])
        return context.get_dummy_value()

    return types.none(layout, rows, *[types.int64] * 8), codegen


@intrinsic
def unpack(_typing, layout, blocks, of_blocks, weights, out):
    """Write ``blocks`` of the ``of_blocks`` of a panel to ``out``, unpacked; weights and out are addresses, int64."""
    if not isinstance(layout, LayoutType):
        return None

    def codegen(context, builder, sig, args):
        e = Emitter(builder, layout.layout.lanes, layout.layout.features)
        sums = sums_for(e, layout.layout.code_bits, ROWS)
        packed, unpacked = Packed(e, layout.layout, sums), Unpacked(e, layout.layout, sums)
        if layout.layout.own_rows:
            stride = builder.mul(args[2], ir.Constant(I64, layout.layout.next_block))
            packed = OwnRows(e, layout.layout, sums, stride)
        with e.loop(args[1]) as b:
            block_at, to = e.moved(args[3], b, packed.block_bytes), e.moved(args[4], b, unpacked.block_bytes)
            with e.loop(ir.Constant(I64, layout.layout.units)) as u:
                unit_at = e.moved(block_at, u, packed.unit_bytes)
                unpacked.write_unit(e.moved(to, u, unpacked.unit_bytes), packed, unit_at)
            unpacked.write_floats(to, packed, block_at)
        return context.get_dummy_value()

    return types.none(layout, *[types.int64] * 4), codegen


@intrinsic
def next_block(_typing, layout):
    """``Layout.next_block``, int64."""
    if not isinstance(layout, LayoutType):
        return None

    def codegen(context, builder, sig, args):
        return ir.Constant(I64, layout.layout.next_block)

    return types.int64(layout), codegen


def unpacked_bytes(layout: Layout) -> int:
    """Bytes that ``unpack`` writes for each block of a panel."""
    e = Emitter(cast(Any, None), layout.lanes, layout.features)
    return Unpacked(e, layout, sums_for(e, layout.code_bits, ROWS)).block_bytes


def operand_parts(layout: Layout) -> int:
    """Bytes of an activation in a product of many rows: 2 where they are widened (``arrange``)."""
    e = Emitter(cast(Any, None), layout.lanes, layout.features)
    return sums_for(e, layout.code_bits, ROWS).parts


@intrinsic
def unpacked_block_bytes(_typing, layout):
    """``unpacked_bytes``, int64."""
    if not isinstance(layout, LayoutType):
        return None

    def codegen(context, builder, sig, args):
        return ir.Constant(I64, unpacked_bytes(layout.layout))

    return types.int64(layout), codegen


@intrinsic
def operand_bytes(_typing, layout):
    """``operand_parts``, int64."""
    if not isinstance(layout, LayoutType):
        return None

    def codegen(context, builder, sig, args):
        return ir.Constant(I64, operand_parts(layout.layout))

    return types.int64(layout), codegen
