"""Where a quantized ONNX graph loses: weights, layers' outputs, and what each weight alone does to the answers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.calibration.text import Text
from edgeq.errors import UsageError
from edgeq.evaluation.alone import Reader, SentenceReader, WindowReader, sentences_for, windows_for
from edgeq.evaluation.changed_layers import ChangedLayer, GraphPair, along
from edgeq.evaluation.decibels import energy, snr
from edgeq.evaluation.loss import LOSSES, Kind
from edgeq.evaluation.opening import Evaluated
from edgeq.evaluation.runtimes import OnnxRuntime
from edgeq.formats.onnx.save import save_model
from edgeq.formats.onnx.watch import watched_copy
from edgeq.runtimes.engines import file_kind
from edgeq.runtimes.onnxruntime import Feeds, OnnxSession, decoder_feeds, encoder_feeds

Floats = NDArray[np.float32]
Progress = Callable[[str, int, int], None]


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
        pair = GraphPair(opened.path, reference, Path(folder))
        reader = _reader(pair, opened, text, context)
        outputs, found = _outputs(pair, opened.kind, reader.shown), []
        for done, one in enumerate(pair.changed):
            progress("one tensor at a time", done, len(pair.changed))
            alone = reader.alone(str(one.layer.weight.name), one.plain(one.weight))
            found.append({**one.told(), **outputs[one.name], **alone})
        return found


def _reader(pair: GraphPair, opened: Evaluated, text: Text, context: int | None) -> Reader:
    """The text, read by the float graph; its changed weights are inputs of it that have a value already."""
    copy = pair.float_model.clone()
    for one in pair.changed:
        copy.graph.inputs.append(copy.graph.initializers[one.name])
    path = pair.folder / "float.onnx"
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


def _outputs(pair: GraphPair, kind: Kind, sequences: Sequence[Sequence[int]]) -> dict[str, dict[str, float]]:
    """Each layer's two ratios over some sequences, by weight."""
    layers = [one for one in pair.changed if one.layer.kind != "table"]
    if not layers:
        return {one.name: {} for one in pair.changed}
    names = list(dict.fromkeys([one.twin.y for one in layers]))
    expected = _watched(pair, pair.float_model, {}, names, kind, sequences)
    both = list(dict.fromkeys([*names, *(one.twin.x for one in layers)]))
    answered = _watched(pair, pair.model, pair.config, both, kind, sequences)
    return {one.name: _ratios(pair, one, expected, answered) for one in pair.changed}


def _ratios(
    pair: GraphPair, one: ChangedLayer, expected: list[dict[str, Floats]], answered: list[dict[str, Floats]]
) -> dict[str, float]:
    if one.layer.kind == "table":
        return {}
    y, read, x = one.twin.y, one.twin.x, one.layer.x
    axis = -1 if one.layer.kind == "linear" else 1
    feeds: list[Feeds] = [
        {x: given[read] * along(one.into_input, axis % given[read].ndim, given[read].ndim)}
        for given in answered
    ]
    alone = pair.between(pair.float_model, [x], y, feeds)
    signal = noise = own = 0.0
    for index, wanted in enumerate(expected):
        got = answered[index][y] / along(one.into_output, axis % wanted[y].ndim, wanted[y].ndim)
        signal, noise = signal + energy(wanted[y]), noise + energy(got - wanted[y])
        own += 0.0 if alone is None else energy(got - alone[index])
    found = {"output_snr": snr(signal, noise)}
    return found if alone is None else found | {"own_snr": snr(signal, own)}


def _watched(
    pair: GraphPair,
    model: ir.Model,
    config: Mapping[str, str],
    names: Sequence[str],
    kind: Kind,
    sequences: Sequence[Sequence[int]],
) -> list[dict[str, Floats]]:
    """Inner values of a graph, for each sequence."""
    given = {str(value.name) for value in model.graph.inputs}
    inner = [name for name in names if name not in given]
    copy, places = watched_copy(model, inner)
    path = pair.folder / "watched.onnx"
    save_model(copy, path, force=True)
    session = OnnxSession(path, 1, config)
    found = []
    for tokens in sequences:
        feeds = decoder_feeds(tokens, session.empty_past()) if kind == "decoder" else encoder_feeds([tokens])
        wanted = session.run(feeds, [places[name] for name in inner])
        known = {name: np.asarray(feeds[name], np.float32) for name in names if name in given}
        found.append(known | dict(zip(inner, wanted, strict=True)))
    return found


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
