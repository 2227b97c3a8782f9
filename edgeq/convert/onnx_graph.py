"""The ONNX builder: runs a family's forward pass to emit nodes, from the weights, without tracing.

Inputs and outputs are named as optimum and transformers.js name them. Values are ``[batch, tokens, ...]``.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeq import __version__
from edgeq.convert.onnx_ops import OnnxOps
from edgeq.convert.onnx_pooling import normalised
from edgeq.formats.onnx.builder import GraphBuilder
from edgeq.source import ModelSource


def build(source: ModelSource, dialect: str = "standard") -> ir.Model:
    """The float32 graph of a checkpoint; weights are read only when the model is saved.

    ``dialect`` names the operators of a decoder. An encoder has the plain ones of ``OnnxOps``, which ONNX Runtime
    fuses by itself, in every dialect.
    """
    from edgeq.convert.dialects import DIALECTS

    builder = GraphBuilder(source.family.architecture)
    is_decoder = source.family.kind == "decoder"
    ops = DIALECTS[dialect](builder, source) if is_decoder else OnnxOps(builder, source)
    hidden = source.family.forward(ops, source.hp)
    if is_decoder:
        builder.output(hidden, "logits", ir.DataType.FLOAT, ["batch_size", "tokens", source.hp.vocab])
        ops.declare_cache_outputs()
    else:
        _declare_encoder_outputs(ops, hidden)
    model = builder.model(__version__)
    if is_decoder:
        DIALECTS[dialect].finish(model)
    return model


def _declare_encoder_outputs(ops: OnnxOps, y: ir.Value) -> None:
    """A classifier's ``logits``; or the tokens' vectors, and one of the sentence where the model says how."""
    hp, b = ops.hp, ops.b
    if hp.head != "none":
        axes = ["batch_size"] if hp.head == "sequence" else ["batch_size", "tokens"]
        b.output(y, "logits", ir.DataType.FLOAT, [*axes, len(hp.labels)])
        return
    b.output(y, "last_hidden_state", ir.DataType.FLOAT, ["batch_size", "tokens", hp.hidden])
    if hp.pooling != "none":
        vector = ops.pool(y, hp.pooling)
        vector = normalised(b, vector) if hp.normalised else vector
        b.output(vector, "sentence_embedding", ir.DataType.FLOAT, ["batch_size", hp.hidden])
