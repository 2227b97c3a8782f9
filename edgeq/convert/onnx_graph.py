"""The ONNX builder: runs a family's forward pass to emit nodes, from the weights, without tracing.

Inputs and outputs are named as optimum and transformers.js name them. Values are ``[batch, tokens, ...]``.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeq import __version__
from edgeq.convert.onnx_ops import OnnxOps
from edgeq.families.sentence import sentence_vector
from edgeq.formats.onnx.builder import GraphBuilder
from edgeq.source import ModelSource


def build(source: ModelSource, dialect: str = "standard") -> ir.Model:
    """The float32 graph of a checkpoint; weights are read only when the model is saved.

    ``dialect`` names the operators of a decoder. An encoder, and a decoder that embeds, has the plain ones of
    ``OnnxOps``, of which ONNX Runtime fuses an encoder's by itself, in every dialect.
    """
    from edgeq.convert.dialects import DIALECTS

    builder = GraphBuilder(source.family.architecture)
    generates = source.family.generates(source.hp)
    ops = DIALECTS[dialect](builder, source) if generates else OnnxOps(builder, source)
    if generates:
        logits = source.family.forward(ops, source.hp)
        builder.output(logits, "logits", ir.DataType.FLOAT, ["batch_size", "tokens", source.hp.vocab])
        ops.declare_cache_outputs()
    else:
        _declare_encoder_outputs(ops, source)
    model = builder.model(__version__)
    if generates:
        DIALECTS[dialect].finish(model)
    return model


def _declare_encoder_outputs(ops: OnnxOps, source: ModelSource) -> None:
    """A classifier's ``logits``; or the tokens' vectors, and one of the sentence where the model says how."""
    hp, b = ops.hp, ops.b
    if hp.head != "none":
        axes = ["batch_size"] if hp.head == "sequence" else ["batch_size", "tokens"]
        b.output(source.family.forward(ops, hp), "logits", ir.DataType.FLOAT, [*axes, len(hp.labels)])
        return
    hidden = source.family.hidden(ops, hp)
    b.output(hidden, "last_hidden_state", ir.DataType.FLOAT, ["batch_size", "tokens", hp.hidden])
    if hp.pooling != "none":
        vector = sentence_vector(ops, hp, hidden)
        b.output(vector, "sentence_embedding", ir.DataType.FLOAT, ["batch_size", hp.vector_width])
