"""Other libraries' products with quantized weights, as functions of nothing that a benchmark can time."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numba
import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks import by_name
from edgeq.kernels_cpu import threads
from edgeq.runtimes import ggml

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Product = Callable[[], object]
_TILE = 16  # rows of weights that stay in cache for all rows of activations, as in ggml's mul_mat


@functools.cache
def _ggml_dots(ggml_id: int) -> Callable[..., None]:
    """``vec_dot`` of a type for rows first..last of the weights and all rows of x; all are addresses."""
    traits = ggml.cpu_traits(ggml_id)
    assert traits is not None
    dot = traits.vec_dot

    def dots(
        first: int, last: int, weights: int, stride: int, quantized: int, x_stride: int, *rest: int
    ) -> None:
        columns, count, n, out = rest
        for start in range(first, last, _TILE):
            for t in range(count):
                for i in range(start, min(start + _TILE, last)):
                    at = weights + i * stride, quantized + t * x_stride
                    dot(columns, out + 4 * (t * n + i), 0, at[0], 0, at[1], 0, 1)

    compiled: Callable[..., None] = numba.njit(nogil=True)(dots)
    return compiled


def ggml_product(name: str, x: Floats, rows: Bytes) -> Product | None:
    """ggml's CPU kernels: x quantized, then ``vec_dot`` of each of its rows with each row of the weights."""
    ggml_id = by_name(name).ggml_id
    traits = ggml.cpu_traits(ggml_id)
    if traits is None:
        return None
    kind, dots = ggml.activation_kind(traits), _ggml_dots(ggml_id)
    result = np.empty((len(x), len(rows)), np.float32)

    def run() -> object:
        quantized = ggml.activations(kind, x)
        at = rows.ctypes.data, rows.strides[0], quantized.ctypes.data, quantized.strides[0]
        shape = x.shape[1], len(x), len(rows)
        threads.run(dots, len(rows), x.size, *at, *shape, result.ctypes.data)
        return result, quantized

    return run


def onnxruntime_product(x: Floats, blob: Bytes, scales: Floats) -> Product:
    """ONNX Runtime's MatMulNBits with 4 bits and accuracy level 4 (activations in int8)."""
    import onnx
    import onnxruntime

    n, _, size = blob.shape
    node = onnx.helper.make_node(
        "MatMulNBits", ["x", "blob", "scales"], ["y"], domain="com.microsoft",
        K=x.shape[1], N=n, bits=4, block_size=2 * size, accuracy_level=4,
    )  # fmt: skip
    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, x.shape[1]])]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, n])]
    weights = [
        onnx.numpy_helper.from_array(blob, "blob"),
        onnx.numpy_helper.from_array(scales.ravel(), "scales"),
    ]
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    graph = onnx.helper.make_graph([node], "product", inputs, outputs, weights)
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.get_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would slow what comes next
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})
