"""What is quantized in a graph, what stayed float, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir

from edgeq.formats.onnx.edit import dims

_WORTH_SAYING = 0.02  # of a graph's numbers
_MOST_NAMES = 4
_QUANTIZED = frozenset(
    (
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv",
        "QLinearMatMul", "QGemm", "MatMulNBits", "MatMulBnb4", "GatherBlockQuantized", "DynamicQuantizeLSTM",
    )
)  # fmt: skip
_REASONS = {
    "GRU": "int8-dynamic rounds it",
    "RNN": "int8-dynamic rounds it",
    "LSTM": "int8 and int8-dynamic round it",
    "Conv": "int8 rounds it where its range is steady, int8-dynamic where its kernel is large",
    "ConvTranspose": "int8-dynamic rounds large ones",
    "Gather": "a small table",
    "MatMul": "no layer of a plain matrix",
    "Gemm": "no layer of a plain matrix",
}


def quantized_operators(model: ir.Model) -> set[str]:
    """The operators of a graph that compute with quantized numbers, or make or read them."""
    return {node.op_type for node in model.graph.all_nodes()} & _QUANTIZED


def left_in_float(model: ir.Model, before: int, exempted: frozenset[str]) -> str | None:
    """A sentence on the weights that no quant took, None where they are few.

    ``before`` counts the source's float numbers; layers that are ``exempted`` are told of elsewhere.
    """
    numbers: Counter[tuple[str, str]] = Counter()
    for node, size in _float_weights(model):
        if node.name not in exempted:
            numbers[node.op_type, str(node.name)] += size
    total = sum(numbers.values())
    if total < _WORTH_SAYING * max(before, 1):
        return None
    kinds: dict[str, list[str]] = {}
    for (kind, name), _ in numbers.most_common():
        kinds.setdefault(kind, []).append(name)
    told = [f"{kind} {_listed(names)} ({_reason(kind)})" for kind, names in kinds.items()]
    return f"left in float, {total / before:.0%} of the numbers: {'; '.join(told)}"


def _reason(kind: str) -> str:
    return _REASONS.get(kind, "no quant knows it")


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES} more"


def _float_weights(model: ir.Model) -> Iterator[tuple[ir.Node, int]]:
    """(the first node that reads it, its numbers) of every float weight of more than one axis."""
    for value in model.graph.initializers.values():
        tensor, uses = value.const_value, value.uses()
        if tensor is None or not uses or not tensor.dtype.is_floating_point() or len(dims(tensor)) < 2:
            continue
        reader = next(iter(uses))[0]
        if reader.op_type == "Transpose" and reader.outputs[0].uses():
            reader = next(iter(reader.outputs[0].uses()))[0]
        if reader.op_type not in (
            "MatMulNBits",
            "GatherBlockQuantized",
            "DequantizeLinear",
            "DynamicQuantizeLSTM",
        ):
            yield reader, tensor.size
