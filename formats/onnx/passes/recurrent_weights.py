"""GRUs, RNNs and odd LSTMs with int8 weights and float arithmetic: ONNX Runtime has no int8 operator of them.

Rules
1. Weights and recurrence are read through DequantizeLinear: int8 codes in all their range, one symmetric scale for each
   channel of axis 1, which the two directions share (the operator has one axis), or one of all.
2. Those of fewer than 1024 numbers stay float: they weigh nothing.
3. LSTMs that become DynamicQuantizeLSTM are left to ``lstm_int8``.

As for the kernels of ``conv_weights``, ONNX Runtime dequantizes at every run, but for ``session.disable_quant_qdq``.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from edgeq.formats.onnx.edit import check_opset, remove_unused
from edgeq.formats.onnx.int8 import PER_CHANNEL, Granularities
from edgeq.formats.onnx.passes.int8_weights import int8_input
from edgeq.formats.onnx.recurrent import find_recurrents

_LEAST = 1024


def recurrent_weights(
    model: ir.Model, only: Collection[str] | None = None, granularity: Granularities = PER_CHANNEL
) -> int:
    """Rewrite the layers (those named in ``only``, or all); returns how many were rewritten."""
    check_opset(model)
    count = 0
    for layer in list(find_recurrents(model)):
        if layer.is_rounded_by_the_runtime or (only is not None and layer.name not in only):
            continue
        large = [i for i, value in ((1, layer.weight), (2, layer.recurrence)) if _size(value) >= _LEAST]
        for index in large:
            int8_input(model, layer.node, index, 1, granularity.of(layer.name))
        count += bool(large)
    remove_unused(model)
    return count


def _size(value: ir.Value) -> int:
    assert value.const_value is not None
    return value.const_value.size
