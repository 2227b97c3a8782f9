"""Quantized layers so small that rounding their input costs more than int8 saves."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import onnx_ir as ir

from edgeq.formats.onnx.edit import attribute, constant, dims, is_standard, only_reader
from edgeq.inspection.findings import Finding, warning
from edgeq.inspection.onnx_lint import Target, rule

# With 8 outputs a MatMul took 1.4 times as long as in float on AVX2, and as long with some 32 (64 to 512 inputs, 256
# rows, ONNX Runtime 1.31); VNNI multiplies up to four times as fast.
_WORTH = 8


@rule
def small_layers(model: ir.Model, target: Target) -> Iterator[Finding]:
    """MatMul, Gemm or Conv whose input is rounded for it alone, and is multiplied fewer than eight times a number."""
    for node in model.graph.all_nodes():
        if not is_standard(node) or node.op_type not in ("MatMul", "Gemm", "Conv"):
            continue
        if not all(map(_dequantized, node.inputs[:2])) or not _rounded_for_it(node.inputs[0]):
            continue
        times = _multiplications(node)
        if times is not None and times < _WORTH:
            yield warning(
                str(node.name or node.outputs[0].name),
                f"multiplies each number {times} times only: rounding it costs more than int8 saves",
                "leave it float (--keep-float)",
            )


def _dequantized(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


def _rounded_for_it(value: ir.Value | None) -> bool:
    """Whether the codes come from a QuantizeLinear of a float that no other operator reads as codes."""
    assert value is not None
    dequantize = value.producer()
    assert dequantize is not None
    codes = dequantize.inputs[0]
    quantize = codes.producer() if codes is not None else None
    if (
        codes is None
        or quantize is None
        or quantize.op_type != "QuantizeLinear"
        or quantize.inputs[0] is None
    ):
        return False
    before = quantize.inputs[0].producer()
    follows_codes = before is not None and any(map(_dequantized, before.inputs))
    return only_reader(value) is not None and only_reader(codes) is not None and not follows_codes


def _multiplications(node: ir.Node) -> int | None:
    """How many products each number of the input goes into."""
    assert node.inputs[1] is not None
    source = node.inputs[1].producer()
    assert source is not None
    tensor = constant(source.inputs[0])
    if tensor is None:
        return None
    shape = dims(tensor)
    if node.op_type == "Conv":
        strides = attribute(node, "strides", [1])
        return int(prod(shape[2:]) * shape[0] // int(attribute(node, "group", 1)) // prod(strides))
    if len(shape) != 2:
        return None
    return shape[0] if attribute(node, "transB", 0) else shape[1]
