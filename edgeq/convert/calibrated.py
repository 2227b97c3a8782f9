"""Tensors encoded with what their layers read: ``--effort best`` with a calibration text.

A model reads the text layer by layer (``edgeq.calibration.grams``); each layer's matrices are encoded by a method
(``edgeq.methods``) and kept in a temporary file until the GGUF file is written, for they may be large together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq import tokenization
from edgeq.calibration.grams import Group, Replace, read_in_groups
from edgeq.calibration.importance import Sample, decoder_samples, encoder_samples
from edgeq.convert.checkpoint_rows import CheckpointRows
from edgeq.convert.gguf_file import GGUFPlan, WriteOptions
from edgeq.convert.gguf_sources import GGUFRows, Rows, RowSource
from edgeq.engine import model as engine
from edgeq.engine.weights import hugging_face_rows
from edgeq.errors import EdgeqError, InputError
from edgeq.formats.gguf.mix_table import UNQUANTIZED
from edgeq.formats.gguf.writer import TensorPlan
from edgeq.methods import METHODS, BlockGrid, Statistics

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

METHOD = "descent"
_CHUNK = 512  # tokens of a decoder's sample, llama.cpp's for importance matrices
_MAX_TOKENS = 1 << 15
_HIDDEN_BYTES = 256 << 20  # what a layer gives for all samples, in memory at a time
_ROWS_VALUES = 1 << 24  # a matrix is encoded this many values at a time


@dataclass
class EncodedTensors:
    """Encoded rows by tensor name, in a file; column weights of the tensors that were not encoded."""

    file: IO[bytes]
    text: Path
    tokens: int
    importance: dict[str, Floats] = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)  # where it begins, bytes of a row

    def add(self, name: str, encoded: Bytes) -> None:
        """Append rows; all of a tensor, before the next one's."""
        begin, width = self.places.get(name, (self.file.seek(0, 2), encoded.shape[1]))
        self.places[name] = begin, width
        self.file.write(encoded.tobytes())

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def rows(self, name: str, rows: Rows) -> Bytes:
        """Encoded rows, uint8 ``[rows, row_bytes]``."""
        begin, width = self.places[name]
        shape = rows[1] - rows[0], width
        mapped = np.memmap(self.file, np.uint8, "r", begin + rows[0] * width, shape)
        return np.array(mapped)

    def note(self) -> str:
        """A line on what was done."""
        count = len(self.places)
        return f"codes and scales of {count} tensors chosen on {self.tokens:,} tokens of {self.text.name} ({METHOD})"

    def use_in(self, options: WriteOptions) -> None:
        """Write with these tensors and weights, and record where they come from."""
        options.encoded, options.importance = self, self.importance
        options.metadata = {
            **options.metadata,
            "quantize.calibration.method": METHOD,
            "quantize.calibration.dataset": self.text.name,
            "quantize.calibration.tokens": self.tokens,
        }


@dataclass
class Calibration:
    """A text to calibrate on; ``skip`` tokens at its start are left for a comparison, if it is long enough."""

    text: Path
    skip: int = 0
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None
    warn: Callable[[str], None] = lambda message: None


class _Wanted(NamedTuple):
    plan: TensorPlan
    rope_heads: int  # whose rows GGUF holds interleaved, 0 where it does not


@contextmanager
def encoded_tensors(
    source: RowSource, planned: GGUFPlan, calibration: Calibration, folder: Path
) -> Iterator[EncodedTensors]:
    """Encode what the model multiplies with, a temporary file in ``folder``; raises EdgeqError.

    InputError for a model of a family that edgeq does not run.
    """
    model, tokenizer = _opened(source)
    samples = _samples(model, tokenizer, calibration)
    heads = {spec.name: spec.rope_heads for spec in model.family.tensors(model.hp)}
    tensors = {
        tensor.name: _Wanted(tensor, heads[tensor.name])
        for tensor in planned.tensors
        if tensor.name in heads and _is_rounded(source, tensor)
    }
    with tempfile.TemporaryFile(prefix=".edgeq-encoded-", dir=folder) as file:
        store = EncodedTensors(file, calibration.text, sum(map(len, samples)))
        calibration.progress("calibrating", 0, len(tensors))
        for group, replace in read_in_groups(model, samples, tensors.__contains__):
            _encode_group(source, tensors, group, replace, store)
            done = len(store.places) + len(store.importance)
            calibration.progress("calibrating", done, len(tensors))
        file.flush()
        yield store


def _is_rounded(source: RowSource, tensor: TensorPlan) -> bool:
    """Whether the tensor is going to be quantized, and not copied."""
    return tensor.type_name not in UNQUANTIZED and source.stored_type(tensor.name) != tensor.type_name


def _opened(source: RowSource) -> tuple[engine.Model, Any]:
    """The model in the engine, and its tokenizer."""
    if isinstance(source, CheckpointRows):
        return engine.from_source(source.source), source.source.tokenizer()
    assert isinstance(source, GGUFRows)
    return engine.from_gguf(source.file), tokenization.from_gguf(source.file.path, source.file.metadata)


def _samples(model: engine.Model, tokenizer: Any, calibration: Calibration) -> list[list[int]]:
    """As many samples as are read, from all over the text."""
    text = calibration.text
    if model.family.kind == "encoder":
        return _spread(encoder_samples(text, tokenizer, model.hp.context), _MAX_TOKENS)
    chunk = min(_CHUNK, model.hp.context)
    limit = max(chunk, min(_MAX_TOKENS, _HIDDEN_BYTES // (4 * model.hp.hidden)))
    samples = _spread(decoder_samples(text, tokenizer, chunk), limit, -(-calibration.skip // chunk))
    if calibration.skip and not samples:
        calibration.warn(f"{text}: is too short to keep a part for the comparison, which flatters then")
        samples = _spread(decoder_samples(text, tokenizer, chunk), limit)
    return samples


def _spread(samples: Iterator[Sample], limit: int, skip: int = 0) -> list[list[int]]:
    """Every k-th sample after the first ``skip`` ones, k the least power of two that keeps the limit of tokens."""
    kept: list[list[int]] = []
    every, size = 1, 0
    for index, sample in enumerate(samples):
        if index < skip or (index - skip) % every:
            continue
        kept.append(sample.tokens)
        size += len(sample.tokens)
        if size > limit and len(kept) > 1:
            kept, every = kept[::2], 2 * every
            size = sum(map(len, kept))
    return kept


def _encode_group(
    source: RowSource,
    tensors: Mapping[str, _Wanted],
    group: Group,
    replace: Replace,
    store: EncodedTensors,
) -> None:
    statistics, importance = group
    for name, found in statistics.items():
        tensor = tensors[name]
        if BlockGrid.fits(tensor.plan.type_name):
            replace(name, _encode(source, *tensor, found, store))
        else:
            store.importance[name] = found.importance()[None]
    if importance.sums:
        matrix = importance.matrix("", _CHUNK)
        for name in importance.sums:
            store.importance[name] = matrix.entries[name].importance()


def _encode(
    source: RowSource, tensor: TensorPlan, rope_heads: int, statistics: Statistics, store: EncodedTensors
) -> Floats:
    """Encode a matrix; what it is then, in Hugging Face's row order."""
    grid = BlockGrid(tensor.type_name)
    decoded = []
    for weights in _pieces(source, tensor):
        try:
            parts = METHODS[METHOD](weights, statistics, grid)
        except EdgeqError as error:
            raise InputError(f"{source.where}: tensor {tensor.name}: {error}") from None
        store.add(tensor.name, grid.pack(parts))
        decoded.append(parts.values(grid.lattice))
    values = decoded[0] if len(decoded) == 1 else np.concatenate(decoded)
    return values[hugging_face_rows(len(values), rope_heads)] if rope_heads else values


def _pieces(source: RowSource, tensor: TensorPlan) -> Iterator[Floats]:
    """The matrix in pieces of many rows, as float32."""
    waiting: list[Floats] = []
    for rows in source.pieces(tensor.name):
        waiting.append(source.rows(tensor.name, rows))
        if sum(map(np.size, waiting)) >= _ROWS_VALUES:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)
