"""Other libraries' products with quantized weights, as functions of nothing that a benchmark can time."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import ggml

from edgeq.formats.blocks import by_name
from edgeq.kernels_cpu import threads

Product = Callable[[], object]
_TILE = 16  # rows of weights that stay in cache for all rows of activations, as in ggml's mul_mat


@functools.cache
def _ggml_dots(ggml_id: int) -> Callable[..., None]:
    """``vec_dot`` of a type for rows first..last of the weights and all rows of x; all are addresses."""
    dot = ggml.cpu_traits(ggml_id).vec_dot

    @numba.njit(nogil=True)
    def dots(first, last, weights, stride, quantized, x_stride, columns, count, n, out):
        for start in range(first, last, _TILE):
            for t in range(count):
                for i in range(start, min(start + _TILE, last)):
                    at = weights + i * stride, quantized + t * x_stride
                    dot(columns, out + 4 * (t * n + i), 0, at[0], 0, at[1], 0, 1)

    return dots


def ggml_product(name: str, x: np.ndarray, rows: np.ndarray) -> Product | None:
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


def onnxruntime_product(x: np.ndarray, blob: np.ndarray, scales: np.ndarray) -> Product | None:
    """ONNX Runtime's MatMulNBits with 4 bits and accuracy level 4 (activations in int8)."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        return None
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
