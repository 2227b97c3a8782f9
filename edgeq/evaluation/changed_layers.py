"""The layers of a quantized ONNX graph whose weight is not the float graph's, and what that weight is.

The float graph and the quantized one are two files of which nothing else is known. A layer is found in both by names
(``formats.onnx.twin``); its quantized weight is what the operators between its input and its output answer with. What
was folded into other tensors (outlier channels into the norm before, scales between convolutions) is a factor for each
channel, and is taken out before weights and outputs are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.errors import InputError
from edgeq.evaluation.decibels import energy, snr
from edgeq.formats.onnx.edit import attribute, dims
from edgeq.formats.onnx.infer import infer_shapes
from edgeq.formats.onnx.prepare import prepare
from edgeq.formats.onnx.read import read_model
from edgeq.formats.onnx.save import save_model
from edgeq.formats.onnx.twin import Layer, Twin, find_twin, layers_of, values_of
from edgeq.onnx.sessions import read_config
from edgeq.report.by_layer import place_of
from edgeq.runtimes.onnxruntime import Feeds, OnnxSession

Floats = NDArray[np.float32]
_FOLDED = 0.05  # a channel's factor this far from 1 is no rounding, where no noise is as large
_SIGMAS = 6.0
_TOGETHER = 512  # rows of an identity matrix that are multiplied at once


@dataclass(frozen=True)
class ChangedLayer:
    """A layer with its quantized weight, stored as the float graph stores it, and the factors that were folded in."""

    layer: Layer
    twin: Twin
    type_name: str
    float_weight: Floats
    weight: Floats
    into_input: Floats  # of each channel that it reads; [1] where nothing was folded
    into_output: Floats

    @property
    def name(self) -> str:
        return str(self.layer.weight.name)

    def plain(self, weight: Floats) -> Floats:
        """The weight without what was folded in."""
        out_axis, in_axis = _axes(self.layer)
        plain = weight / along(self.into_output, out_axis, weight.ndim)
        plain /= along(self.into_input, in_axis, weight.ndim)
        return np.ascontiguousarray(plain, np.float32)

    def told(self) -> dict[str, Any]:
        noise = energy(self.plain(self.weight) - self.float_weight)
        ratio = snr(energy(self.float_weight), noise)
        # Exporters often number their weights; their nodes then say where they stand.
        node, weight = str(self.layer.node.name), self.name
        name = weight if place_of(weight) or not place_of(node) else node
        return {"name": name, "weight": weight, "type": self.type_name, "weight_snr": ratio}


class GraphPair:
    """A float graph and its quantized twin; parts of them are written to ``folder``.

    Raises InputError where none of the float graph's layers is in the other.
    """

    def __init__(self, path: Path, reference: Path, folder: Path) -> None:
        self.path, self.folder = path, folder
        self.float_model, self.model = read_model(reference), read_model(path)
        prepare(self.float_model)
        infer_shapes(self.model)
        self.config = read_config(path)
        values = values_of(self.model)
        twins = [(layer, find_twin(layer, values)) for layer in layers_of(self.float_model)]
        known = {str(layer.weight.name): (layer, twin) for layer, twin in reversed(twins) if twin is not None}
        if not known:
            raise InputError(
                f"{path}: none of the layers of {reference} is in it; give the float graph it was made from"
            )
        looked = (self._changed(*known[name]) for name in reversed(known))
        self.changed = [one for one in looked if one is not None]

    def _changed(self, layer: Layer, twin: Twin) -> ChangedLayer | None:
        """None for a weight that is the float one, or that cannot be found out."""
        expected = layer.constant.numpy().astype(np.float32)
        weight = self._weight(layer, twin)
        if weight is None or np.array_equal(weight, expected):
            return None
        if weight.shape != expected.shape:
            raise InputError(
                f"{self.path}: {layer.weight.name} has the shape {list(weight.shape)}, in the float graph "
                f"{list(expected.shape)}; it is another model"
            )
        out_axis, in_axis = _axes(layer)
        ones = np.ones(1, np.float32)
        into_input = ones if in_axis is None else _factors(expected, weight, in_axis)
        part = weight / along(into_input, in_axis, weight.ndim)
        into_output = ones if layer.kind == "table" else _factors(expected, part, out_axis or 0)
        kind = _stored_type(self.model, twin)
        return ChangedLayer(layer, twin, kind, expected, weight, into_input, into_output)

    def _weight(self, layer: Layer, twin: Twin) -> Floats | None:
        """The quantized weight in the float one's layout."""
        if layer.kind == "table":
            rows = dims(layer.constant)[0]
            rank = max(1, len(layer.node.inputs[1].shape or (0, 0)))  # type: ignore[union-attr]  # has ids
            ids = np.arange(rows).reshape((1,) * (rank - 1) + (rows,))
            found = self.between(self.model, [layer.x], twin.y, [{layer.x: ids}])
            return None if found is None else found[0].reshape(rows, -1)
        if twin.weight is not None:
            found = self.between(self.model, [], str(twin.weight.name), [{}])
            if found is None:
                return None
            turned = layer.kind == "linear" and twin.transposed != layer.transposed
            return found[0].T if turned else found[0]
        return self._by_impulses(layer, twin) if layer.kind == "linear" else None

    def _by_impulses(self, layer: Layer, twin: Twin) -> Floats | None:
        """What a product answers to each unit vector, less what it answers to zeros."""
        shape = dims(layer.constant)
        width = shape[1 if layer.transposed else 0]
        given = values_of(self.model)[twin.x]
        before = (1,) * (len(given.shape or (0, 0)) - 2)
        feeds = []
        for start in range(0, width, _TOGETHER):
            rows = np.zeros((1 + min(_TOGETHER, width - start), width), np.float32)
            rows[np.arange(1, len(rows)), np.arange(start, start + len(rows) - 1)] = 1
            feeds.append({twin.x: rows.reshape(*before, *rows.shape)})
        found = self.between(self.model, [twin.x], twin.y, feeds)
        if found is None:
            return None
        answers = [one.reshape(-1, one.shape[-1]) for one in found]
        matrix = np.concatenate([one[1:] - one[0] for one in answers])
        return matrix.T if layer.transposed else matrix

    def between(
        self, model: ir.Model, given: Sequence[str], wanted: str, feeds: Sequence[Feeds]
    ) -> list[Floats] | None:
        """What the nodes between two values make of each of ``feeds``; None where they read something else, too."""
        values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
        for name in (*given, wanted):
            values[name].type = values[name].type or ir.TensorType(ir.DataType.FLOAT)
        try:
            graph = ir.convenience.extract(model.graph, list(given), [wanted])
        except ValueError:
            return None
        path = self.folder / "part.onnx"
        save_model(ir.Model(graph, ir_version=model.ir_version), path, force=True)
        session = OnnxSession(path, 1, self.config)
        return [np.asarray(session.run(one, [wanted])[0], np.float32) for one in feeds]


def _axes(layer: Layer) -> tuple[int | None, int | None]:
    """(the axis of a weight's outputs, of its inputs); None where a channel is not one place of an axis."""
    if layer.kind == "table":
        return None, None
    if layer.kind == "linear":
        return (0, 1) if layer.transposed else (1, 0)
    grouped = int(attribute(layer.node, "group", 1)) > 1
    if layer.node.op_type == "ConvTranspose":
        return (None, 0) if grouped else (1, 0)
    return 0, None if grouped else 1


def along(factors: Floats, axis: int | None, rank: int) -> Floats:
    """Factors shaped to multiply along an axis."""
    shape = [1] * rank
    if axis is not None and len(factors) > 1:
        shape[axis] = len(factors)
    return factors.reshape(shape)


def _factors(expected: Floats, weight: Floats, axis: int) -> Floats:
    """The factor of each channel that was folded in: the least squares' one, 1 where rounding explains it."""
    others = tuple(i for i in range(expected.ndim) if i != axis)
    wide = expected.astype(np.float64)
    sizes, both = np.square(wide).sum(axis=others), (wide * weight).sum(axis=others)
    found = np.divide(both, sizes, out=np.ones_like(both), where=sizes > 0)
    count = expected.size // expected.shape[axis]
    left = energy(weight - found.reshape(along(found, axis, expected.ndim).shape) * wide)
    noise = np.sqrt(left / max(1e-300, float(sizes.sum())))  # of one number, relative
    certain = max(_FOLDED, _SIGMAS * float(noise) / np.sqrt(count))
    kept: Floats = np.where(np.abs(found - 1) > certain, found, 1.0).astype(np.float32)
    return np.where(kept > 0, kept, np.float32(1.0))


def _stored_type(model: ir.Model, twin: Twin) -> str:
    """What a weight is stored as: its bits where the operator says them, else its largest constant's type."""
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    target = values[twin.y]
    if twin.product is not None and twin.product.op_type == "MatMulNBits":
        return f"int{int(attribute(twin.product, 'bits', 4))}"
    if twin.weight is not None:
        target = twin.weight
    sizes = {value.dtype.name.lower(): value.size for value in _constants(target, twin.x)}
    return max(sizes, key=lambda name: sizes[name], default="float")


def _constants(value: ir.Value, until: str) -> Iterator[ir.TensorProtocol]:
    """The constants that a value is made of, back to another value."""
    waiting, seen = [value], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen or one.name == until:
            continue
        seen.add(id(one))
        if one.const_value is not None and one.is_initializer():
            yield one.const_value
        producer = one.producer()
        waiting += [given for given in (producer.inputs if producer else ()) if given is not None]
