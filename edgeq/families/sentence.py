"""A sentence's vector out of its tokens': pooled, through dense layers, brought to unit length.

Upstream: sentence-transformers ``models.Pooling``, ``models.Dense``, ``models.Normalize``; in llama.cpp
``llm_graph_context::build_pooling`` and ``build_dense_out``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from edgeq.errors import InputError
from edgeq.families.base import HyperParameters, MetadataReader, TensorSpec
from edgeq.families.ops import Ops, Pooling, V

# enum llama_pooling_type. What llama.cpp calls ranking is a classifier of sequences.
POOLING: dict[Literal["none"] | Pooling, int] = {"none": 0, "mean": 1, "cls": 2, "last": 3}
RANK = 4


def sentence_vector(ops: Ops[V], hp: HyperParameters, hidden: V) -> V:
    """The vector ``[1, C]`` of hidden states ``[T, C]``; by their mean where the model says no pooling."""
    x = ops.pool(hidden, "mean" if hp.pooling == "none" else hp.pooling)
    for i, layer in enumerate(hp.dense):
        x = ops.linear(x, _stem(i))
        if layer.activation != "none":
            x = ops.activation(x, layer.activation)
    return ops.unit(x) if hp.normalised else x


def dense_tensors(hp: HyperParameters) -> Iterator[TensorSpec]:
    """The tensors of the layers after the pooling."""
    for i, layer in enumerate(hp.dense):
        source = f"{layer.source}/linear"
        yield TensorSpec(f"{_stem(i)}.weight", f"{source}.weight", (layer.outputs, layer.inputs))
        if layer.bias:
            yield TensorSpec(f"{_stem(i)}.bias", f"{source}.bias", (layer.outputs,))


def _stem(i: int) -> str:
    """As llama.cpp calls them, after the folders 2_Dense and 3_Dense."""
    return f"dense_{i + 2}"


def pooling_keys(hp: HyperParameters) -> dict[str, Any]:
    """The GGUF metadata of the pooling; raises InputError for what llama.cpp does not compute."""
    if hp.pooling not in POOLING:
        raise InputError(
            f"modules.json: pooling_mode {hp.pooling} is not in llama.cpp; ONNX has it (--to onnx)"
        )
    return {"pooling_type": POOLING[hp.pooling]}


def pooling_from_metadata(reader: MetadataReader) -> Literal["none"] | Pooling:
    """The pooling that a GGUF file says; "none" for a number that is unknown."""
    found = reader.metadata.get(f"{reader.architecture}.pooling_type", 0)
    return next((name for name, number in POOLING.items() if number == found), "none")
