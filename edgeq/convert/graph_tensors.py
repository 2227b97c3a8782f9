"""What became of the tensors of a graph. Apart from the exporter, so that quantizing a graph need not import that."""

from __future__ import annotations

import math

import onnx_ir as ir

from edgeq.convert.tensor_result import TensorResult
from edgeq.formats.onnx.edit import ERROR, HANDLING, ORIGIN, dims

_SMALL = 64  # initializers below this many bytes are constants of the graph, not tensors of the model


def tensor_results(model: ir.Model) -> list[TensorResult]:
    """The graph's initializers as the report shows them, names without the passes' suffixes.

    Rounding errors are known once the graph is saved.
    """
    results = []
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < _SMALL:
            continue
        told = float(value.meta.get(ERROR, 0.0)), value.meta.get(ORIGIN, ""), value.meta.get(HANDLING, "")
        results.append(
            TensorResult(name, tensor.dtype.name.lower(), dims(tensor), math.ceil(tensor.nbytes), *told)
        )
    return results
