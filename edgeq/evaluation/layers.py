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
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.allocation.trial import Coded, with_coded
from edgeq.calibration.text import Text
from edgeq.devices.detect import instruction_set
from edgeq.engine.float_operands import FloatOperands, float_model, read_rows
from edgeq.engine.model import Model
from edgeq.errors import InputError, UsageError
from edgeq.evaluation.decoders import Beside, evaluate_decoder
from edgeq.evaluation.loss import LOSSES, Loss, kind_of
from edgeq.evaluation.opening import file_kind
from edgeq.evaluation.proof import model_of
from edgeq.evaluation.runtimes import EmbeddedRuntime, FastRuntime
from edgeq.evaluation.windows import windows_of
from edgeq.formats.gguf.split import open_gguf
from edgeq.gguf_source import GGUFSource
from edgeq.source import ModelSource, SourceModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Floats = NDArray[np.float32]
Progress = Callable[[str, int, int], None]

_TOKENS, _CONTEXT = 2048, 256  # read for every tensor
_SENTENCES = 32  # of an encoder
_OUTPUT_TOKENS = 128  # whose outputs of every layer are looked at


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
        loss = LOSSES[kind_of(base.family.kind, base.hp.head)]
        floats = FloatOperands(base, instruction_set())
        look: _Look = (
            _Windows(base, floats, text, context)
            if base.family.kind == "decoder"
            else _Sentences(base, text, loss)
        )
        found = {name: {"name": name, **_weight(own, base, name)} for name in names}
        changed = [name for name in names if found[name]["weight_snr"] < inf]
        outputs = _outputs(own, base, floats, look.shown, loss)
        for done, name in enumerate(changed):
            progress("one tensor at a time", done, len(changed))
            found[name] |= outputs.get(name, {}) | look.alone(name, read_rows(own, name))
        return [found[name] for name in changed]


class _Look(Protocol):
    """A text that the reference reads with single tensors changed."""

    shown: list[list[int]]  # tokens whose layers' outputs are compared

    def alone(self, name: str, rows: Floats) -> dict[str, float]:
        """How far the answers are from the reference's with these rows for one tensor."""


class _Windows:
    """Of a decoder: the KL divergence of the tokens that follow."""

    def __init__(self, base: ModelSource, floats: FloatOperands, text: Text, context: int | None) -> None:
        width = context or min(_CONTEXT, base.hp.context)
        self.windows = windows_of(
            text.content, text.name, base.tokenizer(), base.hp.context, width, max_tokens=_TOKENS
        )
        self.shown = [next(iter(self.windows)).tokens[:_OUTPUT_TOKENS]]
        self.base, self.floats = base, floats
        self.runtime = FastRuntime(float_model(base, floats), 0, "floats")

    def alone(self, name: str, rows: Floats) -> dict[str, float]:
        changed = float_model(self.base, self.floats.replaced(name, rows))
        summary = evaluate_decoder(
            FastRuntime(changed, 0, "floats"), self.windows, Beside(self.runtime)
        ).summary()
        kept = ("kl_mean", "kl_standard_error", "kl_window_error", "top1_agreement")
        return {key: summary[key] for key in kept}


class _Sentences:
    """Of an encoder or a classifier: its vectors' cosines, or the KL divergence of its labels."""

    def __init__(self, base: ModelSource, text: Text, loss: Loss) -> None:
        self.sentences = encoded_lines(text, base.tokenizer(), base.hp.context)
        self.shown = first_tokens(self.sentences)
        self.model, self.loss = model_of(base), loss
        self.shapes = {name: base.shape(name) for name in base.specs}
        runtime = EmbeddedRuntime(self.model, 0.0)
        self.expected = [loss.answer(runtime, tokens) for tokens in self.sentences]

    def alone(self, name: str, rows: Floats) -> dict[str, float]:
        coded = Coded("F32", rows.view(np.uint8), rows.shape[1])
        runtime = EmbeddedRuntime(with_coded(self.model, {name: coded}, self.shapes), 0.0)
        comparison = self.loss.compare()
        for tokens, expected in zip(self.sentences, self.expected, strict=True):
            comparison.add(expected, self.loss.answer(runtime, tokens), tokens)
        return comparison.summary()


def encoded_lines(text: Text, tokenizer: Tokenizer, longest: int) -> list[list[int]]:
    """The tokens of a text's first lines, as many as every tensor is looked at with."""
    tokenizer.enable_truncation(longest)
    return [tokenizer.encode(line).ids for line in text.lines()[:_SENTENCES]]


def first_tokens(sentences: Sequence[list[int]]) -> list[list[int]]:
    """As many of the first sequences as outputs of layers are compared on."""
    ends = np.cumsum([len(tokens) for tokens in sentences])
    return list(sentences[: 1 + int(np.searchsorted(ends, _OUTPUT_TOKENS))])


def snr(signal: float, noise: float) -> float:
    """The ratio of two sums of squares in decibels; infinite without noise."""
    return inf if noise == 0 else float(10 * np.log10(signal / noise)) if signal else -inf


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
        sums.setdefault(name, []).append((_energy(wanted), _energy(y - wanted), _energy(y - alone)))

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


def _energy(values: Floats) -> float:
    return float(np.square(values, dtype=np.float64).sum())
