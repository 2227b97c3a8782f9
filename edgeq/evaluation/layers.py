"""Where a quantized model loses: every tensor's own error, what it does to its layer, and to the answers.

GGUF files and model directories; ``onnx_layers`` has the same for graphs.
The candidate and the reference are read as floats, whatever they are stored as, and activations stay floats: what is
seen is the weights' doing alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.calibration.text import Text
from edgeq.devices.detect import instruction_set
from edgeq.engine.float_operands import FloatOperands, float_model, read_rows
from edgeq.engine.model import Model
from edgeq.engine.replaced import DecodedMatrix, with_replaced
from edgeq.errors import InputError, UsageError
from edgeq.evaluation.alone import Reader, SentenceReader, WindowReader, sentences_for, windows_for
from edgeq.evaluation.decibels import energy, snr
from edgeq.evaluation.loss import Loss, loss_of
from edgeq.evaluation.proof import model_of
from edgeq.evaluation.runtimes import EmbeddedRuntime, FastRuntime
from edgeq.formats.gguf.split import open_gguf
from edgeq.gguf_source import GGUFSource
from edgeq.runtimes.engines import file_kind
from edgeq.source import ModelSource, SourceModel

Floats = NDArray[np.float32]
Progress = Callable[[str, int, int], None]


def look_at_layers(
    candidate: Path, reference: Path, text: Text, context: int | None, progress: Progress
) -> list[dict[str, Any]]:
    """One record for each matrix of the candidate that is not the reference's, in the model's order.

    ``weight_snr``, ``output_snr`` and ``own_snr`` are decibels (``snr``): of the weight; of the layer's output, its
    inputs being those of the quantized model, to the reference's output; and to what the float weight makes of the same
    inputs. ``kl_mean`` (of an encoder's vectors ``cosine_mean``) with its errors is what the answers become when only
    that tensor is the candidate's. Raises UsageError for a model of another format than the reference's, InputError for
    models of different shapes.
    """
    with _source(candidate) as own, _source(reference) as base:
        names = _matrices(own, base, candidate)
        loss = loss_of(base)
        floats = FloatOperands(base, instruction_set())
        look = _reader(base, floats, text, context, loss)
        found = {name: {"name": name, **_weight(own, base, name)} for name in names}
        changed = [name for name in names if found[name]["weight_snr"] < inf]
        outputs = _outputs(own, base, floats, look.shown, loss)
        for done, name in enumerate(changed):
            progress("one tensor at a time", done, len(changed))
            found[name] |= outputs.get(name, {}) | look.alone(name, read_rows(own, name))
        return [found[name] for name in changed]


def _reader(base: ModelSource, floats: FloatOperands, text: Text, context: int | None, loss: Loss) -> Reader:
    if base.family.generates(base.hp):

        def replaced(name: str, rows: Floats) -> FastRuntime:
            return FastRuntime(float_model(base, floats.replaced(name, rows)), 0, "floats")

        windows = windows_for(text, base.tokenizer(), base.hp.context, context)
        return WindowReader(windows, FastRuntime(float_model(base, floats), 0, "floats"), replaced)
    model = model_of(base)

    def changed(name: str, rows: Floats) -> EmbeddedRuntime:
        return EmbeddedRuntime(with_replaced(model, {name: DecodedMatrix(rows)}), 0.0)

    sentences = sentences_for(text, base.tokenizer(), base.hp.context)
    return SentenceReader(sentences, loss, EmbeddedRuntime(model, 0.0), changed)


@contextmanager
def _source(path: Path) -> Iterator[ModelSource]:
    kind = file_kind(path)
    if kind == "onnx":
        raise UsageError(
            f"{path}: --layers compares a graph with a graph, and GGUF files or directories with each other"
        )
    if kind == "directory":
        yield SourceModel.open(path)
    else:
        with open_gguf(path) as file:
            yield GGUFSource(file)


def _matrices(own: ModelSource, base: ModelSource, path: Path) -> list[str]:
    names = [spec.name for spec in own.family.tensors(own.hp) if len(spec.shape) > 1 and own.has(spec.name)]
    for name in names:
        if not base.has(name) or base.shape(name) != own.shape(name):
            raise InputError(f"{path}: tensor {name} has no match in the reference; it is another model")
    return names


def _weight(own: ModelSource, base: ModelSource, name: str) -> dict[str, Any]:
    shape = own.shape(name)
    rows = int(np.prod(shape[:-1]))
    step = max(1, (4 << 20) // shape[-1])
    signal = noise = 0.0
    for start in range(0, rows, step):
        expected = base.rows(name, start, min(rows, start + step))
        difference = own.rows(name, start, min(rows, start + step)) - expected
        signal, noise = signal + energy(expected), noise + energy(difference)
    return {"type": own.layout(name) or "float", "weight_snr": snr(signal, noise)}


@dataclass
class _Watched:
    """Weights of the exact mode that show each product's name, input and output."""

    operands: FloatOperands
    show: Callable[[str, int, Floats, Floats], None]

    def has(self, name: str) -> bool:
        return self.operands.has(name)

    def vector(self, name: str) -> Floats:
        return self.operands.vector(name)

    def picked(self, name: str, ids: NDArray[np.int64]) -> Floats:
        return self.operands.picked(name, ids)

    def product(self, x: Floats, name: str, expert: int | None = None) -> Floats:
        y = multiplied(self.operands, x, name, expert)
        self.show(name, expert or 0, x, y)
        return y


def multiplied(operands: FloatOperands, x: Floats, name: str, expert: int | None) -> Floats:
    """``x @ matrix.T`` in float32, with one matrix of a stack where ``expert`` is given."""
    shape = operands.source.shape(name)
    height, first = shape[-2], (expert or 0) * shape[-2]
    rows = operands.picked(name, np.arange(first, first + height))
    return x @ rows.T


def _outputs(
    own: ModelSource,
    base: ModelSource,
    floats: FloatOperands,
    sequences: Sequence[Sequence[int]],
    loss: Loss,
) -> dict[str, dict[str, float]]:
    """Each layer's two ratios over some tokens; of experts those that the same tokens chose in both models."""
    expected: dict[tuple[str, int], Floats] = {}
    sums: dict[str, list[tuple[float, float, float]]] = {}

    def keep(name: str, expert: int, x: Floats, y: Floats) -> None:
        expected[name, expert] = y

    def compare(name: str, expert: int, x: Floats, y: Floats) -> None:
        wanted = expected.get((name, expert))
        if wanted is None or wanted.shape != y.shape:
            return
        alone = multiplied(floats, x, name, expert)
        sums.setdefault(name, []).append((energy(wanted), energy(y - wanted), energy(y - alone)))

    quantized = FloatOperands(own, instruction_set())
    readers = [
        EmbeddedRuntime(Model(source.family, source.hp, _Watched(weights, show), source.name), 0.0)
        for source, weights, show in ((base, floats, keep), (own, quantized, compare))
    ]
    for tokens in sequences:
        expected.clear()
        for reader in readers:
            loss.answer(reader, tokens)
    found = {}
    for name, parts in sums.items():
        signal, noise, own_noise = (sum(column) for column in zip(*parts, strict=True))
        found[name] = {"output_snr": snr(signal, noise), "own_snr": snr(signal, own_noise)}
    return found
