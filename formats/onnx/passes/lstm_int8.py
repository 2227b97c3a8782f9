"""LSTMs with int8 weights: ONNX Runtime's DynamicQuantizeLSTM, which rounds input and state where it runs.

Rules
1. An LSTM with constant weights becomes DynamicQuantizeLSTM of com.microsoft: the same inputs and attributes, weights
   as int8 codes ``[directions, inputs, 4 · hidden]``, one symmetric scale per direction and output channel, or one of
   all.
2. Neighbours along the summed axis stay within ``limit``.
3. Gates, cell state and bias stay float. GRU and RNN have no such operator: ``recurrent_weights`` is for them.

Upstream: onnxruntime/core/graph/contrib_ops/quantization_defs.cc, DynamicQuantizeLSTM.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx.edit import (
    ERROR,
    add_initializer,
    add_lazy_initializer,
    check_opset,
    remove_unused,
)
from edgeq.formats.onnx.int8 import (
    PER_CHANNEL,
    Granularities,
    Granularity,
    quantize_channels,
    relative_error,
    weight_scales,
)
from edgeq.formats.onnx.recurrent import Recurrent, find_lstms

DOMAIN = "com.microsoft"
_INPUTS = 8  # of an LSTM; the scales and zero points follow


def lstm_int8(
    model: ir.Model,
    limit: int,
    only: Collection[str] | None = None,
    granularity: Granularities = PER_CHANNEL,
) -> int:
    """Rewrite the LSTMs (those named in ``only``, or all); returns how many were rewritten."""
    check_opset(model)
    count = 0
    for lstm in list(find_lstms(model)):
        if only is None or lstm.name in only:
            _rewrite(model, lstm, limit, granularity.of(lstm.name))
            count += 1
    if count:
        model.opset_imports.setdefault(DOMAIN, 1)
    remove_unused(model)
    return count


def _rewrite(model: ir.Model, lstm: Recurrent, limit: int, granularity: Granularity) -> None:
    node = lstm.node
    weight, *weight_scale = _codes(model, lstm.weight, limit, granularity)
    recurrence, *recurrence_scale = _codes(model, lstm.recurrence, limit, granularity)
    rest = [*node.inputs[3:], *[None] * (_INPUTS - len(node.inputs))]
    inputs = [node.inputs[0], weight, recurrence, *rest, *weight_scale, *recurrence_scale]
    kept = {name: value for name, value in node.attributes.items() if name != "layout"}
    quantized = ir.node(
        "DynamicQuantizeLSTM", inputs, kept, domain=DOMAIN, num_outputs=len(node.outputs), name=node.name
    )
    assert node.graph is not None
    node.graph.insert_before(node, quantized)
    for old, new in zip(node.outputs, quantized.outputs, strict=True):
        new.name, new.type, new.shape, old.name = old.name, old.type, old.shape, None
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)


def _codes(
    model: ir.Model, weight: ir.Value, limit: int, granularity: Granularity
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Codes, scales and zero points (rules 1 and 2)."""
    tensor, name = weight.const_value, str(weight.name)
    assert tensor is not None
    rows = tensor.numpy()  # [directions, channels, inputs]
    directions, channels, width = rows.shape
    flat = rows.reshape(-1, width)
    scales = weight_scales(flat, 0, limit, granularity)

    def rounded() -> NDArray[np.int8]:
        return quantize_channels(tensor.numpy().reshape(-1, width), scales, 0, limit)

    def load() -> NDArray[np.int8]:
        return np.ascontiguousarray(rounded().reshape(rows.shape).transpose(0, 2, 1))

    codes = add_lazy_initializer(model, f"{name}_int8", np.int8, (directions, width, channels), load)
    codes.meta[ERROR] = relative_error(flat, rounded(), scales, 0)
    shape = (directions, channels) if scales.ndim else (directions,)
    scale = add_initializer(
        model,
        f"{name}_scale",
        np.broadcast_to(scales, (directions * channels) if scales.ndim else directions).reshape(shape),
    )
    return codes, scale, add_initializer(model, f"{name}_zero_point", np.zeros(shape, np.int8))
