"""Weights in blocks of 2, 4 or 8 bits; activations stay float.

Rules
1. A linear layer's weight becomes MatMulNBits of ONNX Runtime (form "ort"), or MatMul of a DequantizeLinear with
   ``block_size`` over [K, N] (form "standard", opset 21, or 25 for 2 bits), which ONNX Runtime turns into the former
   when it loads it.
2. Integers that others made of the weight are copied where blocks hold them: their groups are made of whole blocks,
   after the columns were put in the groups' order. The layer then gathers its input in that order.
3. What such integers have beside scale and zero, an offset for each block, is added as the product of the input's
   sums over blocks with a float matrix: the same weights exactly, and with blocks of 32 a fifth more to read.
4. A table of ``Gather`` becomes GatherBlockQuantized, or Gathers of codes and scales and their product; there codes
   are of 8 bits, since ONNX Runtime gathers no smaller ones.
5. A table that a linear layer shares (a tied head) is stored once, with ``tied_bits``. In the standard form the layer
   wants it [K, N]: there 8 bits are gathered after a Transpose, and with 4 the table is stored a second time, in 8.
6. Left float: layers that ``keep`` names, tables of fewer than ``min_rows`` rows, and what no block size divides:
   such tables, and in the standard form such layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import onnx_ir as ir

from edgeq.formats.onnx import edit
from edgeq.formats.onnx.blocked import SIZES, Quantize, Scheme, quantize_rows
from edgeq.formats.onnx.blocked_grid import GridPlan, plan_grid
from edgeq.formats.onnx.blocked_store import COLUMNS, PACKED, PACKED_TABLE, ROWS, BlockedStore, Layout
from edgeq.formats.onnx.edit import add_initializer, insert
from edgeq.formats.onnx.linear import Linear, find_linears
from edgeq.formats.onnx.passes.embedding_int8 import find_table
from edgeq.formats.onnx.passes.int8_weights import add_gemm_bias
from edgeq.formats.onnx.passes.raise_opset import raise_opset
from edgeq.formats.onnx.rows import RowReader, rows_of

Form = Literal["standard", "ort"]
DOMAIN = "com.microsoft"
_OPSETS = {2: 25, 4: 21, 8: 21}  # DequantizeLinear with block_size, of integers that small
_TABLE_BITS = 8  # nothing averages out in a row that is read as it is


@dataclass(frozen=True)
class BlockedOptions:
    """What the pass is told.

    Attributes:
        form: the operators to use.
        scheme: bits, size and symmetry of what is rounded; integers that are copied keep their own.
        tied_bits: of a table that a linear layer shares.
        accuracy_level: of MatMulNBits: 4 rounds the activations to int8, 1 does not.
        quantize: rounds rows; a faster twin of the plain one may be given.
        bits: of single layers, by their weight's name, instead of the scheme's and of ``tied_bits``.
        keep: whether a layer stays float.
        min_rows: of tables.
    """

    form: Form
    scheme: Scheme
    tied_bits: int = 8
    accuracy_level: int = 4
    quantize: Quantize = quantize_rows
    bits: Mapping[str, int] = field(default_factory=dict)
    keep: Callable[[Linear], bool] = lambda linear: False
    min_rows: int = 1024


@dataclass
class BlockedResult:
    """How many linear layers and tables were rewritten; the layers that rule 6 left float; tables stored twice."""

    linears: int = 0
    tables: int = 0
    left: list[str] = field(default_factory=list)
    stored_twice: list[str] = field(default_factory=list)


def blocked_weights(model: ir.Model, options: BlockedOptions) -> BlockedResult:
    """Rewrite linear layers and tables; values are computed when the model is saved."""
    if options.form == "standard":
        raise_opset(model, _OPSETS[options.scheme.bits])
    return _Pass(model, options).run()


class _Pass:
    def __init__(self, model: ir.Model, options: BlockedOptions) -> None:
        self.model, self.options = model, options
        self.result = BlockedResult()
        self.stores: dict[tuple[ir.Value, Layout], BlockedStore | None] = {}
        self.ordered: dict[tuple[ir.Value, bytes], ir.Value] = {}

    def run(self) -> BlockedResult:
        linears = [linear for linear in find_linears(self.model) if not self.options.keep(linear)]
        tables = [
            (node, table)
            for node in self.model.graph
            if (table := find_table(node, self.options.min_rows)) is not None
        ]
        tied = {linear.weight for linear in linears} & {table for _, table in tables}
        for linear in linears:
            self._linear(linear, linear.weight in tied)
        for node, table in tables:
            self._table(node, table, table in tied)
        edit.remove_unused(self.model)
        return self.result

    # --- weights ------------------------------------------------------------------------------------------------
    def _store(self, weight: ir.Value, transposed: bool, layout: Layout, bits: int) -> BlockedStore | None:
        """The weight's blocks; None where rule 6 leaves it."""
        key = weight, layout
        if key not in self.stores:
            reader = rows_of(weight, transposed)
            how = self._how(reader, layout, bits)
            name = f"{weight.name}_table" if layout in (ROWS, PACKED_TABLE) else str(weight.name)
            self.stores[key] = None
            if how is not None:
                quantize = self.options.quantize
                self.stores[key] = BlockedStore(self.model, name, reader, layout, how, quantize)
        return self.stores[key]

    def _how(self, reader: RowReader, layout: Layout, bits: int) -> GridPlan | Scheme | None:
        columns, scheme = reader.shape[1], replace(self.options.scheme, bits=bits)
        plan = plan_grid(
            reader, [bits] if layout is ROWS else [each for each in (4, 8) if each <= bits] or [bits]
        )
        if plan is not None and (layout is PACKED or columns % plan.scheme.size == 0):
            return plan
        if layout is PACKED:
            return scheme
        size = next((size for size in reversed(SIZES) if size <= scheme.size and columns % size == 0), None)
        return None if size is None else replace(scheme, size=size)

    # --- linear layers ------------------------------------------------------------------------------------------
    def _linear(self, linear: Linear, tied: bool) -> None:
        bits = self.options.tied_bits if tied else self.options.scheme.bits
        bits = self.options.bits.get(str(linear.weight.name), bits)
        layout = PACKED if self.options.form == "ort" else COLUMNS
        store = self._store(linear.weight, linear.transposed, layout, bits)
        if store is None:
            self.result.left.append(linear.name)
            return
        x = self._in_order(linear, store)
        product = self._packed_product if self.options.form == "ort" else self._column_product
        y = product(linear, store, x)
        if store.offsets is not None:
            y = self._with_offsets(linear, store, x, y)
        edit.replace(self.model, linear.node.outputs[0], add_gemm_bias(self.model, linear, y))
        self.result.linears += 1

    def _in_order(self, linear: Linear, store: BlockedStore) -> ir.Value:
        """The input with its channels as the weight's columns stand (rule 2)."""
        x = linear.activation
        if store.order is None:
            return x
        key = x, store.order.tobytes()
        if key not in self.ordered:
            order = add_initializer(self.model, f"{linear.weight.name}_order", store.order)
            self.ordered[key] = insert(self.model, linear.node, "Gather", [x, order], axis=-1)
        return self.ordered[key]

    def _packed_product(self, linear: Linear, store: BlockedStore, x: ir.Value) -> ir.Value:
        scheme, tensor = store.scheme, store.codes.const_value
        assert tensor is not None
        return insert(
            self.model,
            linear.node,
            "MatMulNBits",
            [x, store.codes, store.scales, *([store.zeros] if store.zeros is not None else [])],
            domain=DOMAIN,
            K=linear.inputs_width,
            N=edit.dims(tensor)[0],
            bits=scheme.bits,
            block_size=scheme.size,
            accuracy_level=self.options.accuracy_level,
        )

    def _column_product(self, linear: Linear, store: BlockedStore, x: ir.Value) -> ir.Value:
        inputs = [store.codes, store.scales, *([store.zeros] if store.zeros is not None else [])]
        weight = insert(
            self.model, linear.node, "DequantizeLinear", inputs, axis=0, block_size=store.scheme.size
        )
        return insert(self.model, linear.node, "MatMul", [x, weight])

    def _with_offsets(self, linear: Linear, store: BlockedStore, x: ir.Value, y: ir.Value) -> ir.Value:
        """y plus the sums of x over blocks times the blocks' offsets (rule 3)."""
        model, node = self.model, linear.node
        shape = np.array([-1, store.scheme.blocks_of(linear.inputs_width), store.scheme.size])
        blocks = insert(
            model, node, "Reshape", [x, add_initializer(model, f"shape_{shape[1]}_{shape[2]}", shape)]
        )
        axis = add_initializer(model, "axes_last", np.array([-1], np.int64))
        sums = insert(model, node, "ReduceSum", [blocks, axis], keepdims=0)
        share = insert(model, node, "MatMul", [sums, store.offsets])
        share = insert(model, node, "Reshape", [share, insert(model, node, "Shape", [y])])
        return insert(model, node, "Add", [y, share])

    # --- tables -------------------------------------------------------------------------------------------------
    def _table(self, node: ir.Node, table: ir.Value, tied: bool) -> None:
        rows = self._packed_rows if self.options.form == "ort" else self._plain_rows
        picked = rows(node, table, tied)
        if picked is None:
            self.result.left.append(node.name or str(table.name))
            return
        edit.replace(self.model, node.outputs[0], picked)
        self.result.tables += 1

    def _packed_rows(self, node: ir.Node, table: ir.Value, tied: bool) -> ir.Value | None:
        shared = self.stores.get((table, PACKED)) if tied else None
        store = shared
        if store is None or _width(table) % store.scheme.size:  # the operator would give what fills a row up
            store = self._store(table, True, PACKED_TABLE, self.options.tied_bits if tied else _TABLE_BITS)
        if store is None or not _readable(node, store):
            return None
        if shared is not None and store is not shared:
            self.result.stored_twice.append(str(table.name))
        tensor = store.codes.const_value
        assert tensor is not None
        shape = np.array([edit.dims(tensor)[0], edit.dims(tensor)[1] * edit.dims(tensor)[2]])
        flat = add_initializer(self.model, f"{table.name}_shape", shape)
        codes = insert(self.model, node, "Reshape", [store.codes, flat])
        picked = insert(
            self.model,
            node,
            "GatherBlockQuantized",
            [codes, node.inputs[1], store.scales, *([store.zeros] if store.zeros is not None else [])],
            domain=DOMAIN,
            bits=store.scheme.bits,
            block_size=store.scheme.size,
            gather_axis=0,
            quantize_axis=1,
        )
        return self._with_row_offsets(node, store, picked)

    def _with_row_offsets(self, node: ir.Node, store: BlockedStore, picked: ir.Value) -> ir.Value:
        """Rows of a table plus their blocks' offsets; the ids are of rank 2."""
        if store.offsets is None:
            return picked
        model = self.model
        offsets = insert(model, node, "Gather", [store.offsets, node.inputs[1]], axis=1)  # [blocks, ids ...]
        offsets = insert(model, node, "Transpose", [offsets], perm=[1, 2, 0])
        last = add_initializer(model, "axes_last", np.array([-1], np.int64))
        shape = add_initializer(model, f"shape_{store.scheme.size}", np.array([0, 0, -1, store.scheme.size]))
        blocks = insert(model, node, "Reshape", [picked, shape])
        total = insert(model, node, "Add", [blocks, insert(model, node, "Unsqueeze", [offsets, last])])
        return insert(model, node, "Reshape", [total, insert(model, node, "Shape", [picked])])

    def _plain_rows(self, node: ir.Node, table: ir.Value, tied: bool) -> ir.Value | None:
        shared = self.stores.get((table, COLUMNS)) if tied else None
        if shared is not None and shared.scheme.bits == 8 and _readable(node, shared) and _has_rank_2(node):
            return self._with_row_offsets(node, shared, self._multiplied(node, shared, transposed=True))
        store = self._store(table, True, ROWS, _TABLE_BITS)
        if store is None or not _readable(node, store):
            return None
        if tied:
            self.result.stored_twice.append(str(table.name))
        return self._with_row_offsets(node, store, self._multiplied(node, store, transposed=False))

    def _multiplied(self, node: ir.Node, store: BlockedStore, *, transposed: bool) -> ir.Value:
        """(codes - zeros) · scales of the ids' rows, in plain operators.

        A DequantizeLinear here would be taken for a quantized activation where a linear layer reads the rows, and ONNX
        Runtime 1.31 then forgets the blocks. It folds the Transposes when it loads the file. It must: what a Gather
        reads itself, it would not take into a MatMulNBits, and dequantize the head anew at every run.
        """
        model = self.model

        def rows(part: ir.Value) -> ir.Value:
            if transposed:
                part = insert(model, node, "Transpose", [part], perm=[1, 0])
            return insert(model, node, "Gather", [part, node.inputs[1]], axis=0)

        def flat(part: ir.Value, width: int) -> ir.Value:
            shape = add_initializer(model, f"shape_flat_{width}", np.array([-1, width]))
            return insert(model, node, "Reshape", [part, shape])

        codes = insert(model, node, "Cast", [rows(store.codes)], to=ir.DataType.FLOAT)
        blocks = flat(codes, store.scheme.size)
        if store.zeros is not None:
            zeros = insert(model, node, "Cast", [rows(store.zeros)], to=ir.DataType.FLOAT)
            blocks = insert(model, node, "Sub", [blocks, flat(zeros, 1)])
        values = insert(model, node, "Mul", [blocks, flat(rows(store.scales), 1)])
        return insert(model, node, "Reshape", [values, insert(model, node, "Shape", [codes])])


def _readable(node: ir.Node, store: BlockedStore) -> bool:
    """Whether a Gather's rows can be had of the blocks: columns as they were, and offsets only for plain ids."""
    return store.order is None and (store.offsets is None or _has_rank_2(node))


def _width(table: ir.Value) -> int:
    """How many numbers a row has."""
    assert table.const_value is not None
    return edit.dims(table.const_value)[1]


def _has_rank_2(node: ir.Node) -> bool:
    """Whether a Gather's ids are known to be ``[batch, tokens]``."""
    ids = node.inputs[1]
    return ids is not None and ids.shape is not None and ids.shape.rank() == 2
