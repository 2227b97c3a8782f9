"""Tensors encoded with what their layers read: ``--effort best`` with a calibration text.

A model reads the text layer by layer (``edgeq.calibration.grams``); each layer's matrices are encoded by a method
(``edgeq.methods``) and kept in a temporary file until the GGUF file is written, for they may be large together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq import tokenization
from edgeq.calibration.grams import Group, Replace, read_in_groups
from edgeq.calibration.samples import CHUNK, Calibration
from edgeq.convert.checkpoint_rows import CheckpointRows
from edgeq.convert.gguf_file import GGUFPlan, WriteOptions
from edgeq.convert.gguf_sources import GGUFRows, Rows, RowSource
from edgeq.convert.row_store import RowStore
from edgeq.engine import model as engine
from edgeq.engine.weights import hugging_face_rows
from edgeq.errors import EdgeqError, InputError
from edgeq.formats.gguf.mix_table import UNQUANTIZED
from edgeq.formats.gguf.writer import TensorPlan
from edgeq.formats.rounding_error import RoundingError
from edgeq.methods import METHODS, BlockGrid, Statistics
from edgeq.wording import counted

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

_ROWS_VALUES = 1 << 24  # a matrix is encoded this many values at a time


@dataclass
class EncodedTensors:
    """Encoded rows and their errors by tensor name; column weights of the tensors that were not encoded."""

    store: RowStore
    calibration: Calibration
    tokens: int
    errors: dict[str, RoundingError] = field(default_factory=dict)
    importance: dict[str, Floats] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.store

    def rows(self, name: str, rows: Rows) -> Bytes:
        """Encoded rows, uint8 ``[rows, row_bytes]``."""
        return self.store.rows(name, rows)

    def error(self, name: str) -> RoundingError:
        """What encoding it cost."""
        return self.errors[name]

    def note(self) -> str:
        """A line on what was done."""
        count, text = len(self.store), self.calibration.text.name
        method = self.calibration.method
        return f"codes and scales of {counted(count, 'tensor')} chosen on {self.tokens:,} tokens of {text} ({method})"

    def use_in(self, options: WriteOptions) -> None:
        """Write with these tensors and weights, and record where they come from."""
        options.encoded, options.importance = self, self.importance
        options.metadata = {
            **options.metadata,
            "quantize.calibration.method": self.calibration.method,
            "quantize.calibration.dataset": self.calibration.text.name,
            "quantize.calibration.tokens": self.tokens,
        }


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
    samples = calibration.samples(model, tokenizer)
    heads = {spec.name: spec.rope_heads for spec in model.family.tensors(model.hp)}
    tensors = {
        tensor.name: _Wanted(tensor, heads[tensor.name])
        for tensor in planned.tensors
        if tensor.name in heads and _is_rounded(source, tensor)
    }
    with RowStore.open(folder) as rows:
        encoded = EncodedTensors(rows, calibration, sum(map(len, samples)))
        calibration.progress("calibrating", 0, len(tensors))
        for group, replace in read_in_groups(model, samples, tensors.__contains__):
            _encode_group(source, tensors, group, replace, encoded)
            done = len(rows) + len(encoded.importance)
            calibration.progress("calibrating", done, len(tensors))
        yield encoded


def _is_rounded(source: RowSource, tensor: TensorPlan) -> bool:
    """Whether the tensor is going to be quantized, and not copied."""
    return tensor.type_name not in UNQUANTIZED and source.stored_type(tensor.name) != tensor.type_name


def _opened(source: RowSource) -> tuple[engine.Model, Any]:
    """The model in the engine, and its tokenizer."""
    if isinstance(source, CheckpointRows):
        return engine.from_source(source.source), source.source.tokenizer()
    assert isinstance(source, GGUFRows)
    return engine.from_gguf(source.file), tokenization.from_gguf(source.file.path, source.file.metadata)


def _encode_group(
    source: RowSource,
    tensors: Mapping[str, _Wanted],
    group: Group,
    replace: Replace,
    encoded: EncodedTensors,
) -> None:
    statistics, importance = group
    for name in list(statistics):
        tensor, found = tensors[name], statistics.pop(name)  # a layer's matrices are large together
        if BlockGrid.fits(tensor.plan.type_name):
            replace(name, _encode(source, *tensor, found, encoded))
        else:
            encoded.importance[name] = found.importance()[None]
    if importance.sums:
        matrix = importance.matrix("", CHUNK)
        for name in importance.sums:
            encoded.importance[name] = matrix.entries[name].importance()


def _encode(
    source: RowSource, tensor: TensorPlan, rope_heads: int, statistics: Statistics, encoded: EncodedTensors
) -> Floats:
    """Encode a matrix; what it is then, in Hugging Face's row order."""
    grid = BlockGrid(tensor.type_name)
    decoded, cost = [], RoundingError()
    for weights in _pieces(source, tensor):
        try:
            parts = METHODS[encoded.calibration.method](weights, statistics, grid)
        except EdgeqError as error:
            raise InputError(f"{source.where}: tensor {tensor.name}: {error}") from None
        encoded.store.add(tensor.name, grid.pack(parts))
        decoded.append(parts.values(grid.lattice))
        cost += RoundingError.of(weights, decoded[-1])
    encoded.errors[tensor.name] = cost
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
