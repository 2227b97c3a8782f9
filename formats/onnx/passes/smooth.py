"""SmoothQuant at a normalisation: outlier channels are divided out of the activation and multiplied into the weights.

After Xiao et al. 2022 (arXiv:2211.10438): for channel j, s_j = max|x_j|^alpha / max|w_j|^(1-alpha), and x / s is
quantized in place of x. A constant scale before the linear layers costs nothing when the norm's own scale takes it.

Rules
1. The activation is the output of a norm of ONNX or ONNX Runtime, or of Mul by a constant vector (the last step of
   one).
2. All its consumers are linear layers: scale (and bias) of the norm are divided by s.
3. It has other consumers, such as the residual sum of a post-norm encoder: they keep the old norm, the linear layers
   read a second one with the divided scale. One more norm costs less than what it saves in quality.
4. The rows of every reading weight are multiplied by s (its columns where a Gemm reads it transposed). Nothing is
   folded where one of the weights is shared with something else or comes through a Transpose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx.edit import add_initializer, add_lazy_initializer, dims, free_name, remove_unused
from edgeq.formats.onnx.linear import Linear, find_linears

_TINY = 1e-5
# Which inputs of a norm its output is linear in: the scale, then the bias.
_VECTORS = {
    ("", "LayerNormalization"): (1, 2),
    ("", "RMSNormalization"): (1,),
    ("", "SimplifiedLayerNormalization"): (1,),
    ("com.microsoft", "SkipLayerNormalization"): (2, 3),
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): (2,),
}


def smooth(
    model: ir.Model, channel_max: Mapping[str, NDArray[np.float32]], alpha: float = 0.5
) -> dict[str, NDArray[np.float32]]:
    """Fold scales by the activations' largest magnitudes per channel, given by value name.

    Returns the scales by the name of the value that the linear layers read now, so that ranges taken before can be
    divided by them; also under the old name where that was kept.
    """
    folded: dict[str, NDArray[np.float32]] = {}
    for smoothing in smoothable(model):
        x, linears = smoothing.value, smoothing.linears
        if x.name is None or x.name not in channel_max:
            continue
        scales = smoothing.scales(channel_max[x.name], alpha)
        if scales is None:
            continue
        norm = x.producer()
        assert norm is not None
        shared = len(x.uses()) > len(linears) or x.is_graph_output()
        y = _scaled_norm(model, norm, scales, keep_old=shared)
        for linear in linears:
            linear.node.replace_input_with(0, y)
            _scale_rows(model, linear, scales)
        assert y.name is not None
        folded[y.name] = scales
    remove_unused(model)
    return folded


@dataclass(frozen=True, eq=False)
class Smoothing:
    """What a norm gives to linear layers, and these layers."""

    value: ir.Value
    linears: Sequence[Linear]

    @property
    def read_now(self) -> ir.Value:
        """What the linear layers read: another value, where others wanted the old one."""
        value = self.linears[0].node.inputs[0]
        assert value is not None
        return value

    def scales(self, channel_max: NDArray[np.float32], alpha: float = 0.5) -> NDArray[np.float32] | None:
        """What the channels are divided by, from their largest magnitudes; None where no sample was seen."""
        if channel_max.shape != (self.linears[0].inputs_width,):
            return None
        weight_max = np.max([np.abs(linear.matrix()).max(axis=1) for linear in self.linears], axis=0)
        scales = np.maximum(channel_max, _TINY) ** alpha / np.maximum(weight_max, _TINY) ** (1 - alpha)
        normalised: NDArray[np.float32] = (scales / np.exp(np.log(scales).mean())).astype(np.float32)
        return normalised


def smoothable(model: ir.Model) -> list[Smoothing]:
    """Where ``smooth`` can fold scales, which it takes from the largest magnitudes of the channels of these values."""
    readers: dict[ir.Value, list[Linear]] = {}
    for linear in find_linears(model):
        readers.setdefault(linear.activation, []).append(linear)
    found = []
    for x, linears in readers.items():
        norm = x.producer()
        if norm is None or x is not norm.outputs[0] or _scale_index(norm) is None:  # rule 1
            continue
        if all(_owns_weight(linear) for linear in linears):  # rule 4
            found.append(Smoothing(x, linears))
    return found


def _scale_index(norm: ir.Node) -> int | None:
    """Which input of a normalisation is its constant scale vector."""
    kind = "" if norm.domain == "ai.onnx" else norm.domain, norm.op_type
    if kind in _VECTORS:
        given = [
            index for index in _VECTORS[kind] if index < len(norm.inputs) and norm.inputs[index] is not None
        ]
        return given[0] if all(_is_vector(norm.inputs[index]) for index in given) else None
    if kind == ("", "Mul"):
        return next((index for index in (0, 1) if _is_vector(norm.inputs[index])), None)
    return None


def _is_vector(value: ir.Value | None) -> bool:
    if value is None or not value.is_initializer() or value.is_graph_input() or value.const_value is None:
        return False
    return value.const_value.shape.rank() == 1


def _owns_weight(linear: Linear) -> bool:
    return linear.node.inputs[1] is linear.weight and len(linear.weight.uses()) == 1


def _scaled_norm(model: ir.Model, norm: ir.Node, scales: NDArray[np.float32], keep_old: bool) -> ir.Value:
    """The normalisation with its constant vectors divided by ``scales``: in place, or as a second node."""
    inputs = list(norm.inputs)
    first = _scale_index(norm)
    assert first is not None
    kind = "" if norm.domain == "ai.onnx" else norm.domain, norm.op_type
    places = _VECTORS.get(kind, (first,))
    vectors = [index for index in places if index < len(inputs) and inputs[index] is not None]
    for index in vectors:
        old = inputs[index]
        assert old is not None
        assert old.const_value is not None
        divided = (old.const_value.numpy() / scales).astype(np.float32)
        inputs[index] = add_initializer(model, f"{old.name}_smooth_{norm.outputs[0].name}", divided)
    if not keep_old:  # rule 2
        for index in vectors:
            norm.replace_input_with(index, inputs[index])
        return norm.outputs[0]
    twin = ir.node(  # rule 3
        norm.op_type,
        inputs,
        dict(norm.attributes.items()),
        domain=norm.domain,
        name=f"{norm.name}_smooth",
    )
    twin.outputs[0].name = free_name(model, f"{norm.outputs[0].name}_smooth")
    twin.outputs[0].type, twin.outputs[0].shape = norm.outputs[0].type, norm.outputs[0].shape
    assert norm.graph is not None
    norm.graph.insert_after(norm, twin)
    return twin.outputs[0]


def _scale_rows(model: ir.Model, linear: Linear, scales: NDArray[np.float32]) -> None:
    tensor = linear.weight.const_value
    assert tensor is not None
    factors = scales[None, :] if linear.transposed else scales[:, None]
    scaled = add_lazy_initializer(
        model, f"{linear.weight.name}_smooth", np.float32, dims(tensor), lambda: tensor.numpy() * factors
    )
    linear.node.replace_input_with(1, scaled)
