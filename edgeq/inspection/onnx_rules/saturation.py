"""Int8 weights that saturate on x86 without VNNI."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx.edit import attribute, constant
from edgeq.formats.onnx.int8 import SAFE_RANGE
from edgeq.inspection.findings import Finding, warning
from edgeq.inspection.onnx_lint import Target, rule


@rule
def saturation(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Neighbours along the summed axis that weigh more than 128 together: vpmaddubsw ends at 32,767 = 255 · 128.

    Only weights that meet codes of activations count. An activation that never comes near 255 hides it.
    """
    for node in model.graph.all_nodes():
        codes = _weight_codes(node)
        if codes is None or codes.dtype != np.int8:
            continue
        rows = codes.reshape(len(codes), -1).astype(np.int16)
        even = rows[:, : rows.shape[1] // 2 * 2].reshape(len(rows), -1, 2).sum(axis=-1)
        beyond = int(np.count_nonzero(np.abs(even) > 2 * SAFE_RANGE))
        if beyond:
            where = str(node.name or node.outputs[0].name)
            what = f"{beyond:,} of {even.size:,} pairs of weights can saturate on x86 without VNNI"
            yield warning(
                where, what, "quantize for --isa avx2 or generic, or send it to CPUs with VNNI or ARM only"
            )


def _weight_codes(node: ir.Node) -> NDArray[np.generic] | None:
    """Codes ``[outputs, summed]`` in the order in which they are summed."""
    if node.op_type == "MatMulInteger":
        tensor = constant(node.inputs[1])
        return None if tensor is None or len(tensor.shape) != 2 else tensor.numpy().T
    if node.op_type not in ("Conv", "MatMul", "Gemm") or not all(map(_dequantized, node.inputs[:2])):
        return None
    weight = node.inputs[1]
    assert weight is not None
    producer = weight.producer()
    assert producer is not None
    source, flipped = producer.inputs[0], False
    before = source.producer() if source is not None else None
    if before is not None and before.op_type == "Transpose":
        source, flipped = before.inputs[0], True
    tensor = constant(source)
    if tensor is None:
        return None
    codes = tensor.numpy()
    if node.op_type == "Conv":
        depthwise = int(attribute(node, "group", 1)) == len(codes) and codes.shape[1] == 1
        return None if depthwise else np.moveaxis(codes, 1, -1).reshape(len(codes), -1)
    stored_by_output = bool(attribute(node, "transB", 0)) != flipped
    return None if codes.ndim != 2 else codes if stored_by_output else codes.T


def _dequantized(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"
