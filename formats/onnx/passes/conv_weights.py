"""Convolutions with int8 kernels and float arithmetic: a quarter of the size where no range is known.

Rules
1. A Conv or ConvTranspose reads its kernel through DequantizeLinear: int8 codes in all their range, one symmetric
   scale per channel of axis 0.
2. Kernels of fewer than 1024 numbers stay float: they weigh nothing.

ONNX Runtime dequantizes such a kernel at every run and then cannot pack it; with ``session.disable_quant_qdq`` it does
so once, when it loads the file.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from edgeq.formats.onnx.convolution import Convolution, find_convolutions
from edgeq.formats.onnx.edit import (
    ERROR,
    add_initializer,
    add_lazy_initializer,
    check_opset,
    dims,
    insert,
    remove_unused,
)
from edgeq.formats.onnx.int8 import FULL_RANGE, channel_scales, quantize_channels, relative_error

_LEAST = 1024


def conv_weights(model: ir.Model, only: Collection[str] | None = None) -> int:
    """Rewrite the convolutions (those named in ``only``, or all); returns how many were rewritten."""
    check_opset(model)
    found: dict[ir.Value, ir.Value] = {}
    count = 0
    for convolution in list(find_convolutions(model)):
        if only is not None and convolution.node.name not in only:
            continue
        if convolution.tensor.size < _LEAST:  # rule 2
            continue
        if convolution.weight not in found:
            found[convolution.weight] = _codes(model, convolution)
        codes = found[convolution.weight]
        parts = [codes, model.graph.initializers[f"{codes.name}_scale"]]
        parts.append(model.graph.initializers[f"{codes.name}_zero_point"])
        weight = insert(model, convolution.node, "DequantizeLinear", parts, axis=0)
        convolution.node.replace_input_with(1, weight)
        count += 1
    remove_unused(model)
    return count


def _codes(model: ir.Model, convolution: Convolution) -> ir.Value:
    tensor = convolution.tensor
    shape = dims(tensor)
    rows = convolution.array().reshape(shape[0], -1)
    scales = channel_scales(rows, 0, FULL_RANGE)
    codes = add_lazy_initializer(
        model,
        f"{convolution.weight.name}_int8",
        np.int8,
        shape,
        lambda: quantize_channels(tensor.numpy().reshape(shape[0], -1), scales, 0, FULL_RANGE).reshape(shape),
    )
    codes.meta[ERROR] = relative_error(rows, quantize_channels(rows, scales, 0, FULL_RANGE), scales, 0)
    add_initializer(model, f"{codes.name}_scale", scales)
    add_initializer(model, f"{codes.name}_zero_point", np.zeros(shape[0], np.int8))
    return codes
