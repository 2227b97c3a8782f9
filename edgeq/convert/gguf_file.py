"""The GGUF converter: a checkpoint or a GGUF file becomes a quantized file in one streaming pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.convert.gguf_sources import Rows, RowSource
from edgeq.convert.overlap import in_order
from edgeq.convert.tensor_encoder import TensorEncoder
from edgeq.convert.tensor_result import TensorResult
from edgeq.devices.detect import instruction_set
from edgeq.formats.effort import Effort
from edgeq.formats.gguf.mixes import Choice, choose_types, file_type, is_quantizable
from edgeq.formats.gguf.overrides import Override, apply_overrides
from edgeq.formats.gguf.split_writer import SplitGGUFWriter, shard_paths
from edgeq.formats.gguf.types import TENSOR_TYPES_BY_NAME
from edgeq.formats.gguf.writer import GGUFWriter, TensorPlan
from edgeq.formats.rounding_error import RoundingError
from edgeq.kernels_cpu import threads

if TYPE_CHECKING:
    pass

_QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION
Progress = Callable[[str, int, int], None]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class GGUFPlan:
    """Which type each tensor gets, and what the fallbacks cost."""

    quant: str
    choices: list[Choice]
    tensors: list[TensorPlan]

    def nbytes(self, tensor: TensorPlan, type_name: str | None = None) -> int:
        """Bytes of a tensor in its own type, or in another one (as if its rows divided)."""
        kind = TENSOR_TYPES_BY_NAME[type_name or tensor.type_name]
        return round(int(np.prod(tensor.shape)) / kind.block_values * kind.block_bytes)

    def total(self) -> int:
        return sum(self.nbytes(tensor) for tensor in self.tensors)

    def fallbacks(self) -> list[tuple[Choice, int]]:
        """Tensors whose rows do not divide by the wanted type's block, and the extra bytes of the type they get."""
        shapes = {tensor.name: tensor for tensor in self.tensors}
        return [
            (choice, self.nbytes(shapes[choice.name]) - self.nbytes(shapes[choice.name], choice.wanted_type))
            for choice in self.choices
            if choice.is_fallback
        ]

    def fallback_notes(self) -> list[str]:
        """One line per tensor that falls back."""
        columns = {tensor.name: tensor.shape[-1] for tensor in self.tensors}
        return [
            f"{choice.name}: rows of {columns[choice.name]} do not divide for {choice.wanted_type}, "
            f"stored as {choice.type_name} ({extra:+,} bytes)"
            for choice, extra in self.fallbacks()
        ]

    def fallback_summary(self) -> list[str]:
        """One line per kind of fallback: how many tensors, from what to what, and what it costs."""
        groups: dict[tuple[str, str], list[tuple[str, int]]] = {}
        for choice, extra in self.fallbacks():
            groups.setdefault((choice.wanted_type, choice.type_name), []).append((choice.name, extra))
        total = self.total()
        return [
            f"{len(items)} tensors fall back from {wanted} to {got}, their rows do not divide by the block "
            f"({items[0][0]}{', …' if len(items) > 1 else ''}): "
            f"{sum(extra for _, extra in items) / total:+.1%} file size"
            for (wanted, got), items in groups.items()
        ]


class EncodedRows(Protocol):
    """Tensors that were encoded before."""

    def __contains__(self, name: str) -> bool:
        """Whether the tensor is one of them."""

    def rows(self, name: str, rows: Rows) -> NDArray[np.uint8]:
        """Encoded rows of it; several threads may ask."""

    def error(self, name: str) -> RoundingError:
        """What encoding it cost."""


@dataclass
class WriteOptions:
    """How a file is written. ``importance`` holds column weights by tensor name, a row for each expert;
    ``nan`` what NaN weights do; ``encoded`` the tensors that need no encoding any more."""

    force: bool = False
    progress: Progress | None = None
    importance: Mapping[str, Floats] | None = None
    effort: Effort = Effort.normal
    encoded: EncodedRows | None = None
    nan: Literal["error", "zero"] = "error"
    split_bytes: int | None = None
    measure_error: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)  # keys beside the source's own


def plan(
    source: RowSource, quant: str, overrides: Sequence[Override] = (), has_imatrix: bool = False
) -> GGUFPlan:
    """The types of all tensors under llama.cpp's mix ``quant``; raises EdgeqError for an unknown name."""
    choices = [
        _kept(source, choice, dims)
        for choice, (_, dims) in zip(
            choose_types(quant, source.shape, source.tensors, has_imatrix=has_imatrix),
            source.tensors,
            strict=True,
        )
    ]
    if overrides:
        choices = apply_overrides(choices, source.tensors, overrides)
    tensors = [
        TensorPlan(name, choice.type_name, dims)
        for (name, dims), choice in zip(source.tensors, choices, strict=True)
    ]
    return GGUFPlan(file_type(quant).name, choices, tensors)


def _kept(source: RowSource, choice: Choice, shape: tuple[int, ...]) -> Choice:
    """What llama.cpp never quantizes keeps the type it is stored in."""
    stored = source.stored_type(choice.name)
    if stored is None or is_quantizable(choice.name, shape):
        return choice
    return replace(choice, type_name=stored, wanted_type=stored, reason="never quantized: kept as it is")


def output_paths(planned: GGUFPlan, path: Path, split_bytes: int | None) -> list[Path]:
    """The files that ``write`` is going to make."""
    return [path] if split_bytes is None else shard_paths(path, planned.tensors, split_bytes)


def write(
    source: RowSource, planned: GGUFPlan, path: Path, options: WriteOptions
) -> tuple[list[Path], list[TensorResult]]:
    """Write the file (or its shards), all threads busy across tensors; what became of each tensor."""
    metadata: dict[str, Any] = source.metadata() | {
        "general.file_type": file_type(planned.quant).number,
        "general.quantization_version": _QUANTIZATION_VERSION,
        **options.metadata,
    }
    architecture, force, progress = source.shape.architecture, options.force, options.progress
    if options.split_bytes is None:
        writer: GGUFWriter | SplitGGUFWriter = GGUFWriter(
            path, architecture, metadata, planned.tensors, force, progress
        )
        paths = [path]
    else:
        writer = SplitGGUFWriter(
            path, architecture, metadata, planned.tensors, options.split_bytes, force, progress
        )
        paths = writer.paths
    encoders = [TensorEncoder(source, tensor, options) for tensor in planned.tensors]
    jobs = ((encoder, rows) for encoder in encoders for rows in source.pieces(encoder.tensor.name))
    workers = threads.get_threads() + 1  # one of them is reading, or waits for the disk
    with writer:
        _compile_ahead(encoders)
        in_order(
            jobs,
            lambda job: (job[0], job[0].encode(job[1])),
            lambda done: done[0].take(done[1], writer),
            workers,
            threads.stay_on_this_thread,
        )
    return paths, [encoder.result(planned) for encoder in encoders]


def _compile_ahead(encoders: Sequence[TensorEncoder]) -> None:
    from edgeq.kernels_cpu.ahead import compile_ahead

    compile_ahead((need for encoder in encoders for need in encoder.needs()), instruction_set())
