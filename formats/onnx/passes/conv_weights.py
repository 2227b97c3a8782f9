"""Convolutions with int8 kernels and float arithmetic: a quarter of the size where no range is known.

Rules
1. A Conv or ConvTranspose reads its kernel through DequantizeLinear: int8 codes in all their range, one symmetric
   scale per channel of axis 0, or one of all.
2. Kernels of fewer than 1024 numbers stay float: they weigh nothing.

ONNX Runtime dequantizes such a kernel at every run and then cannot pack it; with ``session.disable_quant_qdq`` it does
so once, when it loads the file.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from edgeq.formats.onnx.convolution import find_convolutions
from edgeq.formats.onnx.edit import check_opset, remove_unused
from edgeq.formats.onnx.int8 import PER_CHANNEL, Granularities
from edgeq.formats.onnx.passes.int8_weights import int8_input

_LEAST = 1024


def conv_weights(
    model: ir.Model, only: Collection[str] | None = None, granularity: Granularities = PER_CHANNEL
) -> int:
    """Rewrite the convolutions (those named in ``only``, or all); returns how many were rewritten."""
    check_opset(model)
    count = 0
    for convolution in list(find_convolutions(model)):
        if only is not None and convolution.node.name not in only:
            continue
        if convolution.tensor.size < _LEAST:  # rule 2
            continue
        int8_input(model, convolution.node, 1, 0, granularity.of(str(convolution.node.name)))
        count += 1
    remove_unused(model)
    return count
