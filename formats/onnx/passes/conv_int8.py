"""Static int8 of convolutions and of what stands between them, in QDQ form.

Rules
1. A Conv reads its input through QuantizeLinear and DequantizeLinear (per tensor), its kernel through
   DequantizeLinear (per output channel or per tensor, symmetric), its bias through DequantizeLinear of int32 codes
   with the scale input x kernel; its output goes through a pair, too. ONNX Runtime makes QLinearConv of that.
2. A Relu, or a Clip from 0, behind it goes: codes that begin at 0 do the same.
3. Operators of ``placement.ROUNDED`` whose inputs all come as codes give codes of their own range.
4. Operators of ``placement.MOVED`` whose input comes as codes give codes of that same grid.
5. Neighbours along the summed axis, which is (*kernel, C) in ONNX Runtime's kernel, stay within ``limit``. A
   depthwise kernel is summed in 32 bits: it has no limit.
6. A channel whose bias does not fit into int32 gets a coarser kernel scale, one without weights the scale that
   rounds its bias well. Where the kernel has one scale, that holds all biases.
7. A value in ``wide`` gets 16 bits wherever it is rounded. ONNX Runtime then computes what reads it in floats.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx.convolution import Convolution
from edgeq.formats.onnx.edit import (
    add_initializer,
    check_opset,
    constant,
    insert,
    is_standard,
    qdq_domain,
    remove_unused,
)
from edgeq.formats.onnx.int8 import (
    FULL_RANGE,
    PER_CHANNEL,
    TINY,
    U8S8,
    ActivationRange,
    Granularities,
    Types,
)
from edgeq.formats.onnx.passes.int8_weights import Int8, dequantized, int8_constant
from edgeq.formats.onnx.placement import ROUNDED, activation_after, convolutions_by_node, only_moves

_LARGEST_BIAS = 2.0**30
_CODES_OF_A_LONE_BIAS = 2.0**20

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class _Grid:
    """Scale and zero point of a tensor's codes, and the domain of the operators that know their type."""

    size: np.float32
    scale: ir.Value
    zero: ir.Value
    domain: str


def conv_int8(
    model: ir.Model,
    limit: int,
    ranges: Mapping[str, ActivationRange],
    types: Types = U8S8,
    only: Collection[str] | None = None,
    wide: Collection[str] = (),
    granularity: Granularities = PER_CHANNEL,
) -> int:
    """Rewrite the convolutions (those named in ``only``, or all) whose input and output have ranges, by value name.

    ``wide`` names the values of 16 bits. Returns how many were rewritten.
    """
    check_opset(model)
    return _Pass(model, limit, ranges, types, wide, granularity).run(only)


class _Pass:
    def __init__(
        self,
        model: ir.Model,
        limit: int,
        ranges: Mapping[str, ActivationRange],
        types: Types,
        wide: Collection[str],
        granularity: Granularities,
    ) -> None:
        self.model, self.limit, self.ranges, self.types, self.wide = model, limit, ranges, types, wide
        self.granularity = granularity
        self.grids: dict[ir.Value, _Grid] = {}  # of the outputs of DequantizeLinear
        self.pairs: dict[tuple[ir.Value, object], ir.Value] = {}

    def run(self, only: Collection[str] | None) -> int:
        count = 0
        convolutions = convolutions_by_node(self.model)
        for node in list(self.model.graph.all_nodes()):
            if node.graph is None:  # rule 2 has removed it
                continue
            if node in convolutions:
                if only is None or node.name in only:
                    count += self._convolution(convolutions[node])
            elif only_moves(node) and node.inputs[0] in self.grids:
                self._same_grid(node)
            elif is_standard(node) and node.op_type in ROUNDED and all(x in self.grids for x in node.inputs):
                self._own_grid(node)
        remove_unused(self.model)
        return count

    def _convolution(self, convolution: Convolution) -> bool:
        """Rule 1."""
        node = convolution.node
        x, end = node.inputs[0], self._end(node)
        if x is None or end is None or (x not in self.grids and x.name not in self.ranges):
            return False
        codes = self._input(node, x)
        node.replace_input_with(0, codes)
        bias, size = constant(convolution.bias), self.grids[codes].size
        values = None if bias is None else bias.numpy()
        limit = FULL_RANGE if convolution.depthwise or self.types.weight is np.uint8 else self.limit  # rule 5
        fit = None if values is None else partial(_fit_bias, bias=values, input_scale=size)
        shared = self.granularity.of(str(node.name))
        kernel = int8_constant(self.model, convolution.weight, 0, limit, shared, self.types.weight, fit)
        node.replace_input_with(1, kernel.floats(self.model, node))
        if values is not None:
            node.replace_input_with(2, self._bias(convolution, values, size, kernel))
        self._own_grid(node)
        return True

    def _input(self, node: ir.Node, x: ir.Value) -> ir.Value:
        """``x`` as it comes out of its codes."""
        if x in self.grids:
            return x
        place = x, node.graph
        if place not in self.pairs:
            grid = self._grid(str(x.name), self.ranges[str(x.name)])
            codes = insert(self.model, node, "QuantizeLinear", [x, grid.scale, grid.zero], grid.domain)
            back = insert(self.model, node, "DequantizeLinear", [codes, grid.scale, grid.zero], grid.domain)
            self.pairs[place] = back
            self.grids[self.pairs[place]] = grid
        return self.pairs[place]

    def _grid(self, name: str, interval: ActivationRange) -> _Grid:
        dtype = self.types.wide if name in self.wide else self.types.activation
        scale, zero = interval.scale_and_zero_point(dtype)
        return _Grid(
            scale,
            add_initializer(self.model, f"{name}_scale", scale),
            add_initializer(self.model, f"{name}_zero_point", zero),
            qdq_domain(self.model, dtype),
        )

    def _bias(
        self, convolution: Convolution, values: Floats, input_scale: np.float32, kernel: Int8
    ) -> ir.Value:
        name, found = str(convolution.weight.name), constant(kernel.scales)
        assert found is not None
        scales = input_scale * found.numpy()
        codes = np.rint(values.astype(np.float64) / scales).astype(np.int32)
        parts = [
            add_initializer(self.model, f"{name}_bias_int32", codes),
            add_initializer(self.model, f"{name}_bias_scale", scales),
        ]
        return dequantized(self.model, convolution.node, parts, None if kernel.axis is None else 0)

    def _end(self, node: ir.Node) -> tuple[ir.Value, ActivationRange, ir.Node | None] | None:
        """What shall be codes behind a node, its range, and the activation that goes with it."""
        after = activation_after(node)
        if after is not None and after[0].outputs[0].name in self.ranges:
            activation, low, high = after
            seen = self.ranges[str(activation.outputs[0].name)]
            return activation.outputs[0], ActivationRange(low, min(seen.high, high)), activation
        name = node.outputs[0].name
        return (
            (node.outputs[0], self.ranges[name], None) if name is not None and name in self.ranges else None
        )

    def _own_grid(self, node: ir.Node) -> None:
        """Rules 2 and 3."""
        found = self._end(node)
        if found is None:
            return
        end, interval, activation = found
        grid = self._grid(str(end.name), interval)
        if activation is not None:
            y, name = node.outputs[0], end.name
            end.name = None
            y.name, y.type, y.shape = name, end.type or y.type, y.shape if end.shape is None else end.shape
            end.replace_all_uses_with(y, replace_graph_outputs=True)
            assert activation.graph is not None
            activation.graph.remove(activation, safe=True)
        self._codes_behind(node, 0, grid)

    def _same_grid(self, node: ir.Node) -> None:
        """Rule 4."""
        x = node.inputs[0]
        assert x is not None
        for index in range(len(node.outputs)):
            self._codes_behind(node, index, self.grids[x])

    def _codes_behind(self, node: ir.Node, index: int, grid: _Grid) -> None:
        """Put a pair behind an output; what read it reads the pair, which takes its name."""
        y = node.outputs[index]
        name, y.name = str(y.name), None
        parts, domain = [grid.scale, grid.zero], grid.domain
        q = ir.node("QuantizeLinear", [y, *parts], domain=domain, name=f"{name}_quantize")
        dq = ir.node("DequantizeLinear", [q.outputs[0], *parts], domain=domain, name=f"{name}_dequantize")
        out = dq.outputs[0]
        y.replace_all_uses_with(out, replace_graph_outputs=True)
        q.replace_input_with(0, y)
        assert node.graph is not None
        node.graph.insert_after(node, [q, dq])
        y.name, q.outputs[0].name, out.name = f"{name}_real", f"{name}_codes", name
        out.type, out.shape = y.type, y.shape
        self.grids[out] = grid


def _fit_bias(rows: Floats, scales: Floats, bias: Floats, input_scale: np.float32) -> Floats:
    """Rule 6."""
    size = np.abs(bias.astype(np.float64)) / float(input_scale)
    least = np.maximum(size / _LARGEST_BIAS, float(TINY) / min(float(input_scale), 1.0))
    if not scales.ndim:
        return np.maximum(scales, least.max()).astype(np.float32)
    lone = (np.abs(rows).max(axis=1, initial=0) < TINY) & (size > 0)
    wanted = np.where(lone, size / _CODES_OF_A_LONE_BIAS, scales)
    return np.maximum(wanted, least).astype(np.float32)
