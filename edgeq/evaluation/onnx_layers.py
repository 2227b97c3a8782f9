"""Where a quantized ONNX graph loses: its weights, its layers' outputs, and what each weight alone does to the answers.

The float graph and the quantized one are two files of which nothing else is known. A layer is found in both by names
(``formats.onnx.twin``); its quantized weight is what the operators between its input and its output answer with. What
was folded into other tensors (outlier channels into the norm before, scales between convolutions) is a factor for each
channel, and is taken out before weights and outputs are compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.calibration.text import Text
from edgeq.errors import InputError, UsageError
from edgeq.evaluation.alone import Reader, SentenceReader, WindowReader, sentences_for, windows_for
from edgeq.evaluation.decibels import energy, snr
from edgeq.evaluation.loss import LOSSES
from edgeq.evaluation.opening import Evaluated
from edgeq.evaluation.runtimes import OnnxRuntime
from edgeq.formats.onnx.edit import attribute, dims
from edgeq.formats.onnx.infer import infer_shapes
from edgeq.formats.onnx.prepare import prepare
from edgeq.formats.onnx.read import read_model
from edgeq.formats.onnx.save import save_model
from edgeq.formats.onnx.twin import Layer, Twin, find_twin, layers_of, values_of
from edgeq.formats.onnx.watch import watched_copy
from edgeq.onnx.sessions import read_config
from edgeq.report.by_layer import place_of
from edgeq.runtimes.engines import file_kind
from edgeq.runtimes.onnxruntime import Feeds, OnnxSession, decoder_feeds, encoder_feeds

Floats = NDArray[np.float32]
Progress = Callable[[str, int, int], None]
_FOLDED = 0.05  # a channel's factor this far from 1 is no rounding, where no noise is as large
_SIGMAS = 6.0
_TOGETHER = 512  # rows of an identity matrix that are multiplied at once


def look_at_graph(
    opened: Evaluated, reference: Path, text: Text, context: int | None, progress: Progress
) -> list[dict[str, Any]]:
    """One record for each layer whose weight is not the reference's, as ``layers.look_at_layers`` has them.

    ``opened`` is the quantized graph. ``own_snr`` has the rounding of a layer's activations, too; of a layer whose
    weight cannot be found out there is none of ``weight_snr`` and of what it does alone. Raises UsageError for a
    reference that is no graph, InputError where none of its layers is in the other.
    """
    if file_kind(reference) != "onnx":
        raise UsageError(
            f"{reference}: --layers compares a graph with a float graph (edgeq export --quant float32)"
        )
    with tempfile.TemporaryDirectory(prefix="edgeq-layers-") as folder:
        pair = _Pair(opened, reference, Path(folder))
        reader = pair.reader(text, context)
        outputs, found = pair.outputs(reader.shown), []
        for done, one in enumerate(pair.changed):
            progress("one tensor at a time", done, len(pair.changed))
            alone = reader.alone(str(one.layer.weight.name), one.plain(one.weight))
            found.append({**one.told(), **outputs[one.name], **alone})
        return found


@dataclass(frozen=True)
class _Changed:
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
        plain = weight / _along(self.into_output, out_axis, weight.ndim)
        plain /= _along(self.into_input, in_axis, weight.ndim)
        return np.ascontiguousarray(plain, np.float32)

    def told(self) -> dict[str, Any]:
        noise = energy(self.plain(self.weight) - self.float_weight)
        ratio = snr(energy(self.float_weight), noise)
        # Exporters often number their weights; their nodes then say where they stand.
        node, weight = str(self.layer.node.name), self.name
        name = weight if place_of(weight) or not place_of(node) else node
        return {"name": name, "weight": weight, "type": self.type_name, "weight_snr": ratio}


class _Pair:
    """A float graph and its quantized twin."""

    def __init__(self, opened: Evaluated, reference: Path, folder: Path) -> None:
        self.opened, self.folder = opened, folder
        self.float_model, self.model = read_model(reference), read_model(opened.path)
        prepare(self.float_model)
        infer_shapes(self.model)
        self.config = read_config(opened.path)
        values = values_of(self.model)
        twins = [(layer, find_twin(layer, values)) for layer in layers_of(self.float_model)]
        known = {str(layer.weight.name): (layer, twin) for layer, twin in reversed(twins) if twin is not None}
        if not known:
            raise InputError(
                f"{opened.path}: none of the layers of {reference} is in it; give the float graph it was made from"
            )
        looked = (self._changed(*known[name]) for name in reversed(known))
        self.changed = [one for one in looked if one is not None]

    def _changed(self, layer: Layer, twin: Twin) -> _Changed | None:
        """None for a weight that is the float one, or that cannot be found out."""
        tensor = layer.weight.const_value
        assert tensor is not None
        expected = tensor.numpy().astype(np.float32)
        weight = self._weight(layer, twin)
        if weight is None or np.array_equal(weight, expected):
            return None
        if weight.shape != expected.shape:
            raise InputError(
                f"{self.opened.path}: {layer.weight.name} has the shape {list(weight.shape)}, in the float graph "
                f"{list(expected.shape)}; it is another model"
            )
        out_axis, in_axis = _axes(layer)
        ones = np.ones(1, np.float32)
        into_input = ones if in_axis is None else _factors(expected, weight, in_axis)
        part = weight / _along(into_input, in_axis, weight.ndim)
        into_output = ones if layer.kind == "table" else _factors(expected, part, out_axis or 0)
        kind = _stored_type(self.model, twin)
        return _Changed(layer, twin, kind, expected, weight, into_input, into_output)

    # --- weights ------------------------------------------------------------------------------------------------
    def _weight(self, layer: Layer, twin: Twin) -> Floats | None:
        """The quantized weight in the float one's layout."""
        if layer.kind == "table":
            rows = dims(layer.weight.const_value)[0]  # type: ignore[arg-type]  # has one
            rank = max(1, len(layer.node.inputs[1].shape or (0, 0)))  # type: ignore[union-attr]  # has ids
            ids = np.arange(rows).reshape((1,) * (rank - 1) + (rows,))
            found = self._between(self.model, [layer.x], twin.y, [{layer.x: ids}])
            return None if found is None else found[0].reshape(rows, -1)
        if twin.weight is not None:
            found = self._between(self.model, [], str(twin.weight.name), [{}])
            if found is None:
                return None
            turned = layer.kind == "linear" and twin.transposed != layer.transposed
            return found[0].T if turned else found[0]
        return self._by_impulses(layer, twin) if layer.kind == "linear" else None

    def _by_impulses(self, layer: Layer, twin: Twin) -> Floats | None:
        """What a product answers to each unit vector, less what it answers to zeros."""
        shape = dims(layer.weight.const_value)  # type: ignore[arg-type]  # has one
        width = shape[1 if layer.transposed else 0]
        given = values_of(self.model)[twin.x]
        before = (1,) * (len(given.shape or (0, 0)) - 2)
        feeds = []
        for start in range(0, width, _TOGETHER):
            rows = np.zeros((1 + min(_TOGETHER, width - start), width), np.float32)
            rows[np.arange(1, len(rows)), np.arange(start, start + len(rows) - 1)] = 1
            feeds.append({twin.x: rows.reshape(*before, *rows.shape)})
        found = self._between(self.model, [twin.x], twin.y, feeds)
        if found is None:
            return None
        answers = [one.reshape(-1, one.shape[-1]) for one in found]
        matrix = np.concatenate([one[1:] - one[0] for one in answers])
        return matrix.T if layer.transposed else matrix

    def _between(
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

    # --- answers ------------------------------------------------------------------------------------------------
    def reader(self, text: Text, context: int | None) -> Reader:
        """The text, read by the float graph; its changed weights are inputs of it that have a value already."""
        opened = self.opened
        copy = self.float_model.clone()
        for one in self.changed:
            copy.graph.inputs.append(copy.graph.initializers[one.name])
        path = self.folder / "float.onnx"
        save_model(copy, path, force=True)
        assert isinstance(opened.runtime, OnnxRuntime)
        runtime = OnnxRuntime(path, opened.runtime.pooling)
        before = _With(runtime, {})

        def changed(name: str, values: Floats) -> _With:
            return _With(runtime, {name: values})

        if opened.kind == "decoder":
            return WindowReader(windows_for(text, opened.tokenizer, opened.longest, context), before, changed)
        sentences = sentences_for(text, opened.tokenizer, opened.longest)
        return SentenceReader(sentences, LOSSES[opened.kind], before, changed)

    # --- outputs ------------------------------------------------------------------------------------------------
    def outputs(self, sequences: Sequence[Sequence[int]]) -> dict[str, dict[str, float]]:
        """Each layer's two ratios over some sequences, by weight."""
        layers = [one for one in self.changed if one.layer.kind != "table"]
        if not layers:
            return {one.name: {} for one in self.changed}
        names = list(dict.fromkeys([one.twin.y for one in layers]))
        expected = self._watched(self.float_model, {}, names, sequences)
        both = list(dict.fromkeys([*names, *(one.twin.x for one in layers)]))
        answered = self._watched(self.model, self.config, both, sequences)
        return {one.name: self._ratios(one, expected, answered) for one in self.changed}

    def _ratios(
        self, one: _Changed, expected: list[dict[str, Floats]], answered: list[dict[str, Floats]]
    ) -> dict[str, float]:
        if one.layer.kind == "table":
            return {}
        y, read, x = one.twin.y, one.twin.x, one.layer.x
        axis = -1 if one.layer.kind == "linear" else 1
        feeds: list[Feeds] = [
            {x: given[read] * _along(one.into_input, axis % given[read].ndim, given[read].ndim)}
            for given in answered
        ]
        alone = self._between(self.float_model, [x], y, feeds)
        signal = noise = own = 0.0
        for index, wanted in enumerate(expected):
            got = answered[index][y] / _along(one.into_output, axis % wanted[y].ndim, wanted[y].ndim)
            signal, noise = signal + energy(wanted[y]), noise + energy(got - wanted[y])
            own += 0.0 if alone is None else energy(got - alone[index])
        found = {"output_snr": snr(signal, noise)}
        return found if alone is None else found | {"own_snr": snr(signal, own)}

    def _watched(
        self,
        model: ir.Model,
        config: Mapping[str, str],
        names: Sequence[str],
        sequences: Sequence[Sequence[int]],
    ) -> list[dict[str, Floats]]:
        """Inner values of a graph, for each sequence."""
        given = {str(value.name) for value in model.graph.inputs}
        inner = [name for name in names if name not in given]
        copy, places = watched_copy(model, inner)
        path = self.folder / "watched.onnx"
        save_model(copy, path, force=True)
        session = OnnxSession(path, 1, config)
        found = []
        for tokens in sequences:
            feeds = self._feeds(session, tokens)
            wanted = session.run(feeds, [places[name] for name in inner])
            known = {name: np.asarray(feeds[name], np.float32) for name in names if name in given}
            found.append(known | dict(zip(inner, wanted, strict=True)))
        return found

    def _feeds(self, session: OnnxSession, tokens: Sequence[int]) -> Feeds:
        past = self.opened.kind == "decoder"
        return decoder_feeds(tokens, session.empty_past()) if past else encoder_feeds([tokens])


class _With:
    """A graph in the runtime with other values of some weights."""

    def __init__(self, runtime: OnnxRuntime, weights: Feeds) -> None:
        self.runtime, self.weights = runtime, weights
        self.name, self.load_seconds = runtime.name, runtime.load_seconds

    def _ready(self) -> OnnxRuntime:
        self.runtime.session.replaced = self.weights
        return self.runtime

    def window(self, tokens: Sequence[int], first: int = 0) -> Floats:
        return self._ready().window(tokens, first)

    def step(self, token: int) -> Floats:
        return self._ready().step(token)

    def embed(self, text: str, tokens: Sequence[int]) -> Floats:
        return self._ready().embed(text, tokens)

    def scores(self, text: str, tokens: Sequence[int]) -> Floats:
        return self._ready().scores(text, tokens)


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


def _along(factors: Floats, axis: int | None, rank: int) -> Floats:
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
    left = energy(weight - found.reshape(_along(found, axis, expected.ndim).shape) * wide)
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
