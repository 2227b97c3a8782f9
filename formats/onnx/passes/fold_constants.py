"""What is computed from constants alone becomes a constant: weights that a graph cuts out of larger ones, sizes, axes.

Rules
1. A node of ``_FOLDED`` with constants for inputs goes; its output becomes an initializer of the main graph. PyTorch
   writes the weights of an LSTM inside of an If so.
2. Not folded: outputs of a graph, and results of more than ``_MOST`` numbers. A Transpose stays: the passes know it,
   and a table that a head shares with an embedding would be stored twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from edgeq.formats.onnx.edit import add_initializer, constant, is_standard, remove_unused

_MOST = 1 << 22
_FOLDED = frozenset(
    (
        "Add", "Cast", "Concat", "Div", "Gather", "Identity", "Mul", "Neg", "Pow", "Range", "ReduceL2", "ReduceSum",
        "Reshape", "Shape", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Unsqueeze",
    )
)  # fmt: skip


def fold_constants(model: ir.Model) -> int:
    """Fold in the order of the nodes; returns how many went."""
    count = 0
    for node in list(model.graph.all_nodes()):
        if is_standard(node) and node.op_type in _FOLDED and _is_constant(node):
            count += _fold(model, node)
    if count:
        remove_unused(model)
    return count


def _is_constant(node: ir.Node) -> bool:
    given = [value for value in node.inputs if value is not None]
    tensors = [constant(value) for value in given]
    if not given or any(tensor is None or tensor.size > _MOST for tensor in tensors):
        return False
    return not any(output.is_graph_output() for output in node.outputs)


def _fold(model: ir.Model, node: ir.Node) -> bool:
    """Compute it; False where the interpreter cannot."""
    feeds = {f"x{i}": _array(value) for i, value in enumerate(node.inputs) if value is not None}
    names = [f"x{i}" if value is not None else "" for i, value in enumerate(node.inputs)]
    made = [f"y{i}" for i in range(len(node.outputs))]
    proto = ir.to_proto(node)
    proto.input[:], proto.output[:] = names, made
    graph = onnx.helper.make_graph(
        [proto],
        "one",
        [onnx.helper.make_tensor_value_info(name, _type(array), None) for name, array in feeds.items()],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in made],
    )
    opset = onnx.helper.make_opsetid("", model.opset_imports[""])
    try:
        results = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=[opset])).run(None, feeds)
    except Exception:  # it raises whatever its operators do; a node that stays is no harm
        return False
    if sum(np.asarray(result).size for result in results) > _MOST:
        return False
    for output, result in zip(node.outputs, results, strict=True):
        name, output.name = str(output.name), None
        output.replace_all_uses_with(add_initializer(model, name, np.asarray(result)))
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


def _array(value: ir.Value) -> NDArray[Any]:
    assert value.const_value is not None
    return value.const_value.numpy()


def _type(array: NDArray[Any]) -> int:
    return int(ir.DataType.from_numpy(array.dtype))
