"""A layer between Q and DQ on some sides only, which ONNX Runtime therefore computes in float."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgeq.formats.onnx.edit import constant, is_standard, only_reader
from edgeq.inspection.findings import Finding, warning
from edgeq.inspection.onnx_lint import Target, rule

_LAYERS = ("Conv", "MatMul", "Gemm")


@rule
def half_quantized(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Conv, MatMul or Gemm that reads codes, but lacks what its int8 kernel wants.

    After onnxruntime/core/optimizer/qdq_transformer/selectors_actions/qdq_selectors.cc: ConvNodeGroupSelector,
    MatMulNodeGroupSelector, GemmNodeGroupSelector.
    """
    for node in model.graph.all_nodes():
        if not is_standard(node) or node.op_type not in _LAYERS or not any(map(_is_codes, node.inputs[:2])):
            continue
        problem = _missing(node)
        if problem:
            what, remedy = problem
            yield warning(
                str(node.name or node.outputs[0].name), f"{node.op_type} runs in float: {what}", remedy
            )


def _missing(node: ir.Node) -> tuple[str, str] | None:
    if not _is_codes(node.inputs[0]):
        return "its weight is quantized, its input is not", (
            "quantize the input too, or set session.disable_quant_qdq so that the weight is dequantized once"
        )
    if not _is_codes(node.inputs[1]):
        return "its input is quantized, its weight is not", "quantize the weight, or leave the input in float"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and not _is_codes(bias):
        return "its bias is float", "store the bias as int32 codes of the scale input x weight"
    if node.op_type != "Conv":
        return None
    reader = only_reader(node.outputs[0])
    if reader is None or reader.op_type != "QuantizeLinear":
        behind = "nothing" if reader is None else reader.op_type
        return f"its output is not quantized (behind it: {behind})", (
            "put the pair right behind it: a range that begins at 0 does what Relu does"
        )
    return None


def _is_codes(value: ir.Value | None) -> bool:
    if value is None:
        return False
    producer = value.producer()
    if producer is not None and producer.op_type == "Transpose" and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    return producer is not None and producer.op_type == "DequantizeLinear" and constant(value) is None
