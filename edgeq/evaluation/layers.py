"""Where a quantized model loses: every tensor's own error, what it does to its layer, and to the answers.

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
from edgeq.engine.cache import KVCache
from edgeq.engine.float_operands import FloatOperands, float_model, read_rows
from edgeq.engine.model import Model
from edgeq.errors import InputError, UsageError
from edgeq.evaluation.decoders import Beside, evaluate_decoder
from edgeq.evaluation.opening import file_kind
from edgeq.evaluation.runtimes import FastRuntime
from edgeq.evaluation.windows import Windows, windows_of
from edgeq.formats.gguf.split import open_gguf
from edgeq.gguf_source import GGUFSource
from edgeq.source import ModelSource, SourceModel

Floats = NDArray[np.float32]
Progress = Callable[[str, int, int], None]

_TOKENS, _CONTEXT = 2048, 256  # read for every tensor
_OUTPUT_TOKENS = 128  # whose outputs of every layer are held at a time


def look_at_layers(
    candidate: Path, reference: Path, text: Text, context: int | None, progress: Progress
) -> list[dict[str, Any]]:
    """One record for each matrix of the candidate that is not the reference's, in the model's order.

    ``weight_snr``, ``output_snr`` and ``own_snr`` are decibels (``snr``): of the weight; of the layer's output, its
    inputs being those of the quantized model, to the reference's output; and to what the float weight makes of the same
    inputs. ``kl_mean`` with its errors is the divergence when only that tensor is the candidate's. Raises UsageError
    for an ONNX file, InputError for models of different shapes.
    """
    with _source(candidate) as own, _source(reference) as base:
        names = _matrices(own, base, candidate)
        windows = _windows(base, text, context)
        found = {name: {"name": name, **_weight(own, base, name)} for name in names}
        changed = [name for name in names if found[name]["weight_snr"] < inf]
        floats = FloatOperands(base, instruction_set())
        outputs = _outputs(own, base, floats, next(iter(windows)).tokens[:_OUTPUT_TOKENS])
        runtime = FastRuntime(float_model(base, floats), 0, "floats")
        for done, name in enumerate(changed):
            progress("one tensor at a time", done, len(changed))
            alone = floats.replaced(name, read_rows(own, name))
            changed_runtime = FastRuntime(float_model(base, alone), 0, "floats")
            summary = evaluate_decoder(changed_runtime, windows, Beside(runtime)).summary()
            kept = ("kl_mean", "kl_standard_error", "kl_window_error", "top1_agreement")
            found[name] |= outputs.get(name, {}) | {key: summary[key] for key in kept}
        return [found[name] for name in changed]


def snr(signal: float, noise: float) -> float:
    """The ratio of two sums of squares in decibels; infinite without noise."""
    return inf if noise == 0 else float(10 * np.log10(signal / noise)) if signal else -inf


@contextmanager
def _source(path: Path) -> Iterator[ModelSource]:
    kind = file_kind(path)
    if kind == "onnx":
        raise UsageError(f"{path}: --layers compares GGUF files and model directories, tensor by tensor")
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


def _windows(base: ModelSource, text: Text, context: int | None) -> Windows:
    width = context or min(_CONTEXT, base.hp.context)
    return windows_of(text.content, text.name, base.tokenizer(), base.hp.context, width, max_tokens=_TOKENS)


def _weight(own: ModelSource, base: ModelSource, name: str) -> dict[str, Any]:
    shape = own.shape(name)
    rows = int(np.prod(shape[:-1]))
    step = max(1, (4 << 20) // shape[-1])
    signal = noise = 0.0
    for start in range(0, rows, step):
        expected = base.rows(name, start, min(rows, start + step))
        difference = own.rows(name, start, min(rows, start + step)) - expected
        signal += float(np.square(expected, dtype=np.float64).sum())
        noise += float(np.square(difference, dtype=np.float64).sum())
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
    tokens: Sequence[int],
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
        sums.setdefault(name, []).append((_energy(wanted), _energy(y - wanted), _energy(y - alone)))

    quantized = FloatOperands(own, instruction_set())
    for source, weights, show in ((base, floats, keep), (own, quantized, compare)):
        watched = _Watched(weights, show)
        model = Model(source.family, source.hp, watched, source.name)
        model.logits(tokens, KVCache(source.hp.n_layers, len(tokens)))
    found = {}
    for name, parts in sums.items():
        signal, noise, own_noise = (sum(column) for column in zip(*parts, strict=True))
        found[name] = {"output_snr": snr(signal, noise), "own_snr": snr(signal, own_noise)}
    return found


def _energy(values: Floats) -> float:
    return float(np.square(values, dtype=np.float64).sum())
